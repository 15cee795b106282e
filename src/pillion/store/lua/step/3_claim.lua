-- step, part 3: claim jobs, queue by queue, each queue's into a tray of its own. The index entry is written before the
-- payload moves: an entry without a payload is harmless, a payload without an entry would be lost from sight. The trays
-- that were offered are used in their order, whichever queues have jobs: the others stay at the end, to be offered again.
local paused = {}
if want > 0 then
  local names = redis.pcall('SMEMBERS', KEYS[3])
  if not failed(names, 'paused') then
    for _, name in ipairs(names) do paused[name] = true end
  end
end

local taken, places, used = {}, {}, 0
local function list(place, name, count)
  if count > 0 then redis.call('HSET', index, first + place - 1, ('1'):rep(count) .. ' ' .. name)
  else redis.call('HDEL', index, first + place - 1) end
end

local function take(q, most)
  local queue, name = KEYS[5 + q], ARGV[12 + 2 * q]
  local length = redis.pcall('LLEN', queue)
  if failed(length, name) then return false end
  local count = math.min(length, most, want)
  if count == 0 then return true end
  local before, moved, place = taken[q] or 0, 0, places[q] or used + 1
  list(place, name, before + count)
  while moved < count and room > 0 do
    local payload = redis.pcall('LMOVE', queue, KEYS[key + place], 'RIGHT', 'RIGHT')
    if failed(payload, name) then break end
    claims[#claims + 1] = q
    claims[#claims + 1] = payload
    moved, room = moved + 1, room - #payload
  end
  taken[q], want = before + moved, want - moved
  if moved > 0 then places[q], used = place, math.max(used, place) end
  if moved < count then list(place, name, taken[q]) end
  return true
end

-- One look at all queues together: an idle owner of many pays for one command. (Redis 7.0 makes a tracking connection
-- remember every key of the script anew for each command that reads.) It is also what makes that connection hear of the
-- next push.
local function any()
  return want > 0 and nqueues > 0 and redis.call('EXISTS', unpack(KEYS, 6, 5 + nqueues)) > 0
end

local open, found = {}, any()
for q = 1, found and nqueues or 0 do
  if want > 0 and room > 0 and not paused[ARGV[12 + 2 * q]] and take(q, tonumber(ARGV[13 + 2 * q])) then open[#open + 1] = q end
end
for _, q in ipairs(open) do
  if want > 0 and room > 0 and #claims > 0 then take(q, want) end
end
-- Nothing is left for us. Our own LMOVEs above have used up what the connection was to be told, so it asks again.
if found then any() end
local suspected = 0
if #claims > 0 then
  local count = redis.pcall('ZCARD', suspects)
  if not failed(count, 'suspects') then suspected = count end
end
-- Last of all, after everything that reads: what a tracking connection of Redis 7.0 remembers of a tray (see `any`) is
-- forgotten when the tray changes, and a tray that is gone never will.
trays.drop(emptied)
return {missed, errors, suspected, claims}
