-- Reads an entry.
--
-- KEYS[1]  cache:<namespace>:<key>
--
-- Returns {'fresh' or 'stale', content}; nil if there is nothing to serve.

local e = entry(KEYS[1], clock())
return e and {e.state, e.content}
