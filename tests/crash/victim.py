"""The processes of the failpoint trials, forked from a warm server, armed with a point or not.

    worker       runs the jobs of this module
    producer     pushes ten jobs and writes into the ledger what it was told of each
    isolated     a worker with a helper for jobs that want a process of their own
    supervisor   a supervisor; its zygote is this module as a program

Each ends when the process that started it does.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pillion
import pillion.resolve
from pillion import Client
from pillion.clock import SystemClock
from pillion.errors import MaybeEnqueued, StoreError
from pillion.events import LeaseLost
from pillion.setup import Setup
from pillion.worker import Worker, fetcher, service
from pillion.worker import identity as identities
from pillion.worker import worker as worker_module
from pillion.worker.forking.channel import Channel
from pillion.worker.isolated import helper
from pillion.worker.supervisor import supervisor as supervising
from pillion.worker.supervisor import zygote
from pillion.worker.supervisor.child import SupervisedWorker
from tests.crash import netns, sabotage
from tests.crash.app import Held, HeldAsync, Quick, QuickAsync, ledger, noted, open_ledger, running
from tests.crash.failpoints import POINTS, Arms, Injected, Point, arm
from tests.crash.processes import PRELOAD, die_with_the_parent
from tests.waiting import wait_until

__all__ = ["Held", "HeldAsync", "Quick", "QuickAsync"]

AUDIT_EVERY = 0.4
PAUSE_AFTER_ERROR = 0.1
DOUBTED = "fetcher.claim.sent"
PUSHES = 10
COMPANY, COMPANY_OF = 0.3, 3
FAILED = 1
PATIENCE = 30.0
LINE = "%(asctime)s.%(msecs)03d %(message)s"
REFUSED, MAYBE, ACCEPTED = "refused", "maybe", "accepted"


_clients: list[Client] = []


class FailsOnce(pillion.Job, retry=3):
    """Fails the first time and succeeds as a retry."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: object) -> int:
        return 1

    def perform(self) -> None:
        with noted() as run:
            if run.attempt == 1:
                raise ConnectionError("the first attempt fails")


class Lethal(pillion.Job):
    """Kills its process whenever it runs, once some other job runs too or nobody comes."""

    def perform(self) -> None:
        with noted():
            deadline = time.monotonic() + COMPANY
            while running() < COMPANY_OF and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)


class ForksInside(pillion.Job):
    """Forks; the child pushes a job and so does the parent."""

    def perform(self) -> None:
        with noted() as run:
            child = os.fork()
            push_noted(_clients[0], ledger().note, f"{run.jid}-{'child' if child == 0 else 'parent'}", once=False)
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)


class Apart(pillion.Job, isolation="process", retry=3):
    """Runs in a process of its own."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: object) -> int:
        return 1

    def perform(self) -> None:
        with noted():
            return


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.crash.victim", *PRELOAD])


_polling = threading.Lock()  # multiprocessing asks after all its children at each start, in whichever thread that is


class Actor:
    """A forked process of a trial. May be used beside those of other threads."""

    def __init__(self, role: str, options: dict[str, Any], log: Path) -> None:
        self.role = role
        with _polling:
            self._process = _context.Process(target=run, args=(role, options, str(log)))
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def is_alive(self) -> bool:
        with _polling:
            return self._process.is_alive()

    @property
    def exitcode(self) -> int | None:
        with _polling:
            return self._process.exitcode

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.tell(signal.SIGKILL)
        self.join(PATIENCE)

    def join(self, seconds: float) -> None:
        """Wait until it has ended, or so long."""
        with suppress(AssertionError):
            wait_until(lambda: not self.is_alive(), timeout=seconds)


def run(role: str, options: dict[str, Any], log: str) -> None:
    """What a forked process does; it ends with the exit code of its role."""
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    die_with_the_parent()
    code = FAILED
    try:
        if options.get("netns"):
            netns.enter(options["netns"])
        code = main(role, options)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main(role: str, options: dict[str, Any]) -> int:
    """`options`: the `ledger`, those of `Setup` under `setup`, and `point`, `action`, `nth`, `seconds` of a point."""
    logging.basicConfig(level=logging.INFO, format=LINE, datefmt="%H:%M:%S", force=True)
    note = open_ledger(Path(options["ledger"])).note
    fetcher.AUDIT_EVERY = AUDIT_EVERY
    service.PAUSE_AFTER_ERROR = PAUSE_AFTER_ERROR
    setup = setup_of(options, note)
    armed = Armed(options, note)
    if role == "isolated":
        pool = armed.helper_of(setup)
    if role == "supervisor":
        return supervise(options, armed)
    if role == "forking":
        return fork_and_push(setup, note, options["how"])
    if role == "producer":
        armed.arm_if("worker")
        return produce(setup, note, once=options["once"])
    if options["doubt"]:
        arm(Point(DOUBTED), Arms(DOUBTED, "close", 1, 0, lambda: True))
    armed.arm_if("worker")
    _clients[:] = [Client(setup=setup)]
    worker = Worker(setup)
    if role == "isolated":
        worker.use(pool)
    return worker.run()


def setup_of(options: dict[str, Any], note: Any) -> Setup:
    """The setup of a process, broken where that is asked for; a worker notes when it can be told to stop."""
    if options["mutation"]:
        sabotage.apply(options["mutation"])
    if name := options.get("identity"):
        worker_module.identity = identities.identity = lambda: name
    setup = Setup(**options["setup"])
    setup.events.subscribe(LeaseLost, lambda lost: note("lost", owner=lost.owner, n=lost.running))
    setup.on("startup")(lambda: note("ready"))
    return setup


class Armed:
    """The point of this trial, to be put into the right process."""

    def __init__(self, options: dict[str, Any], note: Any) -> None:
        self._point = next((point for point in POINTS if point.name == options.get("point")), None)
        self._options = options
        self._note = note

    def arm_if(self, process: str) -> None:
        """Put it into this process, if it is meant."""
        if self._point is not None and self._point.process == process:
            options = self._options
            arm(self._point, Arms(self._point.name, options["action"], options["nth"], options["seconds"], self._first))

    def _first(self) -> bool:
        """Note that it goes off, if it has not yet in any process of this trial."""
        try:
            Path(f"{self._options['ledger']}-hit").touch(exist_ok=False)
        except FileExistsError:
            return False
        self._note("hit")
        return True

    def helper_of(self, setup: Setup) -> Any:
        """Start the helper; it and its cells are armed where they are meant."""
        serve, cell = helper._serve, helper._cell

        def armed_serve(*args: Any) -> None:
            self.arm_if("helper")
            serve(*args)

        def armed_cell(*args: Any) -> int:
            self.arm_if("cell")
            return cell(*args)

        helper._serve, helper._cell = armed_serve, armed_cell  # type: ignore[assignment]
        return helper.start(setup)


def supervise(options: dict[str, Any], armed: Armed) -> int:
    armed.arm_if("supervisor")
    words = [sys.executable, "-m", "tests.crash.victim", json.dumps(options)]

    def command(descriptor: int) -> Sequence[str]:
        return [*words, str(descriptor)]

    return supervising.Supervisor(command, os.environ, SystemClock()).run()


def be_zygote(options: dict[str, Any], control: int) -> int:
    """Fork workers; each of them returns from here at its end, too."""
    logging.basicConfig(level=logging.INFO, format=LINE, datefmt="%H:%M:%S")
    note = open_ledger(Path(options["ledger"])).note
    setup = setup_of(options, note)
    armed = Armed(options, note)
    armed.arm_if("zygote")
    birth = zygote.serve(setup, control)
    if birth is None:
        return 0
    armed.arm_if("child")
    return SupervisedWorker(setup, setup.config, Channel.of(birth.descriptor)).run()


def produce(setup: Setup, note: Any, *, once: bool) -> int:
    """Push job after job, and note of each that it is going to be pushed, and then what the push said."""
    client = Client(setup=setup)
    for number in range(PUSHES):
        push_noted(client, note, f"job-{number}", once=once)
    return 0


def push_noted(client: Client, note: Any, jid: str, *, once: bool) -> None:
    """Push one job; what it says is noted."""
    note("pushing", jid)
    try:
        client.push({"class": Quick, "args": [0], "jid": jid, "queue": "pushed"}, once=once)
    except (MaybeEnqueued, Injected):
        note(MAYBE, jid)
    except StoreError:
        note(REFUSED, jid)
    else:
        note(ACCEPTED, jid)


def fork_and_push(setup: Setup, note: Any, how: str) -> int:
    """Threads push; meanwhile processes are forked that push through the same client, and so does this one."""
    client = Client(setup=setup)
    push_noted(client, note, "first", once=False)
    over = threading.Event()

    def push_on(name: str) -> None:
        for number in range(PUSHES):
            push_noted(client, note, f"{name}-{number}", once=False)
        over.wait(0.01)

    threads = [threading.Thread(target=push_on, args=(f"thread-{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    codes = forked(client, note, how)
    for thread in threads:
        thread.join()
    push_noted(client, note, "last", once=False)
    return int(any(codes))


def forked(client: Client, note: Any, how: str) -> list[int]:
    """Two children that push; how they ended."""
    if how == "fork":
        children = []
        for n in range(2):
            if (pid := os.fork()) == 0:
                child_pushes(client, note, f"child-{n}", os.getppid())
                os._exit(0)
            children.append(pid)
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    context = multiprocessing.get_context("spawn" if how == "spawn" else "fork")
    setup = client.setup
    options = {"redis": {"url": setup.config.redis.url, "prefix": setup.config.redis.prefix}}
    words = (options, str(ledger().path))
    target, arguments = (spawned, words) if how == "spawn" else (child_pushes, (client, note, "", os.getpid()))
    processes = [context.Process(target=target, args=(*arguments,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode or 0 for process in processes]


def spawned(options: dict[str, Any], path: str) -> None:
    """A fresh interpreter has nothing of its parent's."""
    child_pushes(Client(setup=Setup(**options)), open_ledger(Path(path)).note, "", os.getppid())


def child_pushes(client: Client, note: Any, name: str, parent: int) -> None:
    """Push in a child, and note if a socket of it is one of its parent's that both would talk through."""
    name = name or f"child-{os.getpid()}"
    for number in range(PUSHES):
        push_noted(client, note, f"{name}-{number}", once=False)
    pools = client.setup.store._pools
    inodes = [os.fstat(line.sock.fileno()).st_ino for line in pools[os.getpid()]._free]
    for inode in set(inodes) & sockets_of(parent):
        note("shared", str(inode))


def sockets_of(pid: int) -> set[int]:
    """The inodes of the sockets that a process has open."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            name = str(path.readlink())
            if name.startswith("socket:["):
                found.add(int(name[8:-1]))
    return found


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.exit(be_zygote(told, int(sys.argv[2])) if sys.argv[2:] else main("worker", told))
