#!lua flags=allow-oom
-- promote: move due members to their queues, each only if it still stands there with the score that was read.
-- KEYS  set, dead, queues; a queue per member (any key where it has none)
-- ARGV  dead max, dead timeout s, now s; (member, score, verb, new score, payload, queue name) per member
--       verbs: push (to the queue), later (only a new score), dead, drop
-- Returns {1 moved, 0 somebody was faster, or the server's error} per member.
-- Cost  O(members * log size). Crash before or after: each member is in its set or in its new place, never in neither.
local results = {}
for i = 1, (#ARGV - 3) / 6 do
  local member, score, verb, later, payload, name = unpack(ARGV, 6 * i - 2, 6 * i + 3)
  local standing = redis.call('ZSCORE', KEYS[1], member)
  if not standing or tonumber(standing) ~= tonumber(score) then
    results[i] = 0
  else
    local reply = true
    if verb == 'push' then
      reply = redis.pcall('LPUSH', KEYS[3 + i], payload)
      if type(reply) ~= 'table' then redis.pcall('SADD', KEYS[3], name) end
    elseif verb == 'dead' then
      reply = redis.pcall('ZADD', KEYS[2], later, payload)
      redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[3] - ARGV[2])
      redis.pcall('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[1])
    end
    if type(reply) == 'table' then
      results[i] = reply.err
      redis.call('ZADD', KEYS[1], 'XX', later, member)
    elseif verb == 'later' then
      redis.call('ZADD', KEYS[1], 'XX', later, member)
      results[i] = 1
    else
      redis.call('ZREM', KEYS[1], member)
      results[i] = 1
    end
  end
end
return results
