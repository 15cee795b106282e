-- step, part 2: write the outcomes of settled claims, each only if the claim is still in the index. First its new place,
-- then the effects that ride with it, and last, when nothing can fail any more, the index entry and the slot.
local held, gone, slots = {}, {}, {}
if ndone + nothers > 0 then
  local numbers = {}
  for i = 1, ndone do numbers[i] = ARGV[argument + i] end
  for i = 1, nothers do numbers[ndone + i] = ARGV[argument + ndone + 4 * i - 3] end
  local values = redis.call('HMGET', index, unpack(numbers))
  for i, n in ipairs(numbers) do
    if values[i] then held[n] = true else missed[#missed + 1] = n end
  end
end

for i = 1, ndone do
  local n = ARGV[argument + i]
  if held[n] then gone[#gone + 1], slots[#slots + 1] = n, KEYS[key + i] end
end
argument, key = argument + ndone, key + ndone

for i = 1, nothers do
  local n, verb, score, payload = unpack(ARGV, argument + 4 * i - 3, argument + 4 * i)
  local slot, destination = KEYS[key + 2 * i - 1], KEYS[key + 2 * i]
  local reply
  if held[n] and verb == 'requeue' then reply = redis.pcall('LMOVE', slot, destination, 'LEFT', 'RIGHT')
  elseif held[n] and verb ~= 'drop' then reply = redis.pcall('ZADD', destination, score, payload) end
  if failed(reply, n) then
    held[n] = nil
  elseif held[n] then
    if verb == 'dead' then
      redis.pcall('ZREMRANGEBYSCORE', destination, '-inf', now / 1000 - ARGV[13])
      redis.pcall('ZREMRANGEBYRANK', destination, 0, -ARGV[12])
    end
    gone[#gone + 1], slots[#slots + 1] = n, slot
    gone[#gone + 1] = 's:' .. n
  end
end
argument, key = argument + 4 * nothers, key + 2 * nothers

local at, k = argument, key + want
for _ = 1, neffects do
  local n, name, nkeys, nargs = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local keys, args = {}, {}
  for i = 1, nkeys do keys[i] = KEYS[k + i] end
  for i = 1, nargs do args[i] = ARGV[at + 4 + i] end
  if held[n] and effects[name] then failed(effects[name](keys, args, now), 'effect ' .. name .. ' of ' .. n) end
  at, k = at + 4 + nargs, k + nkeys
end

if #gone > 0 then
  redis.call('HDEL', index, unpack(gone))
  redis.call('UNLINK', unpack(slots))
end

