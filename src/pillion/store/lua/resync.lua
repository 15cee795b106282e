#!lua flags=allow-oom
-- resync: after a lost reply, shut out the old connection's late bytes and tell what this owner really holds.
-- KEYS  lease, index, pulse
-- ARGV  owner, lease ms, now ms or ''
-- Returns 'FENCED', or {generation, {field, value, ...} of the index}.
-- Cost  O(claims held). Crash before or after: nothing is moved; every resync raises the generation again.
--@ pulse
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('HEXISTS', KEYS[2], 'g') == 0 then return 'FENCED' end
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
pulse.beat(KEYS[3], now, ARGV[2])
local generation = redis.call('HINCRBY', KEYS[2], 'g', 1)
return {generation, redis.call('HGETALL', KEYS[2])}
