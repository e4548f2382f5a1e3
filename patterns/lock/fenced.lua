-- In front of every Script: refuses one whose token is lower than the guard has
-- seen, and else lets the script run in the same step, which sees only its own
-- KEYS and ARGV.
--
-- KEYS  1 the guard, a string: the highest token seen; the script's own follow
-- ARGV  1 the token; the script's own follow
if tonumber(redis.call('GET', KEYS[1]) or 0) > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED a later holder has written')
end
redis.call('SET', KEYS[1], ARGV[1])
table.remove(KEYS, 1)
table.remove(ARGV, 1)

