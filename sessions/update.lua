-- Merges members into a live session's data. Expiry, last use and index entry stay
-- unchanged, because a write by the backend is not a use by the user.
--
-- KEYS[1]  session:<handle>
-- ARGV[1]  data members in the format of members.lua
-- ARGV[2]  maximum members of a session
-- ARGV[3]  maximum bytes of all names and values together
--
-- Returns {expiry in ms, {field, value, ...}}; nil if there is no such live
-- session; the text "members" or "bytes" if the merged data would have too
-- many. The change is applied as a whole or not at all.

local session = live(KEYS[1], clock())
if not session then
  return false
end

local length = {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  if string.sub(stored[i], 1, 5) == 'data:' then
    length[string.sub(stored[i], 6)] = #stored[i + 1]
  end
end

local set, removed = {}, {}
for name, value in members(ARGV[1]) do
  if value == '' then
    removed[#removed + 1] = 'data:' .. name
    length[name] = nil
  else
    set[#set + 1] = 'data:' .. name
    set[#set + 1] = value
    length[name] = #value
  end
end

local count, bytes = 0, 0
for name, n in pairs(length) do
  count = count + 1
  bytes = bytes + #name + n
end
if count > tonumber(ARGV[2]) then
  return 'members'
end
if bytes > tonumber(ARGV[3]) then
  return 'bytes'
end

if #set > 0 then
  redis.call('HSET', KEYS[1], unpack(set))
end
if #removed > 0 then
  redis.call('HDEL', KEYS[1], unpack(removed))
end
return answer(KEYS[1], session.expires)
