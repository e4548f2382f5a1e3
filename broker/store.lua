-- Shared by the publish scripts, which follow it in one chunk (scripts.go). It refuses a
-- call that comes too late, and defines how a notification is stored and announced. The
-- constants in capitals are defined by scripts.go in front of it.
--
-- KEYS  three for each notification, in order: its user's log, state and expiring (keys.go)
-- ARGV  1 length of a log
--       2 retention of a log, ms
--       3 for each notification "<user id>,<bytes of its tail>,<kind>,<number>;". A tail of
--         0 bytes is the previous one again. Kinds:
--           STORE      stored and announced; number is its ttl in ms, 0 without one
--           QUIET      stored, not announced; number as for STORE
--           EPHEMERAL  announced, not stored
--           SKIP       neither; number is the reason, which is part of the answer
--       4 the tails, one after another: each ends a frame (notify.AppendTail)
--       5 Redis time in ms after which the publisher has given up and answered 503
--
-- Scripts return "<verdict> <time in ms> <outcome> <number> <outcome> <number> …", one pair
-- for each notification. The verdict is STORED, or LATE without pairs. An outcome is the
-- new id with the number of subscriptions that Redis announced it to, id 0 for EPHEMERAL;
-- or SKIPPED with the reason; or a word of the script itself, with number 0.

local call = redis.call
local int = function(n) return string.format('%d', n) end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ts = int(now)

if now > tonumber(ARGV[5]) then
  return LATE .. ' ' .. ts
end

-- Old entries are trimmed, and expiries renewed, by the first notification in each period
-- of slack ms. So a log lives up to slack longer than its retention.
local limit, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local slack = math.max(1, math.min(3600000, math.floor(retention / 16)))
local keepLog, keepState = int(retention + slack), int(retention + slack + STATE_AFTER_LOG)
local oldest, period = int(now - retention), math.floor(now / slack)

-- Appends a notification to a log; returns its id and frame.
local function append(log, state, expiring, tail, ttl)
  local s = call('HMGET', state, 'last', 'seq')
  local last, seq = s[1] or '0', (s[2] or 0) + 1
  if not s[1] then -- the state was lost: never reuse an id that the log still has
    local newest = call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    if newest then
      last, seq = string.match(newest[1], '%d+'), newest[2][4] + 1
    end
  end
  local id = now > tonumber(last) and ts or int(last + 1)
  local frame = STORED_HEAD .. id .. STORED_PREV .. last .. STORED_TS .. ts .. ',' .. tail
  local expires, number = ttl > 0 and int(now + ttl) or '0', int(seq)
  -- Entries are numbered, so the log can only be too long once seq exceeds its length.
  if seq > limit then
    call('XADD', log, 'MAXLEN', limit, id .. '-0', 'f', frame, 'n', number, 'x', expires)
  else
    call('XADD', log, id .. '-0', 'f', frame, 'n', number, 'x', expires)
  end
  call('HSET', state, 'last', id, 'seq', number)
  if not s[1] or math.floor(last / slack) ~= period then
    call('XTRIM', log, 'MINID', oldest)
    call('PEXPIRE', log, keepLog)
    call('PEXPIRE', state, keepState)
  end
  if seq % limit == 0 then -- once per length of the log, drop ids that were trimmed
    local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    for _, old in ipairs(call('ZRANGE', expiring, 0, -1)) do
      if tonumber(old) < tonumber(string.match(first[1], '%d+')) then
        call('ZREM', expiring, old)
      end
    end
  end
  if ttl > 0 then
    call('ZADD', expiring, expires, id)
    call('PEXPIRE', expiring, keepLog)
  end
  return id, frame
end

-- Stores a notification whose first key is KEYS[k]; returns its outcome and number, and
-- the frame to announce, if any.
local function store(k, kind, number, tail)
  if kind == SKIP then
    return SKIPPED, number
  elseif kind == EPHEMERAL then
    return '0', '0', EPHEMERAL_HEAD .. ts .. ',' .. tail
  end
  local id, frame = append(KEYS[k], KEYS[k + 1], KEYS[k + 2], tail, tonumber(number))
  return id, '0', kind == STORE and frame or nil
end

-- Returns the number of subscriptions that Redis announced the frame to.
local function announce(user, frame)
  return int(call('PUBLISH', CHANNEL_PREFIX .. user .. CHANNEL_SUFFIX, frame))
end

-- Stores and announces a notification; returns its outcome and number.
local function publish(k, user, kind, number, tail)
  local outcome, nodes, frame = store(k, kind, number, tail)
  if frame then
    nodes = announce(user, frame)
  end
  return outcome, nodes
end

-- One notification in ARGV[3]: user id, size of its tail, kind, number.
local NOTIFICATION = '([^,]+),(%d+),(%a+),(%d+);'

-- Returns the next notification's tail. Call it once for each, in order.
local tail, at = '', 1
local function nextTail(size)
  if size ~= '0' then
    tail = string.sub(ARGV[4], at, at + size - 1)
    at = at + size
  end
  return tail
end
