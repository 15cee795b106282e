"""An explicit-state explorer: every order in which two workers, two reapers and a clock can deal with two jobs.

On every edge to the server a request may be carried out, be carried out and its answer lost, be lost itself, arrive
when everybody has forgotten it, or stop half-way in an error; and whoever sends it may die. All states that can be
reached with so many such faults are visited, so what is not found here does not exist within these bounds.

- *No loss*: each job stands in the queue, in the retry set, or in a slot that an index names, whose owner has a lease
  or is known to the reapers; or it ran to its end.
- *One owner*: no two owners with a lease hold the same job, and no two workers whose leases stand run it at a time.
- *Recovery*: from every state, without any further fault and with everybody alive renewing in time, all can go on
  until both jobs have ended and no claim is left.

Time goes in ticks, see `scripts.py`. A worker's own idea of its lease starts when a request leaves, the server's when
it is carried out. `timely` is another question: if all who are alive renew in every tick but during an outage, is
nobody who is alive ever fenced?
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cache
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from tests.models import scripts
from tests.models.scripts import STOPPED, Faults, Holder, Shard

MOST_SLOTS = 3
LONGEST_SCRIPT = 9
HELD, RUNNING = "held", "running"

T = TypeVar("T")
Request: TypeAlias = tuple[Any, ...]
State: TypeAlias = tuple[int, int, int, int, int, int, int]
"""(store, first worker, second worker, reapers, late requests, faults left, outages left): numbers in the tables of
the world, so that a state is small and quick to look up."""
Move: TypeAlias = tuple[object, State, bool]
"""(what happens, the state after it, whether it is a fault, or somebody is too slow)"""


class Store(NamedTuple):
    """What stands in Redis, as values. Owners are (lease, generation, index, slots, fenced, salvage)."""

    queue: tuple[int, ...]
    retry: frozenset[int]
    done: frozenset[int]
    owners: tuple[tuple[Any, ...], ...]
    gap: int = scripts.HALF + 1
    run: int = 0


class Worker(NamedTuple):
    """What a fetcher believes. `claims` are (slot, job, state), a state being HELD, RUNNING or an outcome to write.

    Without an owner, -1, it joins under the next name. `name` counts the names that it has used up.
    """

    owner: int
    name: int
    valid: int = 0
    generation: int = 1
    first: int = 1
    claims: tuple[tuple[int, int, str], ...] = ()
    doubt: bool = False


class Bounds(NamedTuple):
    """How far to go.

    Attributes:
        faults: how many crashes, lost requests and answers, late ones and errors half-way there may be in all.
        jobs: how many jobs there are.
        names: how many owner names each worker may use up, one after the other.
        endings: what a job's run may end in.
        pulse: whether fencing waits for the pulse; without it there are fewer states and more ways.
        stops: whether scripts may stop half-way.
        timely: see the top of this file; `outages` is how many times the server may then be out of reach.
        broken: rules that do not hold, to see that it is found.
    """

    faults: int = 1
    jobs: int = 2
    names: int = 2
    endings: tuple[str, ...] = ("done", "retry")
    pulse: bool = False
    stops: bool = True
    timely: bool = False
    outages: int = 0
    broken: Faults = frozenset()


class Found(Exception):
    """A state that breaks a promise, and how it was reached."""

    def __init__(self, why: str, trail: list[str]) -> None:
        super().__init__(f"{why}:\n  " + "\n  ".join(trail))
        self.why = why


def explore(bounds: Bounds) -> int:
    """Visit every state within the bounds and return how many there are. Raises Found for a broken promise."""
    world = World(bounds)
    states = [world.start]
    numbers = {world.start: 0}
    came_from, sound = array("l", [-1]), [array("l")]
    for number, state in enumerate(states):  # grows as it goes
        for _, following, fault in world.moves(state):
            known = numbers.get(following)
            if known is None:
                known = numbers[following] = len(states)
                states.append(following)
                came_from.append(number)
                sound.append(array("l"))
                if why := world.broken_promise(following):
                    raise Found(why, trail(world, states, came_from, known))
            if not fault:  # of these moves all recovery must consist
                sound[known].append(number)
    if not bounds.timely:
        stuck = _first_stuck(world, states, sound)
        if stuck is not None:
            raise Found("from here the jobs never come to an end", trail(world, states, came_from, stuck))
    return len(states)


def trail(world: World, states: list[State], came_from: array[int], number: int) -> list[str]:
    """How a state was reached, in words."""
    words: list[str] = []
    while (before := came_from[number]) >= 0:
        words.append(next(str(what) for what, state, _ in world.moves(states[before]) if state == states[number]))
        number = before
    return words[::-1]


def _first_stuck(world: World, states: list[State], sound: list[array[int]]) -> int | None:
    """Go back from the good ends over moves that are no faults: every state must be met."""
    met = bytearray(world.is_settled(state[0]) or world.is_over_the_edge(state) for state in states)
    waiting = [number for number, good in enumerate(met) if good]
    while waiting:
        for before in sound[waiting.pop()]:
            if not met[before]:
                met[before] = True
                waiting.append(before)
    return next((number for number, good in enumerate(met) if not good), None)


class Table(Generic[T]):
    """Numbers for values."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        if value not in self._numbers:
            self._numbers[value] = len(self.values)
            self.values.append(value)
        return self._numbers[value]


def _other(job: int) -> int:
    return 3 - job if job else 0


def _frozen(holder: Holder) -> tuple[Any, ...]:
    slots = tuple(sorted(holder.slots.items()))
    return holder.lease, holder.generation, tuple(sorted(holder.index)), slots, holder.fenced, holder.salvage


def _thawed(owner: tuple[Any, ...]) -> Holder:
    lease, generation, index, slots, fenced, salvage = owner
    return Holder(lease, generation, set(index), dict(slots), fenced, salvage)


class World:
    """The moves, and the promises. What depends on a part of the state only is worked out once per part."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.lease = 2 if bounds.pulse else 1
        self.jobs = tuple(range(1, bounds.jobs + 1))
        self._stores, self._workers = Table[Store](), Table[Worker]()
        self._reapers, self._lates = Table[tuple[Any, ...]](), Table[tuple[Request, ...]]()
        owners = (_frozen(Holder()),) * (2 * bounds.names)
        self.start: State = (
            self._stores.number(Store(self.jobs, frozenset(), frozenset(), owners)),
            self._workers.number(Worker(-1, 0)),
            self._workers.number(Worker(-1, 0)),
            self._reapers.number((None, None)),
            self._lates.number(()),
            bounds.faults,
            bounds.outages,
        )
        for name in (
            "_turned_store",
            "_turned_worker",
            "_turned_reapers",
            "_turned_lates",
            "_alive",
            "_serve",
            "_alone",
            "_heard",
            "_later",
            "_tasks",
            "is_settled",
            "_lost",
            "_running",
        ):
            setattr(self, name, cache(getattr(self, name)))

    def moves(self, state: State) -> Iterator[Move]:
        """What can happen next. Of states that differ in the names of workers or jobs only, one stands for all."""
        for what, following, fault in self._moves(state):
            yield what, self._likeness(following), fault

    def _moves(self, state: State) -> Iterator[Move]:
        store, *workers, reapers, late, left, outage = state
        for number in (0, 1):
            yield from self._work(state, number, workers[number])
        yield from self._reap(state)
        for number, request in enumerate(self._lates.values[late]):
            rest = self._lates.values[late][:number] + self._lates.values[late][number + 1 :]
            _, after = self._serve(store, request, None)
            yield (
                ("late bytes arrive", request),
                (after, *workers, reapers, self._lates.number(rest), left, outage),
                False,
            )  # type: ignore[misc]
        yield from self._tick(state)

    # -- likeness --------------------------------------------------------------------------------------------------

    def _likeness(self, state: State) -> State:
        state = (*state[:4], self._alive(state[0], state[4]), *state[5:])
        turned = [self._turned(state, workers=True, jobs=False)]
        if len(self.jobs) == 2:
            turned += [self._turned(each, workers=False, jobs=True) for each in (state, turned[0])]
        return min(state, *turned)

    def _alive(self, store: int, late: int) -> int:
        """Late requests without those that can do nothing any more, whenever they arrive."""
        if not late or self.bounds.broken:
            return late
        requests = self._lates.values[late]
        return self._lates.number(tuple(each for each in requests if not self._is_vain(store, each)))

    def _is_vain(self, store: int, request: Request) -> bool:
        reply, after = self._serve(store, request, None)
        return after == store and (
            reply in ("FENCED", "STALE") or (request[0] != "join" and self._is_over(store, request[1]))
        )

    def _is_over(self, store: int, owner: int) -> bool:
        lease, generation, *_, fenced, salvage = self._stores.values[store].owners[owner]
        return lease is None and not generation and fenced and not salvage

    def _turned(self, state: State, *, workers: bool, jobs: bool) -> State:
        """The state with its two workers, or its two jobs, changing places."""
        store, one, two, reapers, late, left, outage = state
        if workers:
            one, two = two, one
        return (
            self._turned_store(store, workers, jobs),
            self._turned_worker(one, workers, jobs),
            self._turned_worker(two, workers, jobs),
            self._turned_reapers(reapers, workers, jobs),
            self._turned_lates(late, workers, jobs),
            left,
            outage,
        )

    def _turned_store(self, store: int, workers: bool, jobs: bool) -> int:
        known = self._stores.values[store]
        if jobs:
            owners = tuple(
                (*each[:3], tuple((n, tuple(map(_other, held))) for n, held in each[3]), *each[4:])
                for each in known.owners
            )
            sets = [frozenset(map(_other, each)) for each in (known.retry, known.done)]
            known = known._replace(queue=tuple(map(_other, known.queue)), retry=sets[0], done=sets[1], owners=owners)
        if workers:
            names = self.bounds.names
            known = known._replace(owners=known.owners[names:] + known.owners[:names])
        return self._stores.number(known)

    def _turned_worker(self, worker: int, workers: bool, jobs: bool) -> int:
        known = self._workers.values[worker]
        if jobs:
            known = known._replace(claims=tuple((n, _other(job), what) for n, job, what in known.claims))
        if workers and known.owner >= 0:
            known = known._replace(owner=self._turned_name(known.owner))
        return self._workers.number(known)

    def _turned_reapers(self, reapers: int, workers: bool, jobs: bool) -> int:
        tasks = [task and self._turned_request(task, workers, jobs) for task in self._reapers.values[reapers]]
        return self._reapers.number(tuple(sorted(tasks, key=repr)))

    def _turned_lates(self, late: int, workers: bool, jobs: bool) -> int:
        requests = [self._turned_request(each, workers, jobs) for each in self._lates.values[late]]
        return self._lates.number(tuple(sorted(requests, key=repr)))

    def _turned_request(self, request: Request, workers: bool, jobs: bool) -> Request:
        verb, owner, *rest = request
        if jobs and verb == "step":
            rest[1] = tuple((n, what, _other(job)) for n, what, job in rest[1])
        return (verb, self._turned_name(owner) if workers else owner, *rest)

    def _turned_name(self, owner: int) -> int:
        return (owner + self.bounds.names) % (2 * self.bounds.names)

    # -- time ------------------------------------------------------------------------------------------------------

    def _tick(self, state: State) -> Iterator[Move]:
        store, one, two, reapers, delayed, left, outage = state
        owners = self._stores.values[store].owners
        names = [self._workers.values[worker].owner for worker in (one, two)]
        late = any(name >= 0 and (owners[name][0] or 0) < self.lease for name in names)
        if self.bounds.timely and late:
            return
        after = (store, one, two)
        for ticks in range(1, 2 + self.lease if outage else 2):
            after = self._later(*after)
            outages = outage - (ticks > 1)
            yield f"{ticks}/{self.lease} of a lease passes", (*after, reapers, delayed, left, outages), late

    def _later(self, store: int, one: int, two: int) -> tuple[int, int, int]:
        known = self._stores.values[store]
        owners = tuple((max(owner[0] - 1, 0) if owner[0] else owner[0], *owner[1:]) for owner in known.owners)
        gap, run = (min(known.gap + 1, scripts.HALF + 1), min(known.run + 1, 2)) if self.bounds.pulse else (2, 0)
        workers = [self._workers.values[each] for each in (one, two)]
        aged = [self._workers.number(each._replace(valid=max(each.valid - 1, 0))) for each in workers]
        return self._stores.number(known._replace(owners=owners, gap=gap, run=run)), aged[0], aged[1]

    # -- a worker --------------------------------------------------------------------------------------------------

    def _work(self, state: State, number: int, worker: int) -> Iterator[Move]:
        store, one, two, reapers, late, left, outage = state

        def become(new: int) -> tuple[int, int]:
            return (new, two) if number == 0 else (one, new)

        moves, death, requests = self._alone(worker, number)
        for what, new in moves:
            yield what, (store, *become(new), reapers, late, left, outage), False
        if left and death >= 0:
            yield ("dies", number), (store, *become(death), reapers, late, left - 1, outage), True
        for request in requests:
            for reply, after, delayed, fault, how in self._ask(store, late, left, request):
                new = self._heard(worker, request, reply, number)
                state = (after, *become(new), reapers, delayed, left - fault, outage)
                yield ("worker", number, request, how), state, bool(fault)

    def _alone(self, number: int, place: int) -> tuple[list[tuple[object, int]], int, list[Request]]:
        """What a worker can do by itself, what it is after its death (-1: no matter), what it may ask the server."""
        worker, table = self._workers.values[number], self._workers
        if worker.owner < 0:
            names = self.bounds.names
            return [], -1, [("join", place * names + worker.name)] if worker.name < names else []
        death = table.number(Worker(-1, worker.name))
        if worker.doubt:
            return [], death, [("resync", worker.owner)]
        moves: list[tuple[object, int]] = []
        for at, (n, job, what) in enumerate(worker.claims):
            endings: tuple[str, ...] = self.bounds.endings if what == RUNNING else ()
            if what == HELD and worker.valid:
                endings = (RUNNING,)
            for ending in endings:
                claims = (*worker.claims[:at], (n, job, ending), *worker.claims[at + 1 :])
                moves.append(((place, job, ending), table.number(worker._replace(claims=claims))))
        settled = tuple((n, what, job) for n, job, what in worker.claims if what not in (HELD, RUNNING))
        free = len(settled) == len(worker.claims) and worker.first <= MOST_SLOTS
        wants = (0, 1) if free else (0,)
        steps = [("step", worker.owner, worker.generation, settled, want, worker.first) for want in wants]
        return moves, death, list(steps)

    def _heard(self, number: int, request: Request, reply: Any, place: int) -> int:
        """What a worker is after this reply; None is no reply at all."""
        worker, verb = self._workers.values[number], request[0]
        if verb == "join":
            name = worker.name + 1
            new = Worker(request[1], name, self.lease) if reply == 1 else Worker(-1, name)
        elif reply == "FENCED":
            new = Worker(-1, worker.name)
        elif not isinstance(reply, tuple):  # STALE, an error, or no answer
            new = worker._replace(doubt="no re-sync" not in self.bounds.broken)
        elif verb == "resync":
            new = self._known(worker, reply[0], dict(reply[1]))
        else:
            written = {n for n, _, _ in request[3]}
            claims = [claim for claim in worker.claims if claim[0] not in written]
            claims += [(n, job, HELD) for n, job in reply]
            first = worker.first + len(reply)
            new = worker._replace(valid=self.lease, first=first, claims=tuple(claims))
        return self._workers.number(new)

    def _known(self, worker: Worker, generation: int, held: dict[int, int]) -> Worker:
        """What a worker makes of the list of its claims: it adopts those it does not know."""
        claims = [claim for claim in worker.claims if claim[0] in held]
        known = {n for n, _, _ in claims}
        claims += [(n, job, HELD if job else "done") for n, job in held.items() if n not in known]
        first = max([worker.first, *(n + 1 for n in held)])
        return Worker(worker.owner, worker.name, self.lease, generation, first, tuple(sorted(claims)))

    # -- the reapers -----------------------------------------------------------------------------------------------

    def _reap(self, state: State) -> Iterator[Move]:
        store, one, two, reapers, late, left, outage = state
        tasks = self._reapers.values[reapers]
        for number in (0, 1):
            if number and tasks[0] == tasks[1]:
                return  # they are alike
            for request, new in self._tasks(store, tasks, number):
                if request is None:
                    if tasks[number] is None:
                        yield ("a reaper reads", new), (store, one, two, new, late, left, outage), False
                    elif left:
                        yield "a reaper dies", (store, one, two, new, late, left - 1, outage), True
                    continue
                for reply, after, delayed, fault, how in self._ask(store, late, left, request):
                    alive = {self._workers.values[worker].owner for worker in (one, two)}
                    robbed = self.bounds.timely and request[0] == "fence" and reply == 1 and request[1] in alive
                    state = (after, one, two, new, delayed, -1 if robbed else left - fault, outage)
                    yield ("a reaper", request, how), state, bool(fault)

    def _tasks(self, store: int, tasks: tuple[Any, ...], number: int) -> list[tuple[Request | None, int]]:
        """What a reaper may do: (what it asks the server, or None, and what both reapers are about then)."""

        def become(new: Request | None) -> int:
            return self._reapers.number(tuple(sorted((new, tasks[1 - number]), key=repr)))

        if tasks[number] is not None:
            return [(tasks[number], become(None)), (None, become(None))]
        found: list[tuple[Request | None, int]] = []
        for owner, (lease, _, index, _, _, to_salvage) in enumerate(self._stores.values[store].owners):
            if lease == 0:
                found.append((("fence", owner), become(None)))
            elif to_salvage:
                found.append((None, become(("salvage", owner, index))))
        return found

    # -- the server ------------------------------------------------------------------------------------------------

    def _ask(self, store: int, late: int, left: int, request: Request) -> Iterator[tuple[Any, int, int, int, str]]:
        """All that can become of a request: (reply, store and late requests after it, 1 for a fault, in words)."""
        reply, after = self._serve(store, request, None)
        yield reply, after, late, 0, "answered"
        if not left:
            return
        yield None, after, late, 1, "the answer is lost"
        yield None, store, late, 1, "it is lost"
        delayed = self._lates.number(tuple(sorted((*self._lates.values[late], request), key=repr)))
        yield None, store, delayed, 1, "it is late"
        for stop in range(1, LONGEST_SCRIPT if self.bounds.stops else 0):
            reply, broken = self._serve(store, request, stop)
            if reply is not STOPPED:
                return
            yield None, broken, late, 1, f"an error after {stop} writes"

    def _serve(self, store: int, request: Request, stop: int | None) -> tuple[Any, int]:
        known = self._stores.values[store]
        holders = {str(number): _thawed(owner) for number, owner in enumerate(known.owners)}
        shard = Shard(
            list(known.queue),
            set(known.retry),
            set(known.done),
            holders,
            known.gap,
            known.run,
            self.lease,
            self.bounds.broken,
        )
        verb, owner, *rest = request
        reply = scripts.carry_out(getattr(scripts, verb)(shard, str(owner), *rest), stop)
        owners = tuple(_frozen(holders[str(number)]) for number in range(len(holders)))
        after = Store(tuple(shard.queue), frozenset(shard.retry), frozenset(shard.done), owners, shard.gap, shard.run)
        return reply, self._stores.number(after)

    # -- the promises ----------------------------------------------------------------------------------------------

    def broken_promise(self, state: State) -> str | None:
        """What is wrong with a state, or None."""
        if state[5] < 0:
            return "somebody who was alive was fenced after an outage"
        twice = self._running(state[1]) & self._running(state[2])
        return f"job {min(twice)} runs under two leases" if twice else self._lost(state[0])

    def _running(self, worker: int) -> frozenset[int]:
        """The jobs that a worker runs while it believes in its lease."""
        known = self._workers.values[worker]
        return frozenset(job for _, job, what in known.claims if what == RUNNING and known.valid)

    def _lost(self, store: int) -> str | None:
        known = self._stores.values[store]
        holders = [_thawed(owner) for owner in known.owners]
        for job in self.jobs:
            places = [
                holder
                for holder in holders
                if holder.lease is not None or holder.salvage
                for n, held in holder.slots.items()
                if held[:1] == (job,) and n in holder.index
            ]
            if not places and job not in (*known.queue, *known.retry, *known.done):
                return f"job {job} is lost"
            if sum(holder.lease is not None for holder in places) > 1:
                return f"job {job} has two owners"
        return None

    def is_over_the_edge(self, state: State) -> bool:
        """Whether both workers have used up the names that they have within these bounds, and can do no more."""
        workers = [self._workers.values[worker] for worker in state[1:3]]
        return all(worker.owner < 0 and worker.name == self.bounds.names for worker in workers)

    def is_settled(self, store: int) -> bool:
        """Whether nothing waits and nothing is held."""
        known = self._stores.values[store]
        return not known.queue and not any(owner[2] or owner[3] for owner in known.owners)
