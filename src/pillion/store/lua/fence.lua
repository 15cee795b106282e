#!lua flags=allow-oom
-- fence: end an owner's rights for good. Its steps answer FENCED from now on, so its claims can be given to others.
-- KEYS  lease, fenced, salvage, pulse, index of the owner
-- ARGV  owner, now ms or '', lease ms or '' (the caller knows that the owner is dead), seconds to remember it
-- Returns 1 if the owner is fenced now, by us or by someone before, 0 if its lease still stands, if it may yet renew
-- after an outage, or if it never existed. Who is known to be dead may have lost its lease in other ways (an entry that was
-- taken out by hand): then its index tells that it existed.
-- Cost  O(log owners). Crash after: the owner stands in `salvage`, where every reaper finds it.
--@ pulse
local owner = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local expiry = redis.call('ZSCORE', KEYS[1], owner)
local known_dead = ARGV[3] == ''
if not expiry and redis.call('ZSCORE', KEYS[3], owner) then return 1 end
if not expiry and not (known_dead and redis.call('EXISTS', KEYS[5]) == 1) then return 0 end
if not known_dead and (tonumber(expiry) > now or not pulse.is_steady(KEYS[4], now, ARGV[3])) then return 0 end
redis.call('ZADD', KEYS[2], now, owner)
redis.call('ZADD', KEYS[3], now, owner)
redis.call('ZREM', KEYS[1], owner)
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[4]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4] * 1000)
return 1
