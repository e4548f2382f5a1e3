-- Counts a user's connections and the nodes that hold them, and removes expired
-- leases: their nodes died.
--
-- KEYS  1 the user's presence hash (see presenceKey)
-- ARGV  1 the node that asks  2 its own connection count, which is newer
--         than its lease
-- Returns {connections, nodes}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local connections, nodes = tonumber(ARGV[2]), 0
if connections > 0 then
  nodes = 1
end
local notes = redis.call('HGETALL', KEYS[1])
for i = 1, #notes, 2 do
  local n, ends = string.match(notes[i + 1], '^(%d+) (%d+)$')
  if not n or tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], notes[i])
  elseif notes[i] ~= ARGV[1] then
    connections, nodes = connections + n, nodes + 1
  end
end
return {connections, nodes}
