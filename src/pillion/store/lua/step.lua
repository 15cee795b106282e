#!lua flags=allow-oom
-- step: renew the owner's lease, write the outcomes of settled claims, claim new ones. One fetcher, one owner.
-- KEYS  lease, index, paused, suspects; queues; slots of Done claims; (slot, destination) of the other claims;
--       slots for new claims; keys of effects
-- ARGV  owner, generation, lease ms, now ms or '', want, most bytes, first n, #queues, #done, #others, #effects,
--       dead max, dead timeout s; (name, share) per queue; n per Done claim; (n, verb, score, payload) per other claim;
--       (n, name, #keys, #args, args...) per effect
-- Returns 'FENCED', or 'STALE', or {missed n, {n or queue, error}, #suspects, queue number and payload per new claim}
-- Cost  O(queues) reads while looking for work, then O(settled + claimed); bounded by the caller at 200 + 200.
-- Crash before: nothing happened. After, reply lost: a re-sync finds what was claimed, and what was settled is gone.
-- A script error cannot undo earlier writes, so what other clients may have replaced is only touched through pcall, the
-- new place is written first, and the index entry goes last.
local owner, generation = ARGV[1], tonumber(ARGV[2])
local lease, index, suspects = KEYS[1], KEYS[2], KEYS[4]
if not redis.call('ZSCORE', lease, owner) then return 'FENCED' end
local current = redis.call('HGET', index, 'g')
if not current then return 'FENCED' end
if generation < tonumber(current) then return 'STALE' end

local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('ZADD', lease, 'XX', now + ARGV[3], owner)

local want, room, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local nqueues, ndone, nothers, neffects = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local argument = 13 + 2 * nqueues
local key = 4 + nqueues
local missed, errors, claims = {}, {}, {}

local function failed(reply, subject)
  if type(reply) == 'table' and reply.err then
    errors[#errors + 1] = {subject, reply.err}
    return true
  end
end

local held = {}
if ndone + nothers > 0 then
  local numbers = {}
  for i = 1, ndone do numbers[i] = ARGV[argument + i] end
  for i = 1, nothers do numbers[ndone + i] = ARGV[argument + ndone + 4 * i - 3] end
  local values = redis.call('HMGET', index, unpack(numbers))
  for i, n in ipairs(numbers) do
    if values[i] then held[n] = true else missed[#missed + 1] = n end
  end
end

if neffects > 0 then
  local at, k = argument + ndone + 4 * nothers, #KEYS
  local total = 0
  local scan = at
  for _ = 1, neffects do
    total = total + ARGV[scan + 3]
    scan = scan + 4 + ARGV[scan + 4]
  end
  k = k - total
  for _ = 1, neffects do
    local n, name, nkeys, nargs = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local keys, args = {}, {}
    for i = 1, nkeys do keys[i] = KEYS[k + i] end
    for i = 1, nargs do args[i] = ARGV[at + 4 + i] end
    if held[n] and effects[name] then failed(effects[name](keys, args, now), n) end
    at, k = at + 4 + nargs, k + nkeys
  end
end

local gone, slots = {}, {}
for i = 1, ndone do
  local n = ARGV[argument + i]
  if held[n] then gone[#gone + 1], slots[#slots + 1] = n, KEYS[key + i] end
end
argument, key = argument + ndone, key + ndone

for i = 1, nothers do
  local n, verb, score, payload = unpack(ARGV, argument + 4 * i - 3, argument + 4 * i)
  local slot, destination = KEYS[key + 2 * i - 1], KEYS[key + 2 * i]
  if held[n] then
    local reply = true
    if verb == 'requeue' then reply = redis.pcall('LMOVE', slot, destination, 'LEFT', 'RIGHT')
    elseif verb ~= 'drop' then reply = redis.pcall('ZADD', destination, score, payload) end
    if not failed(reply, n) then
      if verb == 'dead' then
        redis.pcall('ZREMRANGEBYSCORE', destination, '-inf', now / 1000 - ARGV[13])
        redis.pcall('ZREMRANGEBYRANK', destination, 0, -ARGV[12])
      end
      gone[#gone + 1], slots[#slots + 1] = n, slot
      gone[#gone + 1] = 's:' .. n
    end
  end
end
key = key + 2 * nothers
if #gone > 0 then
  redis.call('HDEL', index, unpack(gone))
  redis.call('UNLINK', unpack(slots))
end

local paused = {}
if want > 0 and redis.call('EXISTS', KEYS[3]) == 1 then
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do paused[name] = true end
end

local function take(q, most)
  local queue, name = KEYS[4 + q], ARGV[12 + 2 * q]
  local length = redis.pcall('LLEN', queue)
  if failed(length, name) then return false end
  local count = math.min(length, most, want)
  if count == 0 then return true end
  local entries = {}
  for i = 1, count do entries[2 * i - 1], entries[2 * i] = first + i - 1, name end
  redis.call('HSET', index, unpack(entries))
  local moved = 0
  while moved < count and room > 0 do
    local payload = redis.pcall('LMOVE', queue, KEYS[key + moved + 1], 'RIGHT', 'LEFT')
    if failed(payload, name) then break end
    claims[#claims + 1] = q
    claims[#claims + 1] = payload
    moved, room = moved + 1, room - #payload
  end
  for i = moved + 1, count do redis.call('HDEL', index, first + i - 1) end
  first, key, want = first + moved, key + moved, want - moved
  return true
end

local open = {}
for q = 1, nqueues do
  if want > 0 and not paused[ARGV[12 + 2 * q]] and take(q, tonumber(ARGV[13 + 2 * q])) then open[#open + 1] = q end
end
for _, q in ipairs(open) do
  if want > 0 and room > 0 and #claims > 0 then take(q, want) end
end
local suspected = 0
if #claims > 0 then suspected = redis.call('ZCARD', suspects) end
return {missed, errors, suspected, claims}
