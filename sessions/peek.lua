-- Reads a live session without changing it.
--
-- KEYS[1]  session:<handle>
--
-- Returns {expiry in ms, {field, value, ...}}, or nil if there is no such live
-- session.

local session = live(KEYS[1], clock())
if not session then
  return false
end
return answer(KEYS[1], session.expires)
