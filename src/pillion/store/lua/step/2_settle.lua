-- step, part 2: write the outcomes of settled claims, each only if the claim is still in the index. First its new place,
-- then the effects that ride with it, and last, when nothing can fail any more, the index and the trays.
local touched, unsettled, marks = {}, {}, {}
if ntrays > 0 then
  local names = {}
  for i = 1, ntrays do names[i] = ARGV[argument + 2 * i - 1] end
  for i, value in ipairs(redis.call('HMGET', index, unpack(names))) do
    touched[tonumber(names[i])] = trays.read(names[i], KEYS[key + i], value)
  end
end

local function miss(n)
  missed[#missed + 1], unsettled[n] = n, true
end

for i = 1, ntrays do
  local number, positions = tonumber(ARGV[argument + 2 * i - 1]), ARGV[argument + 2 * i]
  local tray = touched[number]
  for _, position in ipairs({positions:byte(1, -1)}) do
    local n = number * 256 + position
    if trays.holds(tray, n) then trays.let_go(tray, n) else miss(n) end
  end
end
argument, key = argument + 2 * ntrays, key + ntrays

local function write(tray, n, destination, verb, score, payload)
  if verb == 'drop' then return true end
  if verb == 'requeue' then
    local job = trays.payload(tray, n)
    return not failed(job, n) and (not job or not failed(redis.pcall('RPUSH', destination, job), n))
  end
  if failed(redis.pcall('ZADD', destination, score, payload), n) then return false end
  if verb == 'dead' then
    redis.pcall('ZREMRANGEBYSCORE', destination, '-inf', now / 1000 - ARGV[13])
    redis.pcall('ZREMRANGEBYRANK', destination, 0, -ARGV[12])
  end
  return true
end

for i = 1, nothers do
  local n, verb, score, payload = unpack(ARGV, argument + 4 * i - 3, argument + 4 * i)
  local number = tonumber(n)
  local tray = touched[math.floor(number / 256)]
  if not trays.holds(tray, number) then miss(number)
  elseif write(tray, number, KEYS[key + i], verb, score, payload) then
    trays.let_go(tray, number)
    marks[#marks + 1] = 's:' .. n
  else unsettled[number] = true end
end
argument, key = argument + 4 * nothers, key + nothers

local at, k = argument, key + nqueues
for _ = 1, neffects do
  local n, name, nkeys, nargs = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local keys, args = {}, {}
  for i = 1, nkeys do keys[i] = KEYS[k + i] end
  for i = 1, nargs do args[i] = ARGV[at + 4 + i] end
  if not unsettled[tonumber(n)] and effects[name] then
    failed(effects[name](keys, args, now), 'effect ' .. name .. ' of ' .. n)
  end
  at, k = at + 4 + nargs, k + nkeys
end
local emptied = trays.save(index, touched, marks)

