-- Reads the sessions that another program has written, and lengthens their lives
-- if told to.
--
-- KEYS     <prefix><id>, at least one
-- ARGV[1]  the most bytes of one that is taken for a session
-- ARGV[2]  bytes after which no further one is read
-- ARGV[3]  life from now, ms; 0: leave it
--
-- Returns for each key, from the first on and at least for one,
-- {value, expiry in ms or -1 for none}, or nil if there is no session.
--
-- A life is only ever lengthened: what the other program wants to keep for longer
-- stays, and a key without expiry gets none.

local most, enough, slide = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function session(key)
  if redis.call('TYPE', key).ok ~= 'string' or redis.call('STRLEN', key) > most then
    return false
  end
  local left = redis.call('PTTL', key)
  if slide > 0 and left >= 0 and left < slide then
    redis.call('PEXPIRE', key, slide)
  end
  return {redis.call('GET', key), redis.call('PEXPIRETIME', key)}
end

local rows, bytes = {}, 0
for i, key in ipairs(KEYS) do
  rows[i] = session(key)
  if rows[i] then
    bytes = bytes + #rows[i][1]
  end
  if bytes >= enough then
    break
  end
end
return rows
