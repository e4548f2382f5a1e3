-- Takes handles out of users' indexes whose sessions are gone, a piece at a time.
--
-- KEYS  user:{id}:sessions of some users
-- ARGV  the rank from which each index is looked at, in the order of KEYS; last, how many
--       handles this run may look at in all
-- Returns {removed, rank, rank, …}: for each index, where the next run goes on;
-- -1 when its end was reached.
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
