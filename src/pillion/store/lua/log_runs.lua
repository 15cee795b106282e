#!lua
-- log_runs: add chunks of runs to a log, then drop its oldest until it has room again and nothing too old stands in it.
-- KEYS  log (a stream), sizes (a hash)
-- ARGV  the log's field among the sizes, most bytes, seconds that a chunk lives, chunk...
-- Returns how many bytes stand in the log now.
-- Cost  O(chunks added + dropped). Not allowed where the server's memory is full: a log must not make that worse.
-- Crash before: nothing happened; after, reply lost: the runs stand there.
local ENTRY = 64 -- what a stream needs beside a chunk, about
local log, sizes, field = KEYS[1], KEYS[2], ARGV[1]
local most, lives = tonumber(ARGV[2]), tonumber(ARGV[3])
local bytes = redis.call('EXISTS', log) == 1 and tonumber(redis.call('HGET', sizes, field)) or 0
for i = 4, #ARGV do
  redis.call('XADD', log, '*', 'runs', ARGV[i])
  bytes = bytes + #ARGV[i] + ENTRY
end

local oldest, after, first = (redis.call('TIME')[1] - lives) * 1000, '-', nil
repeat
  local found = redis.call('XRANGE', log, after, '+', 'COUNT', 20)
  for _, entry in ipairs(found) do
    if bytes <= most and tonumber(entry[1]:match('^%d+')) >= oldest then
      first = entry[1]
      break
    end
    bytes, after = bytes - #entry[2][2] - ENTRY, '(' .. entry[1]
  end
until first or #found == 0
if not first then
  redis.call('UNLINK', log)
  bytes = 0
elseif after ~= '-' then redis.call('XTRIM', log, 'MINID', first) end
redis.call('HSET', sizes, field, bytes)
redis.call('EXPIRE', log, lives)
redis.call('EXPIRE', sizes, lives)
return bytes
