-- Lists a user's entries in the order of their times.
--
-- KEYS  1 the user's hash
-- ARGV  1 id after which to start, '' for the first page   2 maximum entries
--       3 bytes of entries after which none is added
-- Returns {'1' if more follow or '0', id, entry, id, entry, …}.
local ids = redis.call('HKEYS', KEYS[1])
table.sort(ids)
local answer, bytes = {'0'}, 0
for _, id in ipairs(ids) do
  if id > ARGV[1] then
    if #answer > 2 * ARGV[2] or bytes >= tonumber(ARGV[3]) then
      answer[1] = '1'
      break
    end
    local entry = redis.call('HGET', KEYS[1], id)
    answer[#answer + 1] = id
    answer[#answer + 1] = entry
    bytes = bytes + #entry
  end
end
return answer
