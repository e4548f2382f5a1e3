-- Tells every node which sessions are gone; takes no KEYS and no ARGV of its
-- own. Call it last: a node that hears of a session must find it deleted, and a
-- PUBLISH that Redis refuses must leave it deleted.
--
-- One message is "<user id> <handle> <handle>...", at most `most` handles.

local function announce(channel, user, handles, most)
  for from = 1, #handles, most do
    local to = math.min(from + most - 1, #handles)
    redis.call('PUBLISH', channel, user .. ' ' .. table.concat(handles, ' ', from, to))
  end
end
