#!lua flags=no-writes
-- lapsed: owners whose lease ran out by the server's clock, and fenced owners whose claims still wait for a reaper.
-- KEYS  lease, salvage, pulse
-- ARGV  now ms or '', lease ms, most of each
-- Returns {{expired owner, ...}, {fenced owner, ...}, 1 if the expired may be fenced, 0 while they may yet renew}
-- Cost  O(log owners + most).
--@ pulse
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
return {redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3]),
        redis.call('ZRANGE', KEYS[2], 0, ARGV[3] - 1),
        pulse.is_steady(KEYS[3], now, ARGV[2]) and 1 or 0}
