#!lua flags=allow-oom
-- clear: empty a queue or a set at once, and take a queue's name off the list of queues.
-- KEYS  queue or set; queues
-- ARGV  the queue's name, or '' for a set
-- Returns how many jobs that was.
-- Cost  O(1); the server frees the memory beside its work. Crash before: nothing happened; after: all is gone.
-- Jobs that run, or that workers have claimed, stand elsewhere and are not touched.
local kind = redis.call('TYPE', KEYS[1]).ok
local count = 0
if kind == 'list' then count = redis.call('LLEN', KEYS[1])
elseif kind == 'zset' then count = redis.call('ZCARD', KEYS[1]) end
redis.call('UNLINK', KEYS[1])
if ARGV[1] ~= '' then redis.call('SREM', KEYS[2], ARGV[1]) end
return count
