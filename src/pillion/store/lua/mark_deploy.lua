#!lua flags=allow-oom
-- mark_deploy: note a deploy in the marks of its day, once a minute for each label however many processes ask.
-- KEYS  lock of the label, marks of the day
-- ARGV  label, minute as ISO 8601, seconds the lock lives, seconds the marks live
-- Returns 1 if the label stands there now, 0 if it was marked a moment ago or the minute has another label.
-- Cost  O(1). Crash before: nothing happened; after, reply lost: sending it again answers 0.
if not redis.call('SET', KEYS[1], ARGV[2], 'NX', 'EX', ARGV[3]) then return 0 end
local marked = redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return marked
