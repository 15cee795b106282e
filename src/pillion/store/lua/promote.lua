#!lua flags=allow-oom
-- promote: move due members to their queues, each only if it still stands there with the score that was read.
-- KEYS  set, dead, queues; a queue per member (any key where it has none)
-- ARGV  dead max, dead timeout s, now s; (member, score, verb, new score, payload, queue name) per member
--       verbs: push (to the queue), later (only a new score), dead, drop
-- Returns {1 moved, 0 somebody was faster, or the server's error} per member.
-- Cost  O(members * log size). Crash before or after: each member is in its set or in its new place, never in neither.
--@ moves
local results, keys = {}, {set = KEYS[1], dead = KEYS[2], queues = KEYS[3]}
local caps = {most = ARGV[1], before = ARGV[3] - ARGV[2]}
for i = 1, (#ARGV - 3) / 6 do
  results[i] = moves.apply(keys, KEYS[3 + i], caps, unpack(ARGV, 6 * i - 2, 6 * i + 3))
end
return results
