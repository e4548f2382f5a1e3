-- Publishes notifications all or none, once for each idempotency key: everything is
-- appended before anything is announced, so what is announced can be read.
--
-- KEYS  as in store.lua; then the idempotency key, if ARGV[6] is not ''
-- ARGV  1 to 5 as in store.lua
--       6 fingerprint of the request, '' without an idempotency key
--       7 lifetime of the idempotency key, ms
-- Returns what store.lua says. Further verdicts: REPLAY, the first answer again with the
-- first time; MISMATCH, without pairs: the key was used with another request.
local record = ARGV[6] ~= '' and KEYS[#KEYS]
if record then
  local first = call('HMGET', record, 'print', 'answer')
  if first[1] then
    if first[1] ~= ARGV[6] then
      return MISMATCH .. ' ' .. ts
    end
    return REPLAY .. ' ' .. first[2]
  end
end

local answer, users, frames, n = { STORED, ts }, {}, {}, 0
for user, size, kind, number in string.gmatch(ARGV[3], NOTIFICATION) do
  n = n + 1
  users[n] = user
  answer[2 * n + 1], answer[2 * n + 2], frames[n] = store(3 * n - 2, kind, number, nextTail(size))
end
for i = 1, n do
  if frames[i] then
    answer[2 * i + 2] = announce(users[i], frames[i])
  end
end
if record then
  call('HSET', record, 'print', ARGV[6], 'answer', table.concat(answer, ' ', 2))
  call('PEXPIRE', record, ARGV[7])
end
return table.concat(answer, ' ')
