#!lua flags=no-writes
-- expired: owners whose lease ran out by the server's clock, and fenced owners whose claims still wait for a reaper.
-- KEYS  lease, salvage
-- ARGV  now ms or '', most of each
-- Returns {{expired owner, ...}, {fenced owner, ...}}
-- Cost  O(log owners + most).
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
return {redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2]),
        redis.call('ZRANGE', KEYS[2], 0, ARGV[2] - 1)}
