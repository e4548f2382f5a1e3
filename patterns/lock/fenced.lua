-- Prefix of every Script: refuses a token lower than the highest that the guard has
-- seen. Otherwise it removes its own key and argument, and the caller's script
-- follows in the same atomic step.
--
-- KEYS  1 the guard, a string: the highest token seen; the script's own keys follow
-- ARGV  1 the token; the script's own arguments follow
if tonumber(redis.call('GET', KEYS[1]) or 0) > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED a later holder has written')
end
redis.call('SET', KEYS[1], ARGV[1])
table.remove(KEYS, 1)
table.remove(ARGV, 1)

