-- trays: the claims of an owner, batch by batch. What one step takes from one queue stands in one list, its *tray*, in the
-- order of claiming; claim n is position n % 256 of tray n / 256. The index has one field per tray: a character per
-- position and the queue, e.g. "1101 default" (1 held, 0 gone, - gone and its payload emptied). A tray goes as a whole
-- when nothing of it is held; until then positions stand still. One list and one field per batch instead of one per job
-- is a third of the cost.
local trays = {}
local HELD, GONE, EMPTIED = 49, 48, 45

-- The tray whose index field holds `value` (false if there is none).
function trays.read(name, key, value)
  local mask, queue = '', ''
  if value then mask, queue = value:match('^(%S*) (.*)$') end
  return {name = name, key = key, queue = queue, states = {mask:byte(1, -1)}}
end

function trays.holds(tray, n)
  return tray.states[n % 256 + 1] == HELD
end

-- Note that a claim is not held any more; `save` writes it.
function trays.let_go(tray, n)
  tray.states[n % 256 + 1], tray.changed = GONE, true
end

function trays.payload(tray, n)
  return redis.pcall('LINDEX', tray.key, n % 256)
end

-- While few claims keep a tray, what is gone from it must not fill the memory.
local function empty(tray)
  for position, state in ipairs(tray.states) do
    if state == GONE then
      redis.pcall('LSET', tray.key, position - 1, '')
      tray.states[position] = EMPTIED
    end
  end
end

-- Write the index fields of changed trays, and drop `fields` of it. Returns the keys of trays that hold nothing; `drop`
-- them.
function trays.save(index, changed, fields)
  local kept, lists = {}, {}
  for _, tray in pairs(changed) do
    if tray.changed then
      local left = 0
      for _, state in ipairs(tray.states) do if state == HELD then left = left + 1 end end
      if left == 0 then
        fields[#fields + 1], lists[#lists + 1] = tray.name, tray.key
      else
        if left * 8 <= #tray.states then empty(tray) end
        kept[#kept + 1], kept[#kept + 2] = tray.name, string.char(unpack(tray.states)) .. ' ' .. tray.queue
      end
    end
  end
  if #kept > 0 then redis.call('HSET', index, unpack(kept)) end
  if #fields > 0 then redis.call('HDEL', index, unpack(fields)) end
  return lists
end

function trays.drop(lists)
  if #lists > 0 then redis.call('UNLINK', unpack(lists)) end
end

