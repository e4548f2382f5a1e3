-- Reads a range of a user's log, limited by entries and bytes. A reply exceeds the limit of
-- bytes by at most eight entries, whatever their size.
--
-- KEYS  1 log  2 state (see keys.go)
-- ARGV  1 first id  2 most entries  3 bytes of frames after which to stop
-- Returns {time in ms, newest id, 1 if there may be more, frame, end of its ttl,
-- frame, end of its ttl, …}; the end is as in the log.
local t = redis.call('TIME')
local now = string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))
-- Read before the entries: a later announcement raises the repair's target.
local answer = {now, redis.call('HGET', KEYS[2], 'last') or '0', '0'}
local from, left, enough = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local chunk = 4
while left > 0 and enough > 0 do
  local want = math.min(chunk, left)
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
  local bytes = 0
  for _, e in ipairs(entries) do
    local frame = e[2][2]
    answer[#answer + 1] = frame
    answer[#answer + 1] = e[2][6] or '0'
    bytes = bytes + #frame
  end
  if #entries < want then
    return answer
  end
  from = string.format('%d', string.match(entries[#entries][1], '%d+') + 1)
  left, enough = left - want, enough - bytes
  -- As many entries as the remaining bytes hold, judged by these.
  chunk = math.max(1, math.min(8, math.floor(enough * want / math.max(1, bytes))))
end
answer[3] = '1'
return answer
