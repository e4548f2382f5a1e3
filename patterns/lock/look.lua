-- Reads what the next fencing token must exceed.
--
-- KEYS  1 the resource's token (see tokenKey)
-- Returns {the highest token promised here or 0, this node's clock in µs}.
local t = redis.call('TIME')
return {tonumber(redis.call('GET', KEYS[1]) or 0), t[1] * 1000000 + t[2]}
