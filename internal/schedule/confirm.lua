-- Makes pending entries (entry.go) ordinary ones if their commit key exists, and
-- removes them if it does not.
--
-- KEYS  1 the commit key; then two for each entry: its user's hash and its shard's
--       due zset
-- ARGV  the ids
-- Returns how many it removed.
local call = redis.call
local committed, removed = call('EXISTS', KEYS[1]) == 1, 0
for i, id in ipairs(ARGV) do
  local hash, due = KEYS[2 * i], KEYS[2 * i + 1]
  local entry = call('HGET', hash, id)
  local head, commit, record = string.match(entry or '', '^(%?(%d+) (%d+)\n)')
  if head and committed then
    call('HSET', hash, id, string.sub(entry, #head + commit + record + 1))
    call('ZADD', due, string.sub(id, 1, 13), id)
  elseif head then
    call('HDEL', hash, id)
    call('ZREM', due, id)
    removed = removed + 1
  end
end
return removed
