#!lua flags=allow-oom
-- cut: take jobs out of a queue by their exact bytes, each once. For people: a worker takes only from the end.
-- KEYS  queue
-- ARGV  a word that is no job; (place counted from the oldest job or 0, payload) per job
-- Returns {1 taken out, 0 not found} per job.
-- Cost  for each job O(distance to the nearer end), and for all of them one walk to the farthest: a page of jobs costs one
-- walk, where one LREM each would cost a walk per job. A job that has moved by more than 500 places is looked for in the
-- whole queue, three times per call at most; then it is known how far the others have moved.
-- Crash before: nothing happened. After, reply lost: sending it again answers 0.
local DRIFT = 500
local queue, word = KEYS[1], ARGV[1]
local length = redis.call('LLEN', queue)
local shift, searches, marked, done = 0, 3, 0, {}

local function find(place, payload)
  local guess = place + shift
  if place > 0 and guess > -DRIFT then
    if guess > 0 and redis.call('LINDEX', queue, -guess) == payload then return guess end
    local high, low = math.min(length, guess + DRIFT), math.max(1, guess - DRIFT)
    for i, job in ipairs(high < low and {} or redis.call('LRANGE', queue, -high, -low)) do
      if job == payload then return high - i + 1 end
    end
  end
  if searches == 0 then return nil end
  searches = searches - 1
  local index = redis.call('LPOS', queue, payload, 'RANK', -1)
  return index and length - index
end

for i = 1, (#ARGV - 1) / 2 do
  local place, payload = tonumber(ARGV[2 * i]), ARGV[2 * i + 1]
  local found = find(place, payload)
  done[i] = found and 1 or 0
  if found then
    if place > 0 then shift = found - place end
    redis.call('LSET', queue, -found, word)
    marked = marked + 1
  end
end
if marked > 0 then redis.call('LREM', queue, -marked, word) end
return done
