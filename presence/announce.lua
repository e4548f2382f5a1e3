-- Writes how many connections some users have on one node.
--
-- KEYS  the users' presence hashes (see presenceKey)
-- ARGV  1 the node  2 TTL of the lease, in ms
--       3 the users' connection counts, in order, each followed by ','
-- Returns nothing.
local t = redis.call('TIME')
local ends = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2])
local i = 0
for n in string.gmatch(ARGV[3], '(%d+),') do
  i = i + 1
  if n == '0' then
    redis.call('HDEL', KEYS[i], ARGV[1])
  else
    redis.call('HSET', KEYS[i], ARGV[1], n .. ' ' .. ends)
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
