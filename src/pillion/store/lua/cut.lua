#!lua flags=allow-oom
-- cut: take jobs out of a queue by their exact bytes, each once. For people: a worker takes only from the end.
-- KEYS  queue
-- ARGV  a word that is no job; (place counted from the oldest job or 0, payload) per job
-- Returns {1 taken out, 0 not found} per job.
-- Cost  for each job O(distance to the nearer end), and for all of them one walk to the farthest: a page of jobs costs one
-- walk, where one LREM each would cost a walk per job. `finder` says what a job costs that has moved.
-- Crash before: nothing happened. After, reply lost: sending it again answers 0.
--@ finder
local jobs, done = finder.of(KEYS[1], ARGV[1]), {}
for i = 1, (#ARGV - 1) / 2 do
  local found = jobs.find(tonumber(ARGV[2 * i]), ARGV[2 * i + 1])
  if found then jobs.mark(found) end
  done[i] = found and 1 or 0
end
jobs.sweep()
return done
