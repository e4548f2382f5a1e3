-- Stores and announces one or many notifications, all or none, in one step:
-- append before announce, so that whatever is announced can be read.
--
-- KEYS  three for each notification: its user's log, state and expiring
--       (see keys.go), then the idempotency key if ARGV[6] is not ''
-- ARGV  1 length of a log        2 retention of a log, ms
--       3 for each notification "<bytes of its tail>,<ttl ms>;"; a tail of 0
--         bytes is the previous one again; ttl 0 none, -1 ephemeral
--       4 the tails, one after another (notify.AppendTail)
--       5 Redis time in ms after which this is refused: its publisher has
--         given up and answered 503
--       6 fingerprint of the request, '' without an idempotency key
--       7 lifetime of the idempotency key, ms
-- Returns {verdict, time in ms, id, receivers, id, receivers, …}; id 0 for an
-- ephemeral one. Verdicts: 'stored', 'replay' (the first answer again, its
-- time included), 'mismatch' (same key, another request), 'late'.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local int = function(n) return string.format('%.0f', n) end

if now > tonumber(ARGV[5]) then
  return {'late', int(now)}
end
local idem = ARGV[6] ~= '' and KEYS[#KEYS]
if idem then
  local first = redis.call('HMGET', idem, 'print', 'answer')
  if first[1] then
    if first[1] ~= ARGV[6] then
      return {'mismatch', int(now)}
    end
    local answer = {'replay'}
    for part in string.gmatch(first[2], '%d+') do
      answer[#answer + 1] = part
    end
    return answer
  end
end

local answer = {'stored', int(now)}
local announce = {}
local k, at, tail = 1, 1, ''
for size, ttl in string.gmatch(ARGV[3], '(%d+),(-?%d+);') do
  local log, state, expiring = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  k, size, ttl = k + 3, tonumber(size), tonumber(ttl)
  if size > 0 then
    tail = string.sub(ARGV[4], at, at + size - 1)
    at = at + size
  end
  local frame, id
  if ttl < 0 then
    id = '0'
    frame = '{"type":"notification","ephemeral":true,"ts":' .. int(now) .. ',' .. tail
  else
    local s = redis.call('HMGET', state, 'last', 'seq')
    local prev, seq = tonumber(s[1] or 0), tonumber(s[2] or 0) + 1
    if not s[1] then -- the state was lost: never reuse an id that the log still has
      local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
      if newest then
        prev = tonumber(string.match(newest[1], '%d+'))
        seq = tonumber(newest[2][4]) + 1
      end
    end
    id = int(math.max(prev + 1, now))
    local expires = ttl > 0 and int(now + ttl) or '0'
    frame = '{"type":"notification","id":' .. id .. ',"prev":' .. int(prev) .. ',"ts":' .. int(now) .. ',' .. tail
    redis.call('XADD', log, 'MAXLEN', ARGV[1], id .. '-0', 'f', frame, 'n', int(seq), 'x', expires)
    redis.call('XTRIM', log, 'MINID', int(now - ARGV[2]))
    redis.call('PEXPIRE', log, ARGV[2])
    redis.call('HSET', state, 'last', id, 'seq', int(seq))
    redis.call('PEXPIRE', state, int(ARGV[2] + 2592000000)) -- stateAfterLog: 30 days
    if ttl > 0 then
      redis.call('ZADD', expiring, expires, id)
      redis.call('PEXPIRE', expiring, ARGV[2])
    end
  end
  announce[#announce + 1] = {'user:' .. string.sub(log, 7, -6) .. ':events', frame}
  answer[#answer + 1] = id
  answer[#answer + 1] = '0'
end

for i, a in ipairs(announce) do
  answer[2 * i + 2] = int(redis.call('PUBLISH', a[1], a[2]))
end
if idem then
  redis.call('HSET', idem, 'print', ARGV[6], 'answer', table.concat(answer, ' ', 2))
  redis.call('PEXPIRE', idem, ARGV[7])
end
return answer
