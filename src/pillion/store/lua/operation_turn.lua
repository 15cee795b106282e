#!lua flags=allow-oom
-- operation_turn: take the lease on an operation, if it waits for a driver and nobody else has it.
-- KEYS  operation
-- ARGV  driver, ms that the lease lasts
-- Returns {NONE there is none, OVER it waits for nobody, BUSY, WAIT for its rate, or OURS; server's ms; the record}
-- Cost  O(fields). Crash before: nothing happened. After: the lease ends by itself.
--@ turn
local row = redis.call('HMGET', KEYS[1], 'state', 'driver', 'until', 'ready')
local now = turn.now()
if not row[1] then return {'NONE', now, {}} end
if row[1] ~= 'running' and row[1] ~= 'undoing' then return turn.answer('OVER', KEYS[1]) end
if row[2] and row[2] ~= ARGV[1] and tonumber(row[3]) > now then return turn.answer('BUSY', KEYS[1]) end
if tonumber(row[4] or 0) > now then return turn.answer('WAIT', KEYS[1]) end
redis.call('HSET', KEYS[1], 'driver', ARGV[1], 'until', now + ARGV[2])
return turn.answer('OURS', KEYS[1])
