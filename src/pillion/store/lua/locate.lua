#!lua flags=no-writes
-- locate: find the entry that a walk read last by where it stood and the first 16 hex digits of its SHA-1, so that a cursor
-- need not hold it. It may have moved by 500 places.
-- KEYS  queue or set
-- ARGV  step (-1 or 1), place in the queue or rank in the walk through the set, digest, score ('' for a queue)
-- Returns {place or score, payload} after which the walk goes on. Where the entry is gone: of a queue the place and '', as
-- `queue_page` takes it; of a set the entry at that rank, or the nearest that still has the score or comes before it; ''
-- and '' where the walk begins anew.
-- Cost  O(distance to the nearer end), and where it has moved the digests of 1,000 entries. Reads only.
local DRIFT, CHUNK = 500, 50
local key, step, place, digest, score = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]

local function is_it(payload) return string.sub(redis.sha1hex(payload), 1, 16) == digest end

local function rows(first, final)  -- {payload, score or place} of some places, from the start of the walk on
  local found, flat = {}, nil
  if score == '' then
    flat = first <= final and redis.call('LRANGE', key, -final, -first) or {}
    for i = 1, #flat do found[i] = {flat[i], first + #flat - i} end
    return found
  end
  if step > 0 then flat = redis.call('ZRANGE', key, first, final, 'WITHSCORES')
  else flat = redis.call('ZRANGE', key, first, final, 'REV', 'WITHSCORES') end
  for i = 1, #flat, 2 do found[#found + 1] = {flat[i], flat[i + 1]} end
  return found
end

local length = score == '' and redis.call('LLEN', key) or redis.call('ZCARD', key)
local low, high = score == '' and 1 or 0, score == '' and length or length - 1
local function search(first, final)
  for at = math.max(low, first), math.min(high, final), CHUNK do
    for _, row in ipairs(rows(at, math.min(high, final, at + CHUNK - 1))) do
      if is_it(row[1]) then return {tostring(row[2]), row[1]} end
    end
  end
end

local found = search(place, place) or search(place - DRIFT, place - 1) or search(place + 1, place + DRIFT)
if found then return found end
if score == '' then return {tostring(place), ''} end
local before = step > 0 and redis.call('ZCOUNT', key, '-inf', '(' .. score)
  or redis.call('ZCOUNT', key, '(' .. score, '+inf')
local ties = redis.call('ZCOUNT', key, score, score)
local at = math.max(before, math.min(place + 1, before + ties)) - 1
local row = at >= 0 and rows(at, at)[1]
return row and {row[2], row[1]} or {'', ''}
