#!lua flags=allow-oom
-- step: renew the owner's lease, write the outcomes of settled claims, claim new ones. One fetcher, one owner.
-- KEYS  lease, index, paused, suspects, pulse; queues; trays with settled claims; destinations of the claims that are not
--       Done; a new tray per queue; keys of effects
-- ARGV  owner, generation, lease ms, now ms or '', want, most bytes, first new tray, #queues, #trays, #others, #effects,
--       dead max, dead timeout s; (name, share) per queue; (tray, positions of its Done claims as bytes) per settled tray;
--       (n, verb, score, payload) per other claim; (n, name, #keys, #args, args...) per effect
-- Returns 'FENCED', or 'STALE', or {missed n, {n or queue, error}, #suspects, queue number and payload per new claim}
-- Cost  O(queues) reads while looking for work, then O(settled + claimed); bounded by the caller at 200 + 200.
-- Crash before: nothing happened. After, reply lost: a re-sync finds what was claimed, and what was settled is gone.
-- A script error cannot undo earlier writes, so what other clients may have replaced is only touched through pcall, the
-- new place is written first, and the index entry goes last.
--@ pulse
--@ trays
local owner, generation = ARGV[1], tonumber(ARGV[2])
local lease, index, suspects = KEYS[1], KEYS[2], KEYS[4]
if not redis.call('ZSCORE', lease, owner) then return 'FENCED' end
local current = redis.call('HGET', index, 'g')
if not current then return 'FENCED' end
if generation < tonumber(current) then return 'STALE' end

local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('ZADD', lease, 'XX', now + ARGV[3], owner)
pulse.beat(KEYS[5], now, ARGV[3])

local want, room, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local nqueues, ntrays, nothers, neffects = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local argument = 13 + 2 * nqueues
local key = 5 + nqueues
local missed, errors, claims = {}, {}, {}

local function failed(reply, subject)
  if type(reply) == 'table' and reply.err then
    errors[#errors + 1] = {subject, reply.err}
    return true
  end
end

