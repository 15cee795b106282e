#!lua flags=allow-oom
-- batch: run plain commands in one step although the server's memory is full (heartbeats, counters, metrics).
-- KEYS  the key of each command
-- ARGV  (verb, #arguments, arguments...) per command
-- Returns the reply of each command, an error among them.
-- Cost  that of the commands. Crash before: none happened. A failing command does not stop the others.
local replies, at = {}, 1
for i = 1, #KEYS do
  local count = tonumber(ARGV[at + 1])
  replies[i] = redis.pcall(ARGV[at], KEYS[i], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return replies
