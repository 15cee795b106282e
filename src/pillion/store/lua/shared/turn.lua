-- turn: whoever drives an operation holds a lease on it, by the server's clock, and its batches are numbered, so that two
-- drivers never walk it at once and a batch whose reply was lost is not carried out again.
local turn = {}

function turn.now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

function turn.answer(status, operation, ...) return {status, turn.now(), redis.call('HGETALL', operation), ...} end

-- Why this batch must not be carried out, or nil: LOST the lease, DONE before, OVER (paused, stopped).
function turn.refusal(operation, driver, step)
  local row = redis.call('HMGET', operation, 'driver', 'step', 'state')
  if row[1] ~= driver then return 'LOST' end
  if row[2] ~= step then return 'DONE' end
  if row[3] ~= 'running' and row[3] ~= 'undoing' then return 'OVER' end
end

-- Note how far a batch has come: renew the lease, set and add to fields. `args` from `at` on: ms of the lease, seconds that
-- the record lives, how many fields to set, (name, value) each, how many to add to, (name, number) each. Returns the place
-- in `args` that follows.
function turn.note(operation, args, at)
  redis.call('HINCRBY', operation, 'step', 1)
  redis.call('HSET', operation, 'until', turn.now() + args[at])
  redis.call('EXPIRE', operation, args[at + 1])
  local sets = tonumber(args[at + 2])
  for i = at + 3, at + 2 + 2 * sets, 2 do redis.call('HSET', operation, args[i], args[i + 1]) end
  at = at + 3 + 2 * sets
  local adds = tonumber(args[at])
  for i = at + 1, at + 2 * adds, 2 do redis.call('HINCRBY', operation, args[i], args[i + 1]) end
  return at + 1 + 2 * adds
end

-- Add what a batch has counted, and put off the next one where the operation has a rate.
function turn.count(operation, counts)
  for name, count in pairs(counts) do redis.call('HINCRBY', operation, name, count) end
  local row = redis.call('HMGET', operation, 'rate', 'ready')
  local rate = tonumber(row[1] or 0)
  if rate > 0 and counts.moved then
    local ready = math.max(turn.now(), tonumber(row[2] or 0)) + counts.moved * 1000 / rate
    redis.call('HSET', operation, 'ready', math.floor(ready))
  end
end
