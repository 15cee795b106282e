#!lua flags=allow-oom
-- join: take a lease under a new owner name and open its index.
-- KEYS  lease, fenced, index, pulse
-- ARGV  owner, lease ms, now ms or '', concurrency
-- Returns 1, or 0 if this owner was fenced before or already exists (take another name).
-- Cost  O(log owners). Crash after, reply lost: an empty owner remains and is reaped when its lease runs out.
--@ pulse
local owner = ARGV[1]
if redis.call('ZSCORE', KEYS[2], owner) or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('HSET', KEYS[3], 'g', 1, 'c', ARGV[4])
redis.call('ZADD', KEYS[1], now + ARGV[2], owner)
pulse.beat(KEYS[4], now, ARGV[2])
return 1
