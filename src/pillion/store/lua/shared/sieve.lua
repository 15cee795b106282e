-- sieve: of the jobs of a page those that hold a text, and how many to read at a time so that a chunk stays small.
local sieve = {FIRST = 20, MOST = 2000, BYTES = 1000000}

function sieve.passes(payload, text, fold)
  return text == '' or string.find(fold and string.lower(payload) or payload, text, 1, true) ~= nil
end

function sieve.next(jobs, step)  -- the size of the next chunk by what this one weighed; every `step`th of it is a job
  local bytes = 1
  for i = 1, #jobs, step do bytes = bytes + #jobs[i] end
  return math.max(1, math.min(sieve.MOST, math.floor(sieve.BYTES * #jobs / step / bytes)))
end
