#!lua flags=allow-oom
-- operation_queue: carry out one batch of an operation on a queue: park, place, take out, and note how far it came.
-- KEYS  operation, queue, dead, queues, parked, target queue (any key where there is none)
-- ARGV  driver, step, dead max, dead before, s that parked jobs are kept, verb (drop, dead, move), score in the dead set,
--       name of the target; what `turn.note` takes; (place, payload, new payload, header or '') per job, newest first
-- Returns {OK, WRONG a key is of another type, or why nothing was done; server's ms; the record}
-- What is moved goes to the head of the target, so that all batches together keep their order there.
-- Cost  as `cut`. Crash before: nothing happened. After, reply lost: sending it again answers DONE.
--@ turn
--@ parking
--@ moves
--@ finder
local operation, queue, dead, queues, target, verb = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], ARGV[6]
local refusal = turn.refusal(operation, ARGV[1], ARGV[2])
if refusal then return turn.answer(refusal, operation) end

local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
if not is(queue, 'list') or (verb == 'dead' and not is(dead, 'zset')) or (verb == 'move' and not is(target, 'list')) then
  return turn.answer('WRONG', operation)
end

local at = turn.note(operation, ARGV, 9)
local lot, jobs, counts = parking.open(operation, KEYS[5]), finder.of(queue, ARGV[1]), {moved = 0, gone = 0}
for i = at, #ARGV - 3, 4 do
  local place, payload, other, header = unpack(ARGV, i, i + 3)
  local found = jobs.find(tonumber(place), payload)
  if found then
    if header ~= '' then parking.park(lot, header, payload) end
    if verb == 'dead' then moves.bury(dead, ARGV[7], payload, ARGV[3], ARGV[4]) end
    if verb == 'move' then redis.call('RPUSH', target, other) end
    jobs.mark(found)
    counts.moved = counts.moved + 1
  else
    counts.gone = counts.gone + 1
  end
end
jobs.sweep()
if verb == 'move' and counts.moved > 0 then redis.call('SADD', queues, ARGV[8]) end
parking.close(lot, ARGV[5])
turn.count(operation, counts)
return turn.answer('OK', operation)
