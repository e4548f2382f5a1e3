-- Marks a period of a job as completed, unless this node has promised a later run
-- a higher token. A node that has lost its data can't tell, and refuses.
--
-- KEYS  1 the job's token (see tokenKey)  2 the period's marker (see markerKey)
-- ARGV  1 the token of the run  2 lifetime of the marker, ms
-- Returns 1 if marked, 0 if refused.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
