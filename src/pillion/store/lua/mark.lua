#!lua flags=allow-oom
-- mark: note in the index that a suspect is about to run, before it runs. Only the marked suspect is counted by a rescue.
-- KEYS  lease, index
-- ARGV  owner, n, its tray, the n whose mark this one takes over or ''
-- Returns 1, or 0 if the owner no longer holds the claim (then it must not run).
-- Cost  O(1). Crash after: the next rescue counts this jid.
--@ trays
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if not trays.holds(trays.read(ARGV[3], '', redis.call('HGET', KEYS[2], ARGV[3])), ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], 's:' .. ARGV[2], 1)
if ARGV[4] ~= '' then redis.call('HDEL', KEYS[2], 's:' .. ARGV[4]) end
return 1
