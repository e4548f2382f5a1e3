-- Reads the lower bounds of the next fencing token.
--
-- KEYS  1 the resource's token (see tokenKey)
-- Returns {highest token promised by this node, or 0; this node's clock, Unix µs}.
local t = redis.call('TIME')
return {tonumber(redis.call('GET', KEYS[1]) or 0), t[1] * 1000000 + t[2]}
