#!lua flags=allow-oom
-- leave: give the lease back when nothing is held any more.
-- KEYS  lease, index, pulse
-- ARGV  owner
-- Returns 1, or 0 if claims are left (the lease then runs out and a reaper returns them).
-- Cost  O(claims held). Crash before: the lease runs out by itself.
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if tonumber(field) then return 0 end
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[3]) end
return 1
