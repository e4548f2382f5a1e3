-- Reads an entry, for every script that does; takes no KEYS and no ARGV of its own.
--
-- An entry is "<began>,<fresh>,<good>;<content>": when its load began (Unix ms by
-- Redis's clock), for how many ms from then on it is fresh, for how many it may be
-- served at all. Value and freshness are one string, so they cannot disagree.
--
-- Anything else is no entry: another program's text, or one from the future,
-- which is what a clock that was set back makes of an entry of unknown age.

local function ms(n)
  return string.format('%.0f', n)
end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Returns {age = ms, state = 'fresh' or 'stale', content = text}, or nil.
local function entry(key, now)
  local text = redis.call('GET', key)
  if not text then
    return nil
  end
  local began, fresh, good, from = string.match(text, '^(%d+),(%d+),(%d+);()')
  if not from then
    return nil
  end
  local age = now - began
  if age < 0 or age >= tonumber(good) then
    return nil
  end
  local state = age < tonumber(fresh) and 'fresh' or 'stale'
  return {age = age, state = state, content = string.sub(text, from)}
end
