-- Claims a shard for a node, or extends its claim, and returns the due entries. If
-- nothing is due, it releases the claim. It removes due ids whose entries are gone,
-- because they were published. It resolves pending entries (entry.go): with a commit
-- key they become ordinary entries, without one they are removed. If the request has a
-- record, its field scheduled must list the entry too: an entry that is not listed is
-- left over from an attempt that was taken back, and a later one scheduled it again.
--
-- KEYS  1 the shard's lease   2 its due zset
-- ARGV  1 node   2 lease, ms   3 maximum entries   4 bytes of entries after which
--       none is added
-- Returns {time in ms, '1' if claimed, pending entries removed, id, entry, id, entry,
-- …}; {time, '0', '0'} if another node has the claim.
local call = redis.call
local t = call('TIME')
local now = string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))
local holder = call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {now, '0', '0'}
end

local answer, bytes, removed, gone, moved = {now, '1', '0'}, 0, 0, nil, nil
repeat
  gone, moved = {}, false
  for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3])) do
    local user = string.sub(id, 35) -- after <13 digits>-<19 digits>-
    local hash = 'user:{' .. user .. '}:scheduled'
    local entry = call('HGET', hash, id)
    local head, commit, record = string.match(entry or '', '^(%?(%d+) (%d+)\n)')
    if head then
      local key = string.sub(entry, #head + 1, #head + commit)
      record = string.sub(entry, #head + commit + 1, #head + commit + record)
      local listed = record == '' or
        string.find(' ' .. (call('HGET', record, 'scheduled') or '') .. ' ', ' ' .. id .. ' ', 1, true)
      if listed and call('EXISTS', key) == 1 then
        entry = string.sub(entry, #head + #key + #record + 1)
        call('HSET', hash, id, entry)
        call('ZADD', KEYS[2], string.sub(id, 1, 13), id)
      else
        call('HDEL', hash, id)
        removed = removed + 1
        if listed and record ~= '' then -- a repetition of the request schedules again
          call('HDEL', record, 'scheduled')
        end
        entry = nil
      end
    end
    if entry and string.sub(id, 1, 13) > now then -- was pending
      moved = true
    elseif not entry then
      gone[#gone + 1] = id
    elseif bytes >= tonumber(ARGV[4]) then
      break
    else
      answer[#answer + 1] = id
      answer[#answer + 1] = entry
      bytes = bytes + #entry
    end
  end
  if #gone > 0 then
    call('ZREM', KEYS[2], unpack(gone))
  end
until #answer > 3 or #gone == 0 and not moved

answer[3] = string.format('%d', removed)
if #answer > 3 then
  call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  call('DEL', KEYS[1])
end
return answer
