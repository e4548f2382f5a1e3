-- Publishes the notifications whose ticket exists, and removes the ticket. Each is a step
-- on its own: if Redis refuses one, those before it are done and those after it keep
-- their tickets. The ticket goes last, so that a refused append keeps it.
--
-- KEYS  three for each notification, as in store.lua; then for each the hash of its ticket
-- ARGV  1 to 5 as in store.lua
--       6 for each notification, the field of its ticket, each followed by a space
-- Returns what store.lua says. Further outcome: LEFT_OUT, there was no ticket.
local fields = {}
for field in string.gmatch(ARGV[6], '%S+') do
  fields[#fields + 1] = field
end
local answer, n = { STORED, ts }, 0
for user, size, kind, number in string.gmatch(ARGV[3], NOTIFICATION) do
  n = n + 1
  local text, hash, field = nextTail(size), KEYS[3 * #fields + n], fields[n]
  local outcome, nodes = LEFT_OUT, '0'
  if call('HEXISTS', hash, field) == 1 then
    outcome, nodes = publish(3 * n - 2, user, kind, number, text)
    call('HDEL', hash, field)
  end
  answer[2 * n + 1], answer[2 * n + 2] = outcome, nodes
end
return table.concat(answer, ' ')
