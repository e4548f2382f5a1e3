-- Returns the position of a user's stream, and moves the read position if ARGV[1] says so.
--
-- KEYS  1 log  2 state  3 expiring (see keys.go)
-- ARGV  1 read up to this id, '' to leave it; it never moves back, nor past the newest id
--       2 channel to announce a move on ('' without ARGV[1])
--       3 user id
-- Returns {last, read, unread, 1 if read has moved} as strings. unread counts the retained,
-- unexpired notifications after read. Log entries are numbered, so the first unread one gives
-- the count; those whose ttl has ended are subtracted.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local int = function(n) return string.format('%.0f', n) end

local s = redis.call('HMGET', KEYS[2], 'last', 'seq', 'read')
local last, seq, read = tonumber(s[1] or 0), tonumber(s[2] or 0), tonumber(s[3] or 0)
if not s[1] then -- the state was lost: count what the log still has
  local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if newest then
    last, seq = tonumber(string.match(newest[1], '%d+')), tonumber(newest[2][4])
  end
end
local moved = false
if ARGV[1] ~= '' then
  local upto = math.min(tonumber(ARGV[1]), last)
  if upto > read then
    read, moved = upto, true
    redis.call('HSET', KEYS[2], 'read', int(read))
  end
end

local unread = 0
local first = redis.call('XRANGE', KEYS[1], int(read + 1), '+', 'COUNT', 1)[1]
if first then
  unread = seq - tonumber(first[2][4]) + 1
  local from = tonumber(string.match(first[1], '%d+'))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now))) do
    if tonumber(id) >= from then
      unread = unread - 1
    else
      redis.call('ZREM', KEYS[3], id) -- read or trimmed: never counted again
    end
  end
else
  redis.call('DEL', KEYS[3])
end

if moved then
  redis.call('PUBLISH', ARGV[2], ARGV[3] .. ' {"type":"read","upTo":' .. int(read) .. ',"unread":' .. int(unread) .. '}')
end
return {int(last), int(read), int(unread), moved and '1' or '0'}
