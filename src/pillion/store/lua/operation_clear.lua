#!lua flags=allow-oom
-- operation_clear: empty a queue or a set at once by giving it another name, under which it is kept for an undo.
-- KEYS  operation, queue or set, its parked name, queues
-- ARGV  driver, step, the queue's name or '', s that parked jobs are kept; what `turn.note` takes
-- Returns {OK, WRONG it is of another type, or why nothing was done; server's ms; the record}
-- Cost  O(1); where it is too large to be kept, the server frees the memory beside its work. Crash before: nothing
-- happened. After, reply lost: sending it again answers DONE. Jobs that run, or are claimed, stand elsewhere.
--@ turn
--@ parking
local operation, key, parked = KEYS[1], KEYS[2], KEYS[3]
local refusal = turn.refusal(operation, ARGV[1], ARGV[2])
if refusal then return turn.answer(refusal, operation) end
local kind = redis.call('TYPE', key).ok
if kind ~= 'none' and kind ~= (ARGV[3] == '' and 'zset' or 'list') then return turn.answer('WRONG', operation) end
turn.note(operation, ARGV, 5)
local lot, count = parking.open(operation, parked), 0
if kind ~= 'none' then
  count = redis.call(kind == 'list' and 'LLEN' or 'ZCARD', key)
  if parking.takes(lot, redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 20)) then
    redis.call('RENAME', key, parked)
  else
    redis.call('UNLINK', key)
  end
end
if ARGV[3] ~= '' then redis.call('SREM', KEYS[4], ARGV[3]) end
parking.close(lot, ARGV[4])
turn.count(operation, {moved = count})
return turn.answer('OK', operation)
