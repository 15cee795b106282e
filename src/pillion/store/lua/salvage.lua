#!lua flags=allow-oom
-- salvage: give claims of a fenced owner back to the heads of their queues, or bury the poison pills among them.
-- KEYS  index, salvage, suspects; (slot, destination, rescued counter) per claim
-- ARGV  owner, now ms or '', seconds to remember a rescue, dead max, dead timeout s;
--       (n, verb, counted, jid, score, payload) per claim, newest first
-- Returns {n, ...} of the claims moved by this call; another reaper may have moved the others.
-- Cost  O(claims given). Crash before or after: what is still in the index is found again; nothing is in two places.
local index = KEYS[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now / 1000)
local moved = {}
for i = 1, (#ARGV - 5) / 6 do
  local n, verb, counted, jid, score, payload = unpack(ARGV, 6 * i, 6 * i + 5)
  local slot, destination, counter = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
  if redis.call('HEXISTS', index, n) == 1 then
    local reply
    if verb == 'return' then
      repeat reply = redis.pcall('LMOVE', slot, destination, 'LEFT', 'RIGHT')
      until not reply or type(reply) == 'table'
      if not reply and counted == '1' then
        redis.call('INCR', counter)
        redis.call('EXPIRE', counter, ARGV[3])
        redis.call('ZADD', KEYS[3], now / 1000 + ARGV[3], jid)
      end
    else
      if verb == 'dead' then reply = redis.pcall('ZADD', destination, score, payload) end
      if type(reply) ~= 'table' then
        if verb == 'dead' then
          redis.pcall('ZREMRANGEBYSCORE', destination, '-inf', now / 1000 - ARGV[5])
          redis.pcall('ZREMRANGEBYRANK', destination, 0, -ARGV[4])
        end
        redis.call('DEL', counter)
        redis.call('ZREM', KEYS[3], jid)
        redis.call('UNLINK', slot)
      end
    end
    if type(reply) ~= 'table' then
      redis.call('HDEL', index, n, 's:' .. n)
      moved[#moved + 1] = n
    end
  end
end
for _, field in ipairs(redis.call('HKEYS', index)) do
  if tonumber(field) then return moved end
end
redis.call('DEL', index)
redis.call('ZREM', KEYS[2], ARGV[1])
return moved
