#!lua flags=allow-oom
-- salvage: give claims of a fenced owner back to the heads of their queues, or bury the poison pills among them.
-- KEYS  index, salvage, suspects; (tray, destination, rescued counter) per claim
-- ARGV  owner, now ms or '', seconds to remember a rescue, dead max, dead timeout s;
--       (n, verb, counted, jid, score, payload) per claim, newest first
-- Returns {n, ...} of the claims moved by this call; another reaper may have moved the others.
-- Cost  O(claims given). Crash before or after: what is still in the index is found again; nothing is in two places.
-- What counts crashes is only touched through pcall: if it is of another type, the jobs come back all the same.
--@ trays
local index = KEYS[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.pcall('ZREMRANGEBYSCORE', KEYS[3], '-inf', now / 1000)

local touched = {}
local function tray_of(n, key)
  local number = math.floor(n / 256)
  touched[number] = touched[number] or trays.read(number, key, redis.call('HGET', index, number))
  return touched[number]
end

local function is_error(reply) return type(reply) == 'table' and reply.err end

local function give_back(tray, n, destination, counted, jid, counter)
  local job = trays.payload(tray, n)
  if is_error(job) or job and is_error(redis.pcall('RPUSH', destination, job)) then return false end
  if counted == '1' then
    redis.pcall('INCR', counter)
    redis.pcall('EXPIRE', counter, ARGV[3])
    redis.pcall('ZADD', KEYS[3], now / 1000 + ARGV[3], jid)
  end
  return true
end

local function bury(verb, destination, score, payload, jid, counter)
  if verb == 'dead' then
    if is_error(redis.pcall('ZADD', destination, score, payload)) then return false end
    redis.pcall('ZREMRANGEBYSCORE', destination, '-inf', now / 1000 - ARGV[5])
    redis.pcall('ZREMRANGEBYRANK', destination, 0, -ARGV[4])
  end
  redis.pcall('DEL', counter)
  redis.pcall('ZREM', KEYS[3], jid)
  return true
end

local moved, marks = {}, {}
for i = 1, (#ARGV - 5) / 6 do
  local n, verb, counted, jid, score, payload = unpack(ARGV, 6 * i, 6 * i + 5)
  local destination, counter = KEYS[3 * i + 2], KEYS[3 * i + 3]
  local tray = tray_of(n, KEYS[3 * i + 1])
  if trays.holds(tray, n) then
    local done
    if verb == 'return' then done = give_back(tray, n, destination, counted, jid, counter)
    else done = bury(verb, destination, score, payload, jid, counter) end
    if done then
      trays.let_go(tray, n)
      moved[#moved + 1], marks[#marks + 1] = n, 's:' .. n
    end
  end
end
trays.drop(trays.save(index, touched, marks))
for _, field in ipairs(redis.call('HKEYS', index)) do
  if tonumber(field) then return moved end
end
redis.call('DEL', index)
redis.call('ZREM', KEYS[2], ARGV[1])
return moved
