#!lua
-- push_once: push jobs that may be sent twice; each jid is taken once in ten minutes.
-- KEYS  queues, schedule; (once marker, queue) per job
-- ARGV  seconds a marker lives; (queue name, time due or '', payload) per job
-- Returns {1 taken, 0 known already} per job.
-- Cost  O(jobs). Crash after, reply lost: sending it again answers 0. A full server refuses it as a whole.
local results = {}
for i = 1, (#ARGV - 1) / 3 do
  local name, at, payload = unpack(ARGV, 3 * i - 1, 3 * i + 1)
  local marker = KEYS[2 * i + 1]
  if redis.call('EXISTS', marker) == 1 then
    results[i] = 0
  else
    if at == '' then
      redis.call('SADD', KEYS[1], name)
      redis.call('LPUSH', KEYS[2 * i + 2], payload)
    else
      redis.call('ZADD', KEYS[2], at, payload)
    end
    redis.call('SET', marker, 1, 'EX', ARGV[1])
    results[i] = 1
  end
end
return results
