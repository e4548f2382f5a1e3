-- Publishes notifications of independent publishers: each is admitted, stored and
-- announced, or fails, on its own.
--
-- KEYS  as in store.lua; then the keys of admit
-- ARGV  1 to 5 as in store.lua
--       6 for each notification, which of the keys of admit it costs 1 of, from 1, or 0
--         for none: "1 0 2"; '' if all are 0
-- admit(key, costs) comes from Options.Admit, in front of this script. It returns a clock,
-- then three integers for each cost; the first is 0 if the cost is admitted.
-- Returns what store.lua says. Further outcomes: DENIED, not admitted; FAILED, refused by
-- Redis. If ARGV[6] is not '', four values for each notification follow: the clock and
-- the three integers, or UNASKED and zeros where admit gave no answer. Then the
-- notification is published.

-- Asks admit once for each of its keys, in order of arrival. Returns for each notification
-- {clock, three integers}, or nil where there is no answer.
local function admissions()
  local groups, keys, n = {}, 0, 0
  for number in string.gmatch(ARGV[6], '%d+') do
    number, n = tonumber(number), n + 1
    groups[number] = groups[number] or {}
    table.insert(groups[number], n)
    keys = math.max(keys, number)
  end
  local answers = {}
  for number = 1, keys do
    local group = groups[number]
    local ok, reply = pcall(admit, KEYS[#KEYS - keys + number], string.rep('1,', #group))
    for i, notification in ipairs(group) do
      answers[notification] = ok and { reply[1], reply[3 * i - 1], reply[3 * i], reply[3 * i + 1] } or nil
    end
  end
  return answers
end

local asked = ARGV[6] ~= ''
local admitted = asked and admissions() or {}
local answer, n = { STORED, ts }, 0
for user, size, kind, number in string.gmatch(ARGV[3], NOTIFICATION) do
  n = n + 1
  local text = nextTail(size)
  local ok, outcome, nodes = true, DENIED, '0'
  if not admitted[n] or admitted[n][2] == 0 then
    ok, outcome, nodes = pcall(publish, 3 * n - 2, user, kind, number, text)
  end
  answer[2 * n + 1], answer[2 * n + 2] = ok and outcome or FAILED, ok and nodes or '0'
end
if asked then
  local at = #answer
  for i = 1, n do
    local a = admitted[i]
    answer[at + 1] = a and int(a[1]) or UNASKED
    for j = 2, 4 do
      answer[at + j] = a and int(a[j]) or '0'
    end
    at = at + 4
  end
end
return table.concat(answer, ' ')
