-- Removes handles without a session from users' indexes, step by step.
--
-- KEYS  user:{id}:sessions of some users
-- ARGV  the rank at which to start in each index, in the order of KEYS; last, the
--       maximum number of handles to check in this run
-- Returns {removed, rank, rank, …}: for each index the rank at which the next run
-- continues, or -1 at its end.
local left = tonumber(ARGV[#KEYS + 1])
local answer = {0}
for i, index in ipairs(KEYS) do
  local rank = tonumber(ARGV[i])
  local handles = left > 0 and redis.call('ZRANGE', index, rank, rank + left - 1) or {}
  local kept = 0
  for _, handle in ipairs(handles) do
    local key = 'session:' .. handle
    if redis.call('EXISTS', key) == 0 then
      answer[1] = answer[1] + redis.call('ZREM', index, handle)
    else
      kept = kept + 1
    end
  end
  local done = left > #handles
  left = left - #handles
  answer[i + 1] = done and -1 or rank + kept
end
return answer
