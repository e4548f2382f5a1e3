-- Reads an entry.
--
-- KEYS[1]  cache:<namespace>:<key>
--
-- Returns {'fresh' or 'stale', content}, or nil if there is no usable entry.

local e = entry(KEYS[1], clock())
return e and {e.state, e.content}
