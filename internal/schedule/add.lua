-- Schedules one or more notifications, all or none, in one step.
--
-- KEYS  two for each notification: its user's hash and its shard's due zset
--       (keys.go); then the record of the request if ARGV[5] is not ''
-- ARGV  1 deadline by Redis's clock, Unix ms: after it the publisher has already
--         answered 503, so the script refuses
--       2 maximum entries of a user
--       3 for each notification "<when>,<bytes of its entry>,<user>;"; when: Unix
--         ms, or '+' and ms from now
--       4 the concatenated entries
--       5 '' or the token that the record's field token must have. Then the ids
--         are stored in its field scheduled. If it is set already, by an earlier
--         attempt, those ids are returned and nothing is scheduled
--       6 '' or the commit key. Then the entries are pending (entry.go): they are
--         delivered only if that key exists
--       7 ms until claim.lua removes pending entries without a commit key
-- Returns {verdict, time in ms, id, id, …}. Verdicts: 'added', 'late', 'fenced',
-- 'full' (with the user instead of ids). A past time becomes now.
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
  local stored = call('HMGET', record, 'token', 'scheduled')
  if stored[1] ~= ARGV[5] then
    return {'fenced', ts}
  end
  if stored[2] then
    for id in string.gmatch(stored[2], '%S+') do
      answer[#answer + 1] = id
    end
    if ARGV[6] ~= '' then -- this attempt gets the whole time for its commit
      for k = 1, count, 2 do
        local entry = call('HGET', KEYS[k], answer[2 + (k + 1) / 2])
        if entry and string.sub(entry, 1, 1) == '?' then
          call('ZADD', KEYS[k + 1], now + ARGV[7], answer[2 + (k + 1) / 2])
        end
      end
    end
    return answer
  end
end
local pending = ''
if ARGV[6] ~= '' then
  pending = string.format('?%d %d\n', #ARGV[6], #(record or '')) .. ARGV[6] .. (record or '')
end

local has, k = {}, 1
for user in string.gmatch(ARGV[3], ',([^,;]*);') do
  has[user] = (has[user] or call('HLEN', KEYS[k])) + 1
  if has[user] > tonumber(ARGV[2]) then
    return {'full', ts, user}
  end
  k = k + 2
end

local k, from = 1, 1
for after, when, size, user in string.gmatch(ARGV[3], '(%+?)(%d+),(%d+),([^;]*);') do
  local at = after == '+' and now + when or math.max(tonumber(when), now)
  local id
  repeat -- the id is taken: accepted in the same µs, or before a clock step back
    id = string.format('%013d-%016d%03d-%s', at, micros, (k - 1) / 2, user)
    micros = micros + 1
  until call('HEXISTS', KEYS[k], id) == 0
  micros = micros - 1
  call('HSET', KEYS[k], id, pending .. string.sub(ARGV[4], from, from + size - 1))
  call('ZADD', KEYS[k + 1], pending == '' and at or now + ARGV[7], id)
  answer[#answer + 1] = id
  k, from = k + 2, from + size
end
if record then
  call('HSET', record, 'scheduled', table.concat(answer, ' ', 3))
end
return answer
