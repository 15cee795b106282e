#!lua flags=no-writes
-- log_page: the next chunks of a log, newest first, of those that contain a text.
-- KEYS  log (a stream)
-- ARGV  id of the chunk to begin with ('' for the newest), most bytes to look at, most to return, text or ''
-- Returns {id of the chunk to go on with or '' at the end, (id, chunk) each}
-- Cost  O(bytes looked at). Reads only, so a crash leaves nothing behind.
local at, look, room, text = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local page = {''}
if at == '' then at = '+' end
while true do
  local found = redis.call('XREVRANGE', KEYS[1], at, '-', 'COUNT', 20)
  if #found == 0 then return page end
  for _, entry in ipairs(found) do
    local id, chunk = entry[1], entry[2][2]
    if look <= 0 or room <= 0 then
      page[1] = id
      return page
    end
    look = look - #chunk
    if text == '' or string.find(chunk, text, 1, true) then
      page[#page + 1], page[#page + 2] = id, chunk
      room = room - #chunk
    end
    at = '(' .. id
  end
end
