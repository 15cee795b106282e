#!lua flags=no-writes
-- set_page: the next entries of a walk through schedule, retry or dead, by score and then by bytes, after the entry that
-- was read last, whether it still stands there or not. So entries may come and go and none is skipped or seen twice.
-- KEYS  set
-- ARGV  step (-1 from the highest score down, 1 from the lowest up), score and member read last ('' '' at the start),
--       most entries, most bytes, most to look at, text that they must contain or '', 1 if it is in small letters and so is
--       to be each entry that it is looked for in
-- Returns {1 if there may be more, else 0; entries looked at; rank, from where the walk began, member and score of the last
-- one looked at, or -1 '' ''; (member, score, rank) per entry}
-- Cost  O(log size + entries); where the entry read last is gone, also O(log^2 ties) with its score. Reads only.
--@ sieve
local set, step, score, last = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local most, room, look, text, fold = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'

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

local page, count, looked, bytes, chunk = {1, 0, -1, '', ''}, 0, 0, 0, sieve.FIRST
while count < most and looked < look and bytes < room do
  local first = rank + looked
  local size = math.min(chunk, look - looked, text == '' and most - count or chunk)
  local entries = range(first, first + size - 1, 'WITHSCORES')
  if #entries == 0 then page[1] = 0 break end
  if text ~= '' then chunk = sieve.next(entries, 2) end
  for i = 1, #entries, 2 do
    looked = looked + 1
    page[2], page[3], page[4], page[5] = looked, rank + looked - 1, entries[i], entries[i + 1]
    if sieve.passes(entries[i], text, fold) then
      page[#page + 1], page[#page + 2], page[#page + 3] = entries[i], entries[i + 1], rank + looked - 1
      count, bytes = count + 1, bytes + #entries[i]
    end
    if count >= most or bytes >= room then break end
  end
end
return page
