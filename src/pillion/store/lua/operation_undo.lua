#!lua flags=allow-oom
-- operation_undo: put a batch of parked jobs back, each only if it still stands where the operation had put it.
-- KEYS  operation, parked, dead, queues, the queue that jobs were moved to; (the set or queue it comes back to) per job
-- ARGV  driver, step; what `turn.note` takes; (parked copy, length of its header, kind, queue's name or '', score or place,
--       bytes it was given) per job, in the order in which they are parked
--       kinds: set (back into its set), queue (to the head of its queue), with `dead-` or `moved-` where it must be taken
--       out there
-- Returns {OK, WRONG a key is of another type, or why nothing was done; server's ms; the record}
-- Of a queue the job that was parked last is the oldest and comes back last, so it is taken first, as before.
-- Cost  O(jobs * log size), for moved jobs as `cut`. Crash before: nothing happened. After: sending it again answers DONE.
--@ turn
--@ finder
local operation, parked, dead, queues, target = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local refusal = turn.refusal(operation, ARGV[1], ARGV[2])
if refusal then return turn.answer(refusal, operation) end
local at = turn.note(operation, ARGV, 3)
local jobs, counts, wrong = nil, {restored = 0, lost = 0}, false

local function taken_out(kind, home, job, other, left)  -- nil where it has gone from where the operation had put it
  if string.sub(kind, 1, 5) == 'dead-' then
    return redis.call('ZSCORE', dead, job) and function() redis.call('ZREM', dead, job) end
  end
  if kind == 'moved-set' then
    return redis.call('ZSCORE', home, other) and function() if other ~= job then redis.call('ZREM', home, other) end end
  end
  if kind ~= 'moved-queue' then return function() end end
  jobs = jobs or finder.of(target, ARGV[1])
  local found = jobs.find(left, other)
  return found and function() jobs.mark(found) end
end

for i = 1, (#ARGV - at + 1) / 6 do
  local copy, header, kind, name, score, other = unpack(ARGV, at + 6 * i - 6, at + 6 * i - 1)
  if redis.call('LINDEX', parked, 0) ~= copy then break end
  local home, job = KEYS[5 + i], string.sub(copy, header + 1)
  local take = taken_out(kind, home, job, other, redis.call('LLEN', parked))
  if take then
    local reply
    if name == '' then reply = redis.pcall('ZADD', home, 'NX', score, job)
    else reply = redis.pcall('RPUSH', home, job) end
    if type(reply) == 'table' then wrong = true break end
    if kind == 'moved-set' and other == job then reply = 1 end
    if name ~= '' then redis.call('SADD', queues, name) end
    take()
    counts[reply == 0 and 'lost' or 'restored'] = counts[reply == 0 and 'lost' or 'restored'] + 1
  else
    counts.lost = counts.lost + 1
  end
  redis.call('LPOP', parked)
end
if jobs then jobs.sweep() end
turn.count(operation, counts)
return turn.answer(wrong and 'WRONG' or 'OK', operation)
