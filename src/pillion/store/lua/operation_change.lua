#!lua flags=allow-oom
-- operation_change: bring an operation into another state, and note it in the audit.
-- KEYS  operation, open operations, audit; everything it may have parked
-- ARGV  driver or '' for a person, states it may be in ('running paused'), the new one, its id, s that parked jobs are kept
--       from now on, 0 to drop them or '' to leave them, 1 if it needs parked ones, s that the record lives, most notes;
--       how many fields to set, (name, value) each; (name, value) of the note, or none
-- Returns {OK, NONE there is none, OVER it is in another state, LOST the lease, GONE nothing is parked any more; server's
-- ms; the record}
-- Cost  O(parked keys). Crash before: nothing happened. After, reply lost: sending it again answers OVER.
--@ turn
local operation, driver, state = KEYS[1], ARGV[1], ARGV[3]
local row = redis.call('HMGET', operation, 'state', 'driver')
if not row[1] then return {'NONE', turn.now(), {}} end
if not string.find(' ' .. ARGV[2] .. ' ', ' ' .. row[1] .. ' ', 1, true) then return turn.answer('OVER', operation) end
if driver ~= '' and row[2] ~= driver then return turn.answer('LOST', operation) end
local kept = false
for i = 4, #KEYS do kept = kept or redis.call('EXISTS', KEYS[i]) == 1 end
if ARGV[6] == '1' and not kept then return turn.answer('GONE', operation) end

for i = 4, #KEYS do
  if ARGV[5] == '0' then redis.call('UNLINK', KEYS[i])
  elseif ARGV[5] ~= '' then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
if ARGV[5] ~= '' and tonumber(ARGV[5]) > 0 and kept then
  redis.call('HSET', operation, 'undo_until', turn.now() + ARGV[5] * 1000)
elseif ARGV[5] == '0' then
  redis.call('HDEL', operation, 'undo_until')
end
redis.call('HSET', operation, 'state', state)
redis.call('EXPIRE', operation, ARGV[7])
local open = state == 'running' or state == 'undoing'
redis.call(open and 'SADD' or 'SREM', KEYS[2], ARGV[4])
if not open or driver == '' then redis.call('HDEL', operation, 'driver', 'until', 'ready') end
local at, fields = 10, tonumber(ARGV[9])
for i = at, at + 2 * fields - 1, 2 do redis.call('HSET', operation, ARGV[i], ARGV[i + 1]) end
at = at + 2 * fields
if at <= #ARGV then redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', unpack(ARGV, at)) end
return turn.answer('OK', operation)
