-- Returns the state of every shard.
--
-- KEYS  the due zsets
-- Returns {time in ms, entries, first due time or '', entries, …}. An id without an
-- entry counts until its time comes.
local t = redis.call('TIME')
local answer = {string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))}
for _, due in ipairs(KEYS) do
  answer[#answer + 1] = string.format('%d', redis.call('ZCARD', due))
  answer[#answer + 1] = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or ''
end
return answer
