-- Stores and announces one or many notifications, all or none, in one step:
-- append before announce, so that whatever is announced can be read. With
-- tickets each is a step of its own: what one cannot do keeps no other from it.
--
-- KEYS  three for each notification: its user's log, state and expiring
--       (see keys.go), and with tickets a fourth: the hash that holds its one;
--       then the idempotency key if ARGV[6] is not '', or the keys of admit
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
--       8 '' if all or none; 'apart' if they are of different publishers, and one
--         that cannot be stored does not fail the others; else tickets: one for
--         each notification, separated by spaces, each a field of the fourth
--         key. One whose ticket is gone is left out; what is published takes its
--         ticket away, last: an append that Redis refuses keeps the ticket.
--         'apart' may be followed by a number for each notification: which of the
--         keys of admit, from 1, it is under; 0 under none
-- admit(key, costs), if it is put in front of this script (Options.Admit), says
-- which notifications may pass: it returns a clock, then three integers for each
-- cost, the first of them 0 if it may.
-- Returns "<verdict> <time in ms> <id> <receivers> <id> <receivers> …"; id 0 for
-- an ephemeral one, -1 for one that could not be stored, -2 for one that was not
-- admitted; receivers -1 for one that was left out, below that for one that was
-- skipped. Verdicts: 'stored', 'replay' (the first answer again, its time
-- included), 'mismatch' (same key, another request), 'late'. Where admit was asked,
-- four numbers for each notification follow: the clock and its three, or four
-- zeros if there was no answer.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local int = function(n) return string.format('%d', n) end
local ts = int(now)

if now > tonumber(ARGV[5]) then
  return 'late ' .. ts
end
local idem = ARGV[6] ~= '' and KEYS[#KEYS]
if idem then
  local first = call('HMGET', idem, 'print', 'answer')
  if first[1] then
    if first[1] ~= ARGV[6] then
      return 'mismatch ' .. ts
    end
    return 'replay ' .. first[2]
  end
end

-- What is too old is forgotten, and expiries are renewed, by the first
-- notification in each slack of time: retention is that much longer than it says.
local retention, limit = tonumber(ARGV[2]), tonumber(ARGV[1])
local slack = math.max(1, math.min(3600000, math.floor(retention / 16)))
local keepLog, keepState = int(retention + slack), int(retention + slack + 2592000000) -- stateAfterLog: 30 days
local oldest, period = int(now - retention), math.floor(now / slack)

-- Appends a notification to its user's log; returns its id and frame.
local function store(k, tail, ttl)
  local log, state = KEYS[k], KEYS[k + 1]
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
  local expires, number = ttl > 0 and int(now + ttl) or '0', int(seq)
  -- Numbered as they are, the log can only be too long once seq exceeds its length.
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
    call('PEXPIRE', KEYS[k + 2], keepLog)
  end
  return id, frame
end

-- Returns how many subscriptions a frame went to; its log is KEYS[k].
local function announce(k, frame)
  return int(call('PUBLISH', 'user:' .. string.sub(KEYS[k], 7, -6) .. ':events', frame))
end

local answer, frames = {'stored', ts}, {}
local k, at, tail = 1, 1, ''
local apart, step, tickets = string.sub(ARGV[8], 1, 5) == 'apart', 3, nil
if ARGV[8] ~= '' and not apart then
  step, tickets = 4, {}
  for ticket in string.gmatch(ARGV[8], '%S+') do
    tickets[#tickets + 1] = ticket
  end
end

-- Asks admit for the notifications under each key together, in their order.
-- Returns a list of {clock, three numbers}; false where there is no answer.
local function admissions(numbers)
  local of, under, keys = {}, {}, 0
  for number in string.gmatch(numbers, '%d+') do
    number = tonumber(number)
    of[#of + 1] = number
    under[number] = under[number] or {}
    table.insert(under[number], #of)
    keys = math.max(keys, number)
  end
  local said = {}
  for number = 1, keys do
    local ok, reply = pcall(admit, KEYS[#KEYS - keys + number], string.rep('1,', #under[number]))
    for i, notification in ipairs(under[number]) do
      said[notification] = ok and { reply[1], reply[3 * i - 1], reply[3 * i], reply[3 * i + 1] }
    end
  end
  return said
end
local asked = apart and #ARGV[8] > 5 and admissions(string.sub(ARGV[8], 7))
for size, ttl, quiet in string.gmatch(ARGV[3], '(%d+),(-?%d+)(q?);') do
  size, ttl = tonumber(size), tonumber(ttl)
  if size > 0 then
    tail = string.sub(ARGV[4], at, at + size - 1)
    at = at + size
  end
  local id, frame, receivers, ticket = '0', false, '0', tickets and tickets[#frames + 1]
  local gone = ticket and call('HEXISTS', KEYS[k + 3], ticket) == 0
  local said = asked and asked[#frames + 1]
  if gone then
    receivers = '-1'
  elseif said and said[2] > 0 then
    id, gone = '-2', true
  end
  if not gone then
    if ttl < -1 then
      receivers = int(ttl)
    elseif ttl < 0 then
      frame = '{"type":"notification","ephemeral":true,"ts":' .. ts .. ',' .. tail
    elseif apart then
      local ok
      ok, id, frame = pcall(store, k, tail, ttl)
      if not ok then
        id, frame = '-1', false
      end
    else
      id, frame = store(k, tail, ttl)
    end
    frame = quiet == '' and frame
    if ticket then -- done with, even if Redis should refuse a later one
      receivers, frame = frame and announce(k, frame) or receivers, false
      call('HDEL', KEYS[k + 3], ticket)
    end
  end
  frames[#frames + 1] = frame
  answer[#answer + 1] = id
  answer[#answer + 1] = receivers
  k = k + step
end

for i, frame in ipairs(frames) do
  if frame then
    answer[2 * i + 2] = announce(step * (i - 1) + 1, frame)
  end
end
if idem then
  call('HSET', idem, 'print', ARGV[6], 'answer', table.concat(answer, ' ', 2))
  call('PEXPIRE', idem, ARGV[7])
end
for i = 1, asked and #frames or 0 do
  local said = asked[i] or { 0, 0, 0, 0 }
  for n = 1, 4 do
    answer[#answer + 1] = int(said[n])
  end
end
return table.concat(answer, ' ')
