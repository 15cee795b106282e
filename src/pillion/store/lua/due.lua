#!lua flags=no-writes
-- due: members of `schedule` or `retry` whose time has come by the server's clock.
-- KEYS  set
-- ARGV  now s or '', most
-- Returns {now s, member, score, ...}, oldest first.
-- Cost  O(log size + most). Reads only: moving them is promote's work.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local due = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
return {string.format('%.6f', now), unpack(due)}
