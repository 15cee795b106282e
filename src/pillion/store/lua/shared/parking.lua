-- parking: what a person takes away is kept for an undo, up to a number of bytes; beyond it nothing of it is kept.
local parking = {}

function parking.open(operation, key)
  local row = redis.call('HMGET', operation, 'parking', 'room', 'bytes')
  return {operation = operation, key = key, on = row[1] == '1', room = tonumber(row[2] or 0), bytes = tonumber(row[3] or 0)}
end

function parking.takes(lot, bytes)
  if not lot.on then return false end
  lot.bytes = lot.bytes + bytes
  if lot.bytes <= lot.room then return true end
  lot.on = false
  redis.call('HSET', lot.operation, 'parking', '0', 'too_large', '1')
  return false
end

function parking.park(lot, header, payload)
  if parking.takes(lot, #payload) then redis.call('RPUSH', lot.key, header .. payload) return true end
  return false
end

function parking.back(lot, payload)  -- it was not taken away after all
  redis.call('RPOP', lot.key)
  lot.bytes = lot.bytes - #payload
end

function parking.close(lot, lives)
  if lot.on then
    redis.call('HSET', lot.operation, 'bytes', lot.bytes)
    redis.call('EXPIRE', lot.key, lives)
  else
    redis.call('UNLINK', lot.key)
  end
end
