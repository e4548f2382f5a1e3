-- Parses data members from one argument; takes no KEYS or ARGV.
--
-- The format is <bytes>:<name><bytes>:<value>, repeated without separators. Unlike
-- cjson it keeps every byte of the JSON. An empty value, which is not JSON, removes the
-- member.

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
