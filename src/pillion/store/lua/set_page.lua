#!lua flags=no-writes
-- set_page: the next entries of a walk through schedule, retry or dead, by score and then by bytes, after the entry that
-- was read last, whether it still stands there or not. So entries may come and go and none is skipped or seen twice.
-- KEYS  set
-- ARGV  step (-1 from the highest score down, 1 from the lowest up), score and member read last ('' '' at the start),
--       most entries, most bytes
-- Returns {1 if there may be more, else 0; (member, score) per entry}
-- Cost  O(log size + entries); where the entry read last is gone, also O(log^2 ties) with its score. Reads only.
local CHUNK = 20
local set, step, score, last = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local most, room = tonumber(ARGV[4]), tonumber(ARGV[5])

local function range(first, final, ...)
  if step > 0 then return redis.call('ZRANGE', set, first, final, ...) end
  return redis.call('ZRANGE', set, first, final, 'REV', ...)
end

local function precedes(a, b)  -- by bytes, as the server orders ties; Lua's own < goes by the locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return (x < y) == (step > 0) end
  end
  return #a ~= #b and (#a < #b) == (step > 0)
end

local rank = 0
if score ~= '' then
  local standing = redis.call('ZSCORE', set, last)
  if standing and tonumber(standing) == tonumber(score) then
    rank = redis.call(step > 0 and 'ZRANK' or 'ZREVRANK', set, last) + 1
  else
    rank = step > 0 and redis.call('ZCOUNT', set, '-inf', '(' .. score) or redis.call('ZCOUNT', set, '(' .. score, '+inf')
    local beyond = rank + redis.call('ZCOUNT', set, score, score)
    while rank < beyond do
      local middle = math.floor((rank + beyond) / 2)
      if precedes(range(middle, middle)[1], last) then rank = middle + 1 else beyond = middle end
    end
  end
end

local page, count, bytes = {1}, 0, 0
while count < most and bytes < room do
  local entries = range(rank + count, rank + math.min(count + CHUNK, most) - 1, 'WITHSCORES')
  if #entries == 0 then page[1] = 0 break end
  for i = 1, #entries, 2 do
    page[#page + 1], page[#page + 2] = entries[i], entries[i + 1]
    count, bytes = count + 1, bytes + #entries[i]
    if bytes >= room then break end
  end
end
return page
