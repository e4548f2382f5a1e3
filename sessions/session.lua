-- Defines a live session. It precedes the scripts of this package and takes no KEYS or
-- ARGV.
--
-- A session is dead from the millisecond of its expiry, even if Redis still has the
-- key. A hash is not a session if a field is missing, if it has no expiry, or if its
-- user id could name another key. Refusing such a hash is the only safe answer.

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Milliseconds as decimal digits; Lua's own conversion rounds to 14 of them.
local function ms(n)
  return string.format('%.0f', n)
end

-- The alphabet of notify.ValidUserID; no other text may become part of a key.
local function valid_user(user)
  return user and #user <= 128 and string.find(user, '^[A-Za-z0-9._@%-]+$')
end

local CORE = {'userId', 'createdAt', 'lastUsedAt', 'absoluteExpiresAt'}

-- Returns {user, absolute, expires, core}, or nil.
local function live(key, now)
  local core = redis.call('HMGET', key, unpack(CORE))
  if not valid_user(core[1]) then
    return nil
  end
  for i = 2, 4 do
    if not core[i] or #core[i] > 15 or not string.find(core[i], '^%d+$') then
      return nil
    end
  end
  local absolute, expires = tonumber(core[4]), redis.call('PEXPIRETIME', key)
  if expires <= now or absolute <= now then
    return nil
  end
  return {user = core[1], absolute = absolute, expires = expires, core = core}
end

-- The reply of a script for a session: {expiry in ms, {field, value, ...}}.
local function answer(key, expires)
  return {expires, redis.call('HGETALL', key)}
end
