"""Mutation checks: for each rule the smallest play that goes wrong when the rule is broken, and well when it is not.

Called by `test_mutations.py` and by `python -m tests.crash.mutations`, which tells what the bed reports of each.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.crash.failpoints import POINTS, Action, Point
from tests.crash.sabotage import MUTATIONS
from tests.crash.scenes import Trial
from tests.crash.stage import LEASE, Stage
from tests.crash.victim import Actor, FailsOnce, Held, Lethal, Quick
from tests.proxy import Proxy
from tests.servers import Kind, Server, available_kinds

SHORT_PATIENCE = 6.0
DEATHS = 4
MEMORY = 4_000_000


def trial(name: str, action: Action) -> Callable[[Server, Path, str], Stage]:
    """A failpoint trial is the play."""
    [point] = [point for point in POINTS if point.name == name]

    def play(server: Server, folder: Path, mutation: str) -> Stage:
        played = ImpatientTrial(point, action, server, folder, mutation=mutation)
        return played.play()

    return play


class ImpatientTrial(Trial):
    """One that is expected to wait in vain."""

    def __init__(self, point: Point, action: Action, server: Server, folder: Path, mutation: str) -> None:
        super().__init__(point, action, server, folder, mutation=mutation)
        self.patience = SHORT_PATIENCE if mutation else self.patience


def staged(play: Callable[[Stage], None], *, proxied: bool = False) -> Callable[[Server, Path, str], Stage]:
    """A play of its own, on a stage whose workers talk through a proxy if they are to."""

    def act(server: Server, folder: Path, mutation: str) -> Stage:
        proxy = Proxy(server.folder / folder.name, server.socket_path) if proxied else None
        stage = Stage(server, folder, url=proxy.url if proxy else None, mutation=mutation)
        stage.patience = SHORT_PATIENCE if mutation else stage.patience
        stage.proxy = proxy
        try:
            play(stage)
        except AssertionError as error:
            stage.faults.append(str(error))
        finally:
            stage.close()
            if proxy is not None:
                proxy.close()
        return stage

    return act


def late_bytes(stage: Stage) -> None:
    """A step sits in the network, its sender goes on and claims, and then it arrives after all."""
    worker = stage.start_ready()
    assert stage.proxy is not None
    trap = stage.proxy.trap("hold_back", lambda words, _: words[0] == b"EVALSHA" and is_step(words))
    trap.wait()
    held = set(stage.push(Held, 1, str(stage.folder)))
    stage.until(lambda: held <= stage.started(), "the worker to go on")
    worker_is_full = stage.push(Held, 2, str(stage.folder))
    stage.until(lambda: set(worker_is_full) <= stage.started(), "the worker to have no room")
    stage.push(Quick, 2, 0)
    trap.let_go()
    stage.let_go(worker)
    stage.finish()


def is_step(words: list[bytes]) -> bool:
    """A request whose script is the step: of all that a fetcher sends again and again it has the most keys."""
    return int(words[2]) > 5


def zombie(stage: Stage) -> None:
    """A worker stands still past its lease, goes on, takes a job and dies."""
    worker = stage.start_ready()
    heir = stage.start_ready(queues=["other"])
    [owner] = stage.owners(worker.pid)
    worker.tell(signal.SIGSTOP)
    stage.until(lambda: owner not in stage.owners(), "the worker to be fenced")
    worker.tell(signal.SIGCONT)
    held = set(stage.push(Held, 1, str(stage.folder)))
    stage.until(lambda: held <= stage.started(), "it to take a job")
    worker.kill()
    stage.processes.remove(worker)
    after = stage.start_ready()
    stage.let_go(after)
    stage.let_go(heir)
    stage.finish()


def wrong_type(stage: Stage) -> None:
    """Another program has made a string of `retry` for a while, in which a job fails."""
    stage.redis.set(stage.key("retry"), "not ours")
    stage.start_ready()
    [jid] = stage.push(FailsOnce, 1)
    stage.until(lambda: jid in stage.ledger.count("fail"), "the job to fail")
    [done] = stage.push(Quick, 1, 0)
    stage.until(lambda: done in stage.ended(), "the outcomes to be written")
    stage.redis.delete(stage.key("retry"))
    stage.finish()


def full_memory(stage: Stage) -> None:
    """The server's memory is full of jobs, and only workers can make room."""
    stage.push(Quick, 40, 0, pad="x" * 100_000)
    stage.redis.config_set("maxmemory-policy", "noeviction")
    stage.redis.config_set("maxmemory", MEMORY)
    try:
        stage.start()
        stage.finish()
    finally:
        stage.redis.config_set("maxmemory", 0)


def all_asleep(stage: Stage) -> None:
    """All processes stand still past their leases and go on one after the other: nobody died, nobody is fenced."""
    workers = [stage.start_ready(), stage.start_ready()]
    held = set(stage.push(Held, 6, str(stage.folder)))
    stage.until(lambda: held <= stage.started(), "the jobs to start")
    time.sleep(2 * LEASE)  # until the reapers would act
    for worker in workers:
        worker.tell(signal.SIGSTOP)
    time.sleep(1.5 * LEASE)
    for worker in workers:
        worker.tell(signal.SIGCONT)
        time.sleep(0.7 * LEASE)
    for worker in workers:
        stage.let_go(worker)
    stage.finish()
    stage.check(not stage.ledger.facts("lost"), "a process that lives was fenced")
    stage.check(stage.again == 0, f"{stage.again} jobs ran again, and nobody died")


def pill(stage: Stage) -> None:
    """A job kills its process whenever it runs, beside two that do nothing wrong."""
    innocent = stage.push(Held, 2, str(stage.folder))
    [lethal] = stage.push(Lethal, 1)
    deaths = 0
    while deaths < DEATHS and lethal not in stage.standing().get("dead", []):
        worker = stage.start()
        stage.until(lambda w=worker: not w.is_alive() or is_buried(stage, lethal, w), "the job to kill or be buried")
        deaths += not worker.is_alive()
    stage.check(deaths == 3, f"{deaths} processes died")
    stage.check(stage.standing() == {"dead": [lethal]}, f"standing: {stage.standing()}")
    stage.check(set(innocent) <= stage.ended(), "an innocent job did not end")


def is_buried(stage: Stage, jid: str, worker: Actor) -> bool:
    """Whether the job is in the dead set; the jobs of this worker may end then."""
    buried = jid in stage.standing().get("dead", [])
    if buried:
        stage.let_go(worker)
    return buried and stage.ended() >= stage.jids - {jid}


PLAYS: Mapping[str, Callable[[Server, Path, str], Stage]] = {
    "no re-sync": trial("fetcher.claim.sent", "close"),
    "no generation": staged(late_bytes, proxied=True),
    "no fencing": staged(zombie),
    "the old place first": staged(wrong_type),
    "no allow-oom": staged(full_memory),
    "no amnesty": staged(all_asleep),
    "no suspects": staged(pill),
    "pushes sent again": trial("client.push.sent", "close"),
}


def main(names: list[str]) -> int:
    """Play all, or those named, and tell what the bed says; returns the exit code."""
    kind: Kind = available_kinds()[-1]
    missed = 0
    for name in names or list(MUTATIONS):
        with tempfile.TemporaryDirectory(prefix="pillion-mutation-") as folder:
            server = Server(kind).start()
            try:
                well = PLAYS[name](server, Path(folder, "well"), "").faults
                broken = PLAYS[name](server, Path(folder, "broken"), name).faults
            finally:
                server.close()
        missed += bool(well) + (not broken)
        said = broken[0].splitlines()[0][:200] if broken else "NOTHING WAS NOTICED"
        print(f"{name:22} {said}" + (f"\n    AND WITHOUT IT: {well[0]}" if well else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
