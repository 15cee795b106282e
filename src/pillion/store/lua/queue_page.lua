#!lua flags=no-writes
-- queue_page: the next jobs of a walk through a queue that moves meanwhile. A place counts from the oldest job, 1, so that
-- pushes change none; the job that was read last is looked for around its place, so that fetches and deletions do not either.
-- KEYS  queue
-- ARGV  step (-1 towards older jobs, 1 towards newer), place and payload of the job read last ('' '' at the start),
--       most jobs, most to look at, most bytes, text that they must contain or '', 1 if it is in small letters and so is to be
--       each job that it is looked for in
-- Returns {place of the last one looked at or 0 at the end, its payload, jobs looked at, (place, payload) per job}
-- Cost  O(looked at), and O(distance to the nearer end) for getting there. Reads only.
-- If the job read last is gone: towards older jobs nothing is lost, as its place is right or one that was read already;
-- towards newer ones the walk begins again, so that a job may be seen twice rather than never.
--@ sieve
local DRIFT = 500
local queue, step = KEYS[1], tonumber(ARGV[1])
local most, look, room = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local text, fold = ARGV[7], ARGV[8] == '1'
local length = redis.call('LLEN', queue)
local place, payload = tonumber(ARGV[2]), ARGV[3]

local function anchored()
  if redis.call('LINDEX', queue, -place) == payload then return place end
  local high, low = math.min(length, place + DRIFT), math.max(1, place - DRIFT)
  if high < low then return nil end
  for i, job in ipairs(redis.call('LRANGE', queue, -high, -low)) do
    if job == payload then return high - i + 1 end
  end
end

if not place then place = step < 0 and length + 1 or 0
else place = anchored() or (step < 0 and math.min(place, length + 1) or 0) end

local page = {0, '', 0}
local count, looked, bytes, chunk = 0, 0, 0, sieve.FIRST
while count < most and looked < look and bytes < room do
  local first, final = place + step, place + step * chunk
  local low, high = math.max(1, math.min(first, final)), math.min(length, math.max(first, final))
  if low > high then break end
  local jobs = redis.call('LRANGE', queue, -high, -low)
  if text ~= '' then chunk = sieve.next(jobs, 1) end
  for i = 1, #jobs do
    payload = step < 0 and jobs[i] or jobs[#jobs + 1 - i]
    place, looked = place + step, looked + 1
    if sieve.passes(payload, text, fold) then
      page[#page + 1], page[#page + 2] = place, payload
      count, bytes = count + 1, bytes + #payload
    end
    if count >= most or looked >= look or bytes >= room then break end
  end
end
page[3] = looked
if looked > 0 and place ~= (step < 0 and 1 or length) then page[1], page[2] = place, payload end
return page
