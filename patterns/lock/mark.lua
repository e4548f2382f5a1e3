-- Marks a period of a job as done, if nobody has been promised a token for the
-- job since. A node that has forgotten the promise does not know, and refuses.
--
-- KEYS  1 the job's token (see tokenKey)  2 the period's marker (see markerKey)
-- ARGV  1 the token of the run  2 how long the marker is kept, ms
-- Returns 1, or 0 if it refuses.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
