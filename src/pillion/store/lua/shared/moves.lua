-- moves: put one member of a set where it is meant to go and only then take it out, if it still stands there with the score
-- that was read. Verbs: push (to a queue), later (only a new score), dead, swap (other bytes), drop.
local moves = {}

function moves.stands(set, member, score)
  local standing = redis.call('ZSCORE', set, member)
  return standing and tonumber(standing) == tonumber(score)
end

function moves.bury(dead, at, payload, most, before)
  local reply = redis.pcall('ZADD', dead, at, payload)
  redis.pcall('ZREMRANGEBYSCORE', dead, '-inf', before)
  redis.pcall('ZREMRANGEBYRANK', dead, 0, -most)
  return reply
end

-- Returns 1 moved, 0 somebody was faster, or the server's error: then it stays, with the score `later`.
function moves.apply(keys, destination, caps, member, score, verb, later, payload, name)
  if not moves.stands(keys.set, member, score) then return 0 end
  local reply = true
  if verb == 'push' then
    reply = redis.pcall('LPUSH', destination, payload)
    if type(reply) ~= 'table' then redis.pcall('SADD', keys.queues, name) end
  elseif verb == 'dead' then
    reply = moves.bury(keys.dead, later, payload, caps.most, caps.before)
  elseif verb == 'swap' then
    reply = redis.pcall('ZADD', keys.set, score, payload)
  end
  if type(reply) == 'table' then
    redis.call('ZADD', keys.set, 'XX', later, member)
    return reply.err
  end
  if verb == 'later' then redis.call('ZADD', keys.set, 'XX', later, member)
  elseif verb ~= 'swap' or payload ~= member then redis.call('ZREM', keys.set, member) end
  return 1
end
