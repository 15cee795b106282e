#!lua flags=no-writes
-- pick: find jobs that a person has marked by where they stood and a text that each must hold (its jid).
-- KEYS  queue or set
-- ARGV  (place counted from the oldest job, or score; text or '') per job
-- Returns {(place or score, payload) of at most 5 that may be meant} per job: whoever asks reads their jids.
-- Cost  per job O(distance to the nearer end), and O(1,000) where it has moved; of a set O(log size + 200). Reads only.
local DRIFT, TIES, MOST = 500, 200, 5
local key, found = KEYS[1], {}
local is_queue = redis.call('TYPE', key).ok == 'list'
local length = is_queue and redis.call('LLEN', key) or 0

local function holds(payload, text) return string.find(payload, text, 1, true) ~= nil end

local function in_queue(place, text)
  local payload = redis.call('LINDEX', key, -place)
  if payload and text ~= '' and holds(payload, text) then return {place, payload} end
  local high, low, some = math.min(length, place + DRIFT), math.max(1, place - DRIFT), {}
  for i, job in ipairs(high < low and {} or redis.call('LRANGE', key, -high, -low)) do
    if #some < 2 * MOST and holds(job, text) then some[#some + 1], some[#some + 2] = high - i + 1, job end
  end
  return some
end

local function in_set(score, text)
  local some = {}
  for _, job in ipairs(redis.call('ZRANGE', key, score, score, 'BYSCORE', 'LIMIT', 0, TIES)) do
    if #some < 2 * MOST and holds(job, text) then some[#some + 1], some[#some + 2] = score, job end
  end
  return some
end

for i = 1, #ARGV / 2 do
  local at, text = ARGV[2 * i - 1], ARGV[2 * i]
  found[i] = is_queue and in_queue(tonumber(at), text) or in_set(at, text)
end
return found
