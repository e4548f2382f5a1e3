-- Decides which costs pass now in one exact sliding window, by Redis's clock.
-- Defines a function, for window.go and for scripts of other packages (Limiter.Lua).
--
-- key     zset  ratelimit:<scope>:<subject>
-- limit   cost that any window may hold, 1 to 1e9
-- window  in µs, a whole number of ms
-- costs   in order of arrival, comma-separated: "1", "1,20,1"; a cost of 0 looks without counting
--
-- Returns integers: Redis's clock in µs, then three for each cost:
--   wait       µs until this cost could pass; 0: it was admitted. Over the limit itself: the window
--   remaining  cost that could still be admitted after this one
--   reset      µs until the oldest entry leaves the window; 0: there is none
-- Each cost is admitted whole or not at all, and what is denied leaves no trace. The answers are those
-- that one run for each cost, in this order, in this same microsecond, would have given.
--
-- The zset has one entry for each run that admitted something:
--   score   when, in µs
--   member  <sum>:<cost>[:<skew>]
--   sum     all cost ever admitted under this key, this entry included; 16 digits, so that entries
--           of one microsecond sort in their order. Starts again at WRAP, far above any limit, but
--           never between two entries of one microsecond
--   cost    what this run admitted: its costs together
--   skew    µs that the clock had stepped back by then, if it ever did
-- What the window holds is the difference between two sums: its newest entry's, and its oldest's
-- before that one's own cost. No total is stored, so none can disagree with the entries, and the entry
-- whose leaving makes room for a cost is found by bisection. Whatever the limit, a run reads a few
-- entries and removes at most PRUNE. A sum grows with each entry, so no two members are equal.
--
-- An entry is in the window until score + window, exclusive: no half-open interval of that length
-- ever holds more than the limit. The key outlives its newest entry by 1 ms at most, and never dies
-- before it: Redis expires a key only after the millisecond that PEXPIRE set has passed.
--
-- A clock that steps back (a correction, a failover to a slower clock) is taken as no time having
-- passed since the newest entry, from which time then runs on: skew is what to add to Redis's clock,
-- and is kept in the newest member. Nothing leaves the window early for it, and nothing stays longer
-- than one window after the first run that sees the step; that run also renews the expiry, which the
-- step had put off. A step forward is time that has passed.
--
-- Under OOM, ZADD fails before anything has been removed that still counts.

local WRAP = 1e15
local PRUNE = 1000 -- entries; bounds how long one run keeps other clients waiting

local function sliding_window(key, limit, window, costs)
  local t = redis.call('TIME')
  local clock = t[1] * 1000000 + t[2]

  local function entry(rank)
    local e = redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')
    if not e[1] then return nil end
    local sum, cost, skew = string.match(e[1], '^(%d+):(%d+):?(%d*)$')
    return { member = e[1], at = tonumber(e[2]), sum = tonumber(sum), cost = tonumber(cost), skew = tonumber(skew) or 0 }
  end

  local function add(at, sum, cost, skew)
    local member = string.format('%016d:%d', sum, cost)
    if skew > 0 then member = member .. string.format(':%d', skew) end
    redis.call('ZADD', key, at, member)
    redis.call('PEXPIRE', key, window / 1000)
  end

  local now, skew = clock, 0
  local newest = entry(-1)
  if newest then
    skew = newest.skew
    if clock + skew < newest.at then
      skew = newest.at - clock
      add(newest.at, newest.sum, newest.cost, skew)
      redis.call('ZREM', key, newest.member)
    end
    now = clock + skew
    if newest.at <= now - window then
      redis.call('UNLINK', key)
      newest, now, skew = nil, clock, 0
    end
  end

  local oldest, first, held = nil, 0, 0 -- the window's oldest entry, its rank, the cost in the window
  if newest then
    first = redis.call('ZCOUNT', key, '-inf', now - window)
    if first > 0 then
      local gone = math.min(first, PRUNE)
      redis.call('ZREMRANGEBYRANK', key, 0, gone - 1)
      first = first - gone
    end
    oldest = entry(first)
    held = (newest.sum - oldest.sum) % WRAP + oldest.cost
  end

  local stored, admitted = held, 0
  local waits = {} -- equal needs are looked up once

  -- µs until entries worth need have left. This run's own leave together, last.
  local function wait(need)
    if need > stored then return window end
    if need <= oldest.cost then return oldest.at + window - now end
    if not waits[need] then
      local low, high = first + 1, redis.call('ZCARD', key) - 1
      while low < high do
        local middle = math.floor((low + high) / 2)
        local e = entry(middle)
        if (e.sum - oldest.sum) % WRAP + oldest.cost >= need then high = middle else low = middle + 1 end
      end
      waits[need] = entry(low).at + window - now
    end
    return waits[need]
  end

  local reply = { clock }
  for text in string.gmatch(costs, '%d+') do
    local cost, delay = tonumber(text), 0
    if cost > limit then
      delay = window
    elseif cost > 0 and held + cost > limit then
      delay = wait(held + cost - limit)
    else
      held, admitted = held + cost, admitted + cost
    end
    local reset = 0
    if oldest then reset = oldest.at + window - now elseif held > 0 then reset = window end
    reply[#reply + 1] = delay
    reply[#reply + 1] = math.max(0, limit - held)
    reply[#reply + 1] = reset
  end

  if admitted > 0 then
    local sum = admitted
    if newest then
      sum = newest.sum + admitted
      if sum >= WRAP and now > newest.at then sum = sum - WRAP end
    end
    add(now, sum, admitted, skew)
  end
  return reply
end
