"""One fleet of Ruby and Pillion on the same queues, both killed at random: what is lost is what Ruby itself loses.

Plain Sidekiq takes a job out of Redis before it runs it. So each job that is missing must be one that Redis handed to a
Ruby process, which ended without giving it back; a recorder between the two knows, and the account is exact, both ways.
Killed by SIGKILL, Ruby may lose whatever it has. Told to stop it pushes back what runs, and can lose only what one of
its threads was still fetching: a test below shows how. Pillion's jobs stand in Redis until their outcome is written.

A job whose class only the other side knows fails, and goes home through its `retry_queue`. Without that it might never
get there: an idle thread of Ruby's waits in BRPOP, and Redis serves it before anybody else hears of the push.

The seed is printed and may be given as FLEET_SEED; FLEET_SECONDS makes a longer run.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pillion import Client
from tests.conftest import NewServer, Ruby
from tests.crash.ledger import Ledger
from tests.interop.crew import TERM_TIMEOUT, End, Killer, PillionSeat, RubySeat, Seat, Thread, standing
from tests.interop.recorder import Recorder
from tests.interop.sides import HERE, Console, Sidekiq, make_due
from tests.servers import Server, available_kinds
from tests.waiting import wait_until

SECONDS = float(os.environ.get("FLEET_SECONDS", "16"))
JOBS = round(SECONDS * 120)
LONG = 4_500.0
PATIENCE = 30
PAUSE = {"ruby": 1.6, "python": 1.2}
SHORT = (2, 20)

HOME = {"OnlyRuby": "ruby", "OnlyPython": "python"}


class Producer:
    """Pushes to the shared queue from one side, over about `SECONDS`."""

    def __init__(self, rng: random.Random, push: Any) -> None:
        self.accepted: dict[str, str] = {}
        self._rng = rng
        self._push = push
        self._over = threading.Event()

    def work(self) -> None:
        while not self._over.is_set() and len(self.accepted) < JOBS // 2:
            item = self._rng.choices([self._steady, self._foreign, self._stray, self._long], [8, 2, 1, 1])[0]()
            self.accepted.update(dict.fromkeys(self._push(item), item["class"]))
            self._over.wait(self._rng.uniform(0, 2) * len(item["args"]) * SECONDS / (JOBS // 2))

    def _steady(self) -> dict[str, Any]:
        """Jobs that both sides know, where both look."""
        return {"class": "Steady", "queue": "both", "args": self._rows()}

    def _foreign(self) -> dict[str, Any]:
        """Jobs that only one side knows, where both look."""
        name, home = self._rng.choice(list(HOME.items()))
        return {"class": name, "queue": "both", "retry_queue": home, "args": self._rows()}

    def _stray(self) -> dict[str, Any]:
        """Jobs that only one side knows, in the queue of the other."""
        item = self._foreign()
        [queue] = set(HOME.values()) - {item["retry_queue"]}
        return {**item, "queue": queue, "args": item["args"][:3]}

    def _long(self) -> dict[str, Any]:
        """A job for Ruby that may well be running when its process has to leave."""
        return {"class": "OnlyRuby", "queue": "ruby", "args": [[LONG]]}

    def _rows(self) -> list[list[float]]:
        return [[round(self._rng.uniform(*SHORT), 1)] for _ in range(self._rng.choice((1, 20, 60)))]

    def stop(self) -> None:
        self._over.set()


class Fleet:
    """A server, two seats for each side, a ledger, and the crossings that were seen: jobs that failed as unknown."""

    def __init__(self, server: Server, folder: Path, ruby: Ruby) -> None:
        self.server = server
        self.ledger = Ledger(folder / "ledger")
        self.client = server.client()
        self.console = Console(ruby, server)
        self.ours = Client(server.url, wire="6")
        self.crossed: dict[str, str] = {}
        self.seats: dict[str, list[Seat]] = {
            "ruby": [RubySeat(server, folder, self.ledger.path, ruby) for _ in range(2)],
            "python": [PillionSeat(server, folder, self.ledger.path) for _ in range(2)],
        }
        wait_until(lambda: self.client.scard("processes") == 4, timeout=40, what="four workers")

    def hurry(self) -> None:
        """Note which jobs wait for their retry and why, and let them be due."""
        for raw in self.client.zrange("retry", 0, -1):
            job = msgspec.json.decode(raw)
            self.crossed[job["jid"]] = job["error_class"]
        make_due(self.client, "retry")

    def ended(self) -> set[str]:
        return set(self.ledger.count("end"))

    def close(self) -> None:
        for seat in (*self.seats["ruby"], *self.seats["python"]):
            seat.close()
        self.console.close()
        self.ours.setup.store.close()
        self.ledger.close()


@pytest.fixture
def fleet(new_server: NewServer, tmp_path: Path, ruby: Ruby, kind: str) -> Iterator[Fleet]:
    """The slow part is the processes, so one kind of server is enough: Redis where it is installed."""
    if kind != available_kinds()[-1]:
        pytest.skip("the mixed fleet runs against one kind of server")
    fleet = Fleet(new_server(), tmp_path, ruby)
    yield fleet
    fleet.close()


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.rule("move.fetch", "move.bulk-requeue", "move.poll", instead=True)
@pytest.mark.timeout(SECONDS + 120)
def test_what_is_missing_was_in_the_hands_of_a_killed_ruby(fleet: Fleet, figures: Callable[[str], None]) -> None:
    seed = os.environ.get("FLEET_SEED") or str(random.SystemRandom().randrange(10**9))
    began = time.monotonic()
    producers = [
        Producer(random.Random(f"{seed} python"), fleet.ours.push_bulk),
        Producer(random.Random(f"{seed} ruby"), lambda item: fleet.console("Sidekiq::Client.push_bulk(args[0])", item)),
    ]
    killers = [Killer(fleet.seats[side], SECONDS, PAUSE[side], random.Random(f"{seed} {side} dies")) for side in PAUSE]
    run([*producers, *killers], fleet)
    accepted = producers[0].accepted | producers[1].accepted
    ends = [end for killer in killers for end in killer.ends]
    finish(fleet, accepted, ends)
    ends += [seat.end(kill=False) for side in ("ruby", "python") for seat in fleet.seats[side]]

    lost = accepted.keys() - fleet.ended()
    figures(report(seed, fleet, accepted, ends, lost, time.monotonic() - began))
    assert standing(fleet.client) == {}
    taken = left_by(ends, fleet, side="ruby", killed=True) | left_by(ends, fleet, side="ruby", killed=False)
    assert lost == taken, whereabouts(lost ^ taken, fleet, ends)
    astray = lost & {jid for end in ends if end.side == "ruby" and not end.killed for jid in run_in_hand(fleet, end)}
    assert astray == set(), whereabouts(astray, fleet, ends)
    assert fleet.ended() - accepted.keys() == set()
    assert unexplained(fleet, ends) == {}
    assert abroad(fleet, accepted, ends) == set()
    assert {(end.side, end.killed) for end in ends} == {(side, kill) for side in PAUSE for kill in (True, False)}
    assert set(fleet.crossed.values()) == {"NameError", "UnknownJob"}


def run(works: Sequence[Any], fleet: Fleet) -> None:
    """Let producers and killers work, and retries be due, until all have done their share."""
    threads = [Thread(each.work) for each in works]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            fleet.hurry()
            threads[0].join(0.2)
    finally:
        for each in works:
            each.stop()
        for thread in threads:
            thread.join(30)
            thread.check()


def finish(fleet: Fleet, accepted: dict[str, str], ends: Sequence[End]) -> None:
    """Wait until all is done. What is not done in time is named by the account, so nothing fails here."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not quiet(fleet, accepted, ends) and time.monotonic() < deadline:
        pause.wait(0.05)


def quiet(fleet: Fleet, accepted: dict[str, str], ends: Sequence[End]) -> bool:
    """Whether nothing waits any more, and what has not run was in the hands of a process that was killed."""
    fleet.hurry()
    gone = left_by(ends, fleet, side="ruby", killed=True)
    return not standing(fleet.client) and accepted.keys() - fleet.ended() <= gone


def left_by(ends: Sequence[End], fleet: Fleet, *, side: str, killed: bool) -> set[str]:
    """What the ended workers of a side had in their hands, and nobody has run to its end."""
    held = {jid for end in ends if (end.side, end.killed) == (side, killed) for jid in end.hands}
    return held - fleet.ended()


def run_in_hand(fleet: Fleet, end: End) -> set[str]:
    """Of what a Ruby process had in its hands, the jobs that it began after it had taken them for the last time."""
    taken = {each.jid: each.at for each in end.handovers if each.taken}
    starts = (fact for fact in fleet.ledger.facts("start") if fact.pid == end.pid and fact.jid in end.hands)
    return {fact.jid for fact in starts if fact.at > taken[fact.jid]}


def whereabouts(jids: set[str], fleet: Fleet, ends: Sequence[End]) -> str:
    """The whole way of jobs that the account does not settle."""
    lines = []
    for jid in sorted(jids):
        way = [(fact.at, f"{fact.what} in {fact.pid}") for fact in fleet.ledger.facts(jid=jid)]
        for end in ends:
            name = f"{end.side} {end.pid}, {'killed' if end.killed else 'stopped'} later"
            mine = (each for each in end.handovers if each.jid == jid)
            way += [(each.at, f"{'handed to' if each.taken else 'given back by'} {name}") for each in mine]
        lines += [f"{jid}, failed as {fleet.crossed.get(jid)}:", *(f"  {at:.6f} {what}" for at, what in sorted(way))]
    return "\n".join(lines)


def unexplained(fleet: Fleet, ends: Sequence[End]) -> dict[str, int]:
    """The jobs that began more often than the ends of workers explain, and how often."""
    explained = Counter(jid for end in ends if end.side == "python" for jid in end.hands)
    explained |= fleet.ledger.count("rescued")  # a lease may also run out while a worker is held up
    for end in ends:
        if not end.killed:
            explained.update(cut_off(fleet, end) | begun(fleet, end) & end.returned)
    lost = {fact.owner for fact in fleet.ledger.facts("lost")}
    explained.update(fact.jid for fact in fleet.ledger.facts("start") if fact.owner in lost)
    starts = fleet.ledger.count("start")
    return {jid: count for jid, count in starts.items() if count - 1 > explained[jid]}


def begun(fleet: Fleet, end: End) -> set[str]:
    """The jobs that a worker began."""
    return {fact.jid for fact in fleet.ledger.facts("start") if fact.pid == end.pid}


def cut_off(fleet: Fleet, end: End) -> set[str]:
    """The jobs that a worker began and did not end."""
    return begun(fleet, end) - {fact.jid for fact in fleet.ledger.facts("end") if fact.pid == end.pid}


def abroad(fleet: Fleet, accepted: dict[str, str], ends: Sequence[End]) -> set[str]:
    """The jobs that ran on a side that does not know their class."""
    pids = {end.pid: end.side for end in ends}
    runs = ((fact.jid, pids[fact.pid]) for fact in fleet.ledger.facts("start"))
    return {jid for jid, side in runs if HOME.get(accepted[jid], side) != side}


def report(
    seed: str, fleet: Fleet, accepted: dict[str, str], ends: Sequence[End], lost: set[str], seconds: float
) -> str:
    """The figures of the run."""
    ran = Counter("ruby" if fact.owner == "ruby" else "python" for fact in fleet.ledger.facts("end"))
    killed, told = (Counter(end.side for end in ends if end.killed is how) for how in (True, False))
    rescued = {jid for end in ends if end.side == "python" for jid in end.hands}
    pushed_back = {jid for end in ends if end.side == "ruby" and not end.killed for jid in cut_off(fleet, end)}
    started = {fact.jid for fact in fleet.ledger.facts("start")}
    stopping = left_by(ends, fleet, side="ruby", killed=False)
    strayed = Counter(fleet.crossed.values())
    lines = (
        f"FLEET_SEED={seed}, {fleet.server.kind}, {seconds:.0f} s",
        f"{len(accepted)} jobs accepted; runs to their end: {ran['ruby']} in Ruby, {ran['python']} in Python",
        f"killed: {killed['ruby']} Ruby, {killed['python']} Pillion; stopped: {told['ruby']} and {told['python']}",
        f"lost in the hands of a killed Ruby: {len(lost - stopping)}, of one that stopped: {len(stopping)}",
        f"of these before their first line: {len(lost - started)}",
        f"stood in Redis when Pillion's workers died: {len(rescued)}",
        f"pushed back unfinished by Ruby as it stopped: {len(pushed_back)}",
        f"came to a side that does not know them: {strayed['NameError']} in Ruby, {strayed['UnknownJob']} in Python",
    )
    return "\n".join(f"  {line}" for line in lines)


# --- what Ruby itself does --------------------------------------------------------------------------------------------


@contextmanager
def busy_ruby(server: Server, ruby: Ruby, folder: Path, timeout: int) -> Iterator[tuple[str, Sidekiq, Recorder]]:
    """A Ruby worker of two threads, behind a recorder: one runs the job of this jid, the other one waits for more."""
    ledger, ours = Ledger(folder / "ledger"), Client(server.url, wire="6")
    jid = ours.push({"class": "Steady", "queue": "both", "args": [60_000]})
    assert jid is not None
    record = Recorder(server.socket_path, folder / "r")
    file, log = HERE / "fleet.rb", str(ledger.path)
    sidekiq = Sidekiq(ruby, server, "both", file=file, timeout=timeout, url=record.url, FLEET_LEDGER=log)
    try:
        wait_until(lambda: ledger.count("start")[jid], timeout=20, what="Ruby to run it")
        yield jid, sidekiq, record
        assert ledger.count("end") == {}
    finally:
        sidekiq.close()
        record.close()
        ours.setup.store.close()
        ledger.close()


def test_ruby_loses_what_it_pushes_back_while_a_thread_of_its_own_still_waits_for_jobs(
    server: Server, ruby: Ruby, tmp_path: Path
) -> None:
    """No Pillion worker is near. Its deadline is before the end of a BRPOP: the idle thread is handed the job that was
    just pushed back, and interrupted before it has read it."""
    client = server.client()
    with busy_ruby(server, ruby, tmp_path, timeout=1) as (jid, sidekiq, record):
        with client.monitor() as monitor:
            next(each for each in monitor.listen() if each["command"].lower().startswith("brpop"))
        record.withhold()
        sidekiq.end(signal.SIGTERM)
        record.close()
        assert "Pushed 1 jobs back to Redis" in sidekiq.said
        assert [each.taken for each in record.handovers] == [True, False, True]
        assert record.held.keys() == {jid}
        assert standing(client) == {}


@pytest.mark.parametrize(("number", "stands"), [(signal.SIGKILL, False), (signal.SIGTERM, True)], ids=["KILL", "TERM"])
def test_ruby_loses_what_it_runs_when_killed_and_pushes_it_back_when_stopped(
    server: Server, ruby: Ruby, tmp_path: Path, number: signal.Signals, stands: bool
) -> None:
    """The two halves of the account, one job at a time. While it runs, no key of Redis has it."""
    client = server.client()
    with busy_ruby(server, ruby, tmp_path, TERM_TIMEOUT) as (jid, sidekiq, record):
        assert standing(client) == {}
        sidekiq.end(number)
        record.close()
        assert record.held.keys() == (set() if stands else {jid})
        assert standing(client) == ({"queue:both": [jid]} if stands else {})
