#!lua
-- push_once: push jobs that may be sent twice; each jid is taken once in ten minutes.
-- KEYS  queues, schedule; (once marker, queue) per job
-- ARGV  seconds a marker lives; (queue name, time due or '', payload) per job
-- Returns per job 1 taken, 0 known already, or the error that refused it; the others are not held up.
-- Cost  O(jobs). Crash after, reply lost: sending it again answers 0. A full server refuses it as a whole.
local function put(queue, name, at, payload)
  if at ~= '' then
    return redis.pcall('ZADD', KEYS[2], at, payload)
  end
  local known = redis.pcall('SADD', KEYS[1], name)
  if type(known) == 'table' then
    return known
  end
  return redis.pcall('LPUSH', queue, payload)
end

local results = {}
for i = 1, (#ARGV - 1) / 3 do
  local name, at, payload = unpack(ARGV, 3 * i - 1, 3 * i + 1)
  local marker = KEYS[2 * i + 1]
  if redis.call('EXISTS', marker) == 1 then
    results[i] = 0
  else
    local reply = put(KEYS[2 * i + 2], name, at, payload)
    if type(reply) == 'table' then
      results[i] = reply.err
    else
      redis.call('SET', marker, 1, 'EX', ARGV[1])
      results[i] = 1
    end
  end
end
return results
