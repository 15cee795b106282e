#!lua flags=allow-oom
-- operation_unclear: put a queue or a set that was cleared back: at once where it is empty now, else 200 jobs per call.
-- KEYS  operation, its parked name, queue or set, queues
-- ARGV  driver, step, the queue's name or '', most jobs; what `turn.note` takes
-- Returns {OK, WRONG it is of another type now, or why nothing was done; server's ms; the record}
-- The jobs of a queue come back to its head, the oldest last, so they are taken before what was pushed since, in their
-- order.
-- Crash before: nothing happened. After, reply lost: sending it again answers DONE.
--@ turn
local operation, parked, key, name = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
local refusal = turn.refusal(operation, ARGV[1], ARGV[2])
if refusal then return turn.answer(refusal, operation) end
local kind, there = redis.call('TYPE', parked).ok, redis.call('TYPE', key).ok
if kind ~= 'none' and there ~= 'none' and there ~= kind then return turn.answer('WRONG', operation) end
turn.note(operation, ARGV, 5)
local counts = {restored = 0, lost = 0}
if kind ~= 'none' and there == 'none' then
  counts.restored = redis.call(kind == 'list' and 'LLEN' or 'ZCARD', parked)
  redis.call('PERSIST', parked)
  redis.call('RENAME', parked, key)
elseif kind == 'list' then
  for _ = 1, math.min(ARGV[4], redis.call('LLEN', parked)) do
    redis.call('LMOVE', parked, key, 'LEFT', 'RIGHT')
    counts.restored = counts.restored + 1
  end
elseif kind == 'zset' then
  local entries = redis.call('ZRANGE', parked, 0, ARGV[4] - 1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local counter = redis.call('ZADD', key, 'NX', entries[i + 1], entries[i]) == 1 and 'restored' or 'lost'
    counts[counter] = counts[counter] + 1
    redis.call('ZREM', parked, entries[i])
  end
end
if redis.call('EXISTS', parked) == 0 then redis.call('HINCRBY', operation, 'unclear', 1) end
if name ~= '' and counts.restored > 0 then redis.call('SADD', KEYS[4], name) end
turn.count(operation, counts)
return turn.answer('OK', operation)
