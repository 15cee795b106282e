-- pulse: whether the owners could renew without a break lately. After an outage of the server, of the network, or of all
-- machines, or a jump of the server's clock, every lease is over at once and every owner may be alive: then nobody must be
-- fenced before all of them have had time to renew. A single owner that renewed all the while shows that the others could.
-- The hash at `key` holds, in ms: `last`, when any owner renewed last, and `since`, from when on no two renewals were more
-- than half a lease apart. Put before the scripts that name it with `--@ pulse`.
local pulse = {}

function pulse.beat(key, now, lease)
  local last = tonumber(redis.call('HGET', key, 'last'))
  local broken = not last or now < last or now - last > lease / 2
  if broken then redis.call('HSET', key, 'last', now, 'since', now)
  else redis.call('HSET', key, 'last', now) end
end

function pulse.is_steady(key, now, lease)
  local last, since = unpack(redis.call('HMGET', key, 'last', 'since'))
  return last and now >= tonumber(last) and now - last <= lease / 2 and now - since >= tonumber(lease)
end

