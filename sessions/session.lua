-- What a live session is. Put in front of every script of this package; takes
-- no KEYS and no ARGV of its own.
--
-- A session is dead from the very millisecond of its expiry on, whether or not
-- Redis has removed it yet. A hash without our fields, without an expiry, or
-- with a user id that could mean another key is no session at all: refusing it
-- is the only answer that cannot let anybody in.

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Milliseconds as decimal digits; Lua's own conversion rounds to 14 of them.
local function ms(n)
  return string.format('%.0f', n)
end

-- The same alphabet as notify.ValidUserID: nothing else may become part of a key.
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

-- What a script returns for a session: {expiry in ms, {field, value, ...}}.
local function answer(key, expires)
  return {expires, redis.call('HGETALL', key)}
end
