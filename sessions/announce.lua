-- Publishes which sessions were deleted; takes no KEYS or ARGV. Call it last: a node
-- that receives the message must find the session deleted, and a PUBLISH that Redis
-- refuses must leave it deleted.
--
-- A message is "<user id> <handle> <handle>...", with at most `most` handles.

local function announce(channel, user, handles, most)
  for from = 1, #handles, most do
    local to = math.min(from + most - 1, #handles)
    redis.call('PUBLISH', channel, user .. ' ' .. table.concat(handles, ' ', from, to))
  end
end
