-- Reads data members out of one ARGV; takes no KEYS and no ARGV of its own.
--
-- The form is <bytes>:<name><bytes>:<value>, repeated, nothing between. It keeps
-- every byte of the JSON, which cjson would not. An empty value, which is no
-- JSON, means: remove this member.

local function members(packed)
  local at = 1
  local function text()
    local colon = string.find(packed, ':', at, true)
    local length = tonumber(string.sub(packed, at, colon - 1))
    at = colon + 1 + length
    return string.sub(packed, colon + 1, at - 1)
  end
  return function()
    if at > #packed then
      return nil
    end
    local name = text()
    return name, text()
  end
end
