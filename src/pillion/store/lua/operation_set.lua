#!lua flags=allow-oom
-- operation_set: carry out one batch of an operation on a set: park, place, take out, and note how far it came.
-- KEYS  operation, set, dead, queues, parked; a queue per move (any key where it has none)
-- ARGV  driver, step, dead max, dead before, s that parked jobs are kept; what `turn.note` takes;
--       (member, score, verb, new score, payload, queue, counter, header or '') per move: the counter counts what was moved,
--       a header stands before the member in its parked copy
-- Returns {OK, or why nothing was done; server's ms; the record; {number, server's error, ...} of what failed}
-- Cost  O(moves * log size). Crash before: nothing happened. After, reply lost: sending it again answers DONE.
--@ turn
--@ parking
--@ moves
local operation, caps, lives = KEYS[1], {most = ARGV[3], before = ARGV[4]}, ARGV[5]
local refusal = turn.refusal(operation, ARGV[1], ARGV[2])
if refusal then return turn.answer(refusal, operation, {}) end
local keys, counts, faults = {set = KEYS[2], dead = KEYS[3], queues = KEYS[4]}, {}, {}
local at = turn.note(operation, ARGV, 6)
local lot = parking.open(operation, KEYS[5])
for i = 1, (#ARGV - at + 1) / 8 do
  local member, score, verb, later, payload, name, counter, header = unpack(ARGV, at + 8 * i - 8, at + 8 * i - 1)
  local parked = header ~= '' and moves.stands(keys.set, member, score) and parking.park(lot, header, member)
  local result = moves.apply(keys, KEYS[5 + i], caps, member, score, verb, later, payload, name)
  if parked and result ~= 1 then parking.back(lot, member) end
  if type(result) == 'string' then
    faults[#faults + 1], faults[#faults + 2], counter = i, result, 'failed'
  elseif result == 0 then
    counter = 'gone'
  end
  counts[counter] = (counts[counter] or 0) + 1
end
parking.close(lot, lives)
turn.count(operation, counts)
return turn.answer('OK', operation, faults)
