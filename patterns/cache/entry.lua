-- Reads an entry. It precedes the scripts that do, and takes no KEYS or ARGV.
--
-- An entry is "<began>,<fresh>,<good>;<content>": the start of its load (Unix ms by
-- Redis's clock), how many ms from then it is fresh, and how many it may be served.
-- Value and freshness are one string, so they can't disagree.
--
-- Anything else is ignored: another program's text, or an entry from the future. After
-- a clock step backwards the age of an entry is unknown.

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
