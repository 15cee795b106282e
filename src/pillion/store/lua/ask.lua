#!lua flags=no-writes
-- ask: plain reading commands of one key each, of which none spoils the others. For pages that show many keys, any of
-- which another program may have made something else.
-- KEYS  the key of each command
-- ARGV  (verb, #arguments, arguments...) per command
-- Returns the reply of each command, an error (most often WRONGTYPE) among them.
-- Cost  that of the commands. Reads only, so a crash leaves nothing behind.
local replies, at = {}, 1
for i = 1, #KEYS do
  local count = tonumber(ARGV[at + 1])
  replies[i] = redis.pcall(ARGV[at], KEYS[i], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return replies
