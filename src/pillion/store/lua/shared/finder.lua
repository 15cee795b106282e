-- finder: find jobs in a queue by their exact bytes, by where they stood when they were read (counted from the oldest job;
-- 0 where that is not known), mark them, and take all that are marked out in one walk from the nearer end. A job that has
-- moved by more than 500 places is looked for in the whole queue, three times per call at most; then it is known how far
-- the others have moved.
local finder = {DRIFT = 500}

function finder.of(queue, word)  -- `word` is no job
  local length, shift, searches = redis.call('LLEN', queue), 0, 3
  local marked, low, high = 0, length, 0
  local self = {}

  local function search(place, payload)
    local guess = place + shift
    if place > 0 and guess > -finder.DRIFT then
      if guess > 0 and redis.call('LINDEX', queue, -guess) == payload then return guess end
      local top, bottom = math.min(length, guess + finder.DRIFT), math.max(1, guess - finder.DRIFT)
      for i, job in ipairs(top < bottom and {} or redis.call('LRANGE', queue, -top, -bottom)) do
        if job == payload then return top - i + 1 end
      end
    end
    if searches == 0 then return nil end
    searches = searches - 1
    local index = redis.call('LPOS', queue, payload, 'RANK', -1)
    return index and length - index
  end

  function self.find(place, payload)
    local found = search(place, payload)
    if found and place > 0 then shift = found - place end
    return found
  end

  function self.mark(found)
    redis.call('LSET', queue, -found, word)
    marked, low, high = marked + 1, math.min(low, found), math.max(high, found)
  end

  function self.sweep()
    if marked == 0 then return end
    redis.call('LREM', queue, high <= length - low and -marked or marked, word)
  end

  return self
end
