-- Stores and announces one or many notifications, all or none, in one step:
-- append before announce, so that whatever is announced can be read.
--
-- KEYS  three for each notification: its user's log, state and expiring
--       (see keys.go), then the idempotency key if ARGV[6] is not ''
-- ARGV  1 length of a log        2 retention of a log, ms
--       3 for each notification "<bytes of its tail>,<ttl ms>;"; a tail of 0
--         bytes is the previous one again; ttl 0 none, -1 ephemeral, below
--         that skipped: only answered, with this number for receivers. A q
--         before the semicolon: stored without being announced
--       4 the tails, one after another (notify.AppendTail)
--       5 Redis time in ms after which this is refused: its publisher has
--         given up and answered 503
--       6 fingerprint of the request, '' without an idempotency key
--       7 lifetime of the idempotency key, ms
-- Returns {verdict, time in ms, id, receivers, id, receivers, …}; id 0 for an
-- ephemeral one. Verdicts: 'stored', 'replay' (the first answer again, its
-- time included), 'mismatch' (same key, another request), 'late'.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local int = function(n) return string.format('%d', n) end
local ts = int(now)

if now > tonumber(ARGV[5]) then
  return {'late', ts}
end
local idem = ARGV[6] ~= '' and KEYS[#KEYS]
if idem then
  local first = call('HMGET', idem, 'print', 'answer')
  if first[1] then
    if first[1] ~= ARGV[6] then
      return {'mismatch', ts}
    end
    local answer = {'replay'}
    for part in string.gmatch(first[2], '%-?%d+') do
      answer[#answer + 1] = part
    end
    return answer
  end
end

-- Appends a notification to its user's log; returns its id and frame.
local function store(k, tail, ttl)
  local log, state, limit = KEYS[k], KEYS[k + 1], tonumber(ARGV[1])
  local s = call('HMGET', state, 'last', 'seq')
  local last, seq = s[1] or '0', (s[2] or 0) + 1
  if not s[1] then -- the state was lost: never reuse an id that the log still has
    local newest = call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    if newest then
      last, seq = string.match(newest[1], '%d+'), newest[2][4] + 1
    end
  end
  local id = now > tonumber(last) and ts or int(last + 1)
  local frame = '{"type":"notification","id":' .. id .. ',"prev":' .. last .. ',"ts":' .. ts .. ',' .. tail
  local oldest, expires = int(now - ARGV[2]), ttl > 0 and int(now + ttl) or '0'
  -- Numbered as they are, the log can only be too long once seq exceeds its length.
  if seq > limit then
    call('XADD', log, 'MAXLEN', ARGV[1], id .. '-0', 'f', frame, 'n', int(seq), 'x', expires)
    call('XTRIM', log, 'MINID', oldest)
  else
    call('XADD', log, 'MINID', oldest, id .. '-0', 'f', frame, 'n', int(seq), 'x', expires)
  end
  call('PEXPIRE', log, ARGV[2])
  call('HSET', state, 'last', id, 'seq', int(seq))
  call('PEXPIRE', state, int(ARGV[2] + 2592000000)) -- stateAfterLog: 30 days
  if seq % limit == 0 then -- forget what was trimmed, once in a log's length
    local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    for _, old in ipairs(call('ZRANGE', KEYS[k + 2], 0, -1)) do
      if tonumber(old) < tonumber(string.match(first[1], '%d+')) then
        call('ZREM', KEYS[k + 2], old)
      end
    end
  end
  if ttl > 0 then
    call('ZADD', KEYS[k + 2], expires, id)
    call('PEXPIRE', KEYS[k + 2], ARGV[2])
  end
  return id, frame
end

local answer, frames = {'stored', ts}, {}
local k, at, tail = 1, 1, ''
for size, ttl, quiet in string.gmatch(ARGV[3], '(%d+),(-?%d+)(q?);') do
  size, ttl = tonumber(size), tonumber(ttl)
  if size > 0 then
    tail = string.sub(ARGV[4], at, at + size - 1)
    at = at + size
  end
  local id, frame, receivers = '0', false, '0'
  if ttl < -1 then
    receivers = int(ttl)
  elseif ttl < 0 then
    frame = '{"type":"notification","ephemeral":true,"ts":' .. ts .. ',' .. tail
  else
    id, frame = store(k, tail, ttl)
  end
  frames[#frames + 1] = quiet == '' and frame
  answer[#answer + 1] = id
  answer[#answer + 1] = receivers
  k = k + 3
end

for i, frame in ipairs(frames) do
  if frame then
    local channel = 'user:' .. string.sub(KEYS[3 * i - 2], 7, -6) .. ':events'
    answer[2 * i + 2] = int(call('PUBLISH', channel, frame))
  end
end
if idem then
  call('HSET', idem, 'print', ARGV[6], 'answer', table.concat(answer, ' ', 2))
  call('PEXPIRE', idem, ARGV[7])
end
return answer
