-- Removes expired leases: of nodes that died while another node kept the user's
-- hash alive.
--
-- KEYS  presence hashes of some users (see presenceKey)
-- Returns the number of leases removed.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local removed = 0
for _, key in ipairs(KEYS) do
  local notes = redis.call('HGETALL', key)
  for i = 1, #notes, 2 do
    local ends = string.match(notes[i + 1], '^%d+ (%d+)$')
    if not ends or tonumber(ends) <= now then
      removed = removed + redis.call('HDEL', key, notes[i])
    end
  end
end
return removed
