-- Schedules one or many notifications, all or none, in one step.
--
-- KEYS  two for each notification: the hash of its user and the due zset of its
--       shard (keys.go); then the record of the request if ARGV[5] is not ''
-- ARGV  1 Redis time in ms after which this is refused: its publisher has given
--         up and answered 503
--       2 entries that a user may have
--       3 for each notification "<when>,<bytes of its entry>;"; when: Unix ms,
--         or '+' and ms from now
--       4 the entries, one after another
--       5 '' or the token that the record's field token must hold. Then the ids
--         are kept in its field scheduled, and if they are there already, that is
--         the answer: an earlier attempt did it and did not live to tell
-- Returns {verdict, time in ms, id, id, …}. Verdicts: 'added', 'late', 'fenced',
-- 'full' (with the user instead of ids). A time that has passed is now.
local call = redis.call
local t = call('TIME')
local micros = t[1] * 1000000 + t[2]
local now = math.floor(micros / 1000)
local ts = string.format('%d', now)

if now > tonumber(ARGV[1]) then
  return {'late', ts}
end
local answer = {'added', ts}
local record, count = ARGV[5] ~= '' and KEYS[#KEYS], #KEYS
if record then
  count = count - 1
  local held = call('HMGET', record, 'token', 'scheduled')
  if held[1] ~= ARGV[5] then
    return {'fenced', ts}
  end
  if held[2] then
    for id in string.gmatch(held[2], '%S+') do
      answer[#answer + 1] = id
    end
    return answer
  end
end

local user = function(k) return string.sub(KEYS[k], 7, -12) end -- user:{id}:scheduled
local has = {}
for k = 1, count, 2 do
  has[KEYS[k]] = (has[KEYS[k]] or call('HLEN', KEYS[k])) + 1
  if has[KEYS[k]] > tonumber(ARGV[2]) then
    return {'full', ts, user(k)}
  end
end

local k, from = 1, 1
for after, when, size in string.gmatch(ARGV[3], '(%+?)(%d+),(%d+);') do
  local at = after == '+' and now + when or math.max(tonumber(when), now)
  local id
  repeat -- what was accepted in the same µs, or before the clock went back
    id = string.format('%013d-%016d%03d-%s', at, micros, (k - 1) / 2, user(k))
    micros = micros + 1
  until call('HEXISTS', KEYS[k], id) == 0
  micros = micros - 1
  call('HSET', KEYS[k], id, string.sub(ARGV[4], from, from + size - 1))
  call('ZADD', KEYS[k + 1], at, id)
  answer[#answer + 1] = id
  k, from = k + 2, from + size
end
if record then
  call('HSET', record, 'scheduled', table.concat(answer, ' ', 3))
end
return answer
