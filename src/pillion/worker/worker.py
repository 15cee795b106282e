"""A worker process, put together: who exists, in what order they start, and how they stop.

    Worker
    ├── Station per shard
    │     ├── Fetcher per capsule (Tenure -> Session)   claims and settles
    │     │     └── Executor (Hands, LoopThread)        runs
    │     ├── Poller       moves what is due
    │     ├── Reaper       rescues the dead's jobs
    │     └── Heartbeat    is seen, hears signals, flushes Stats
    ├── Announcer    handlers and subscribers       ├── Watchdog   notices what is stuck
    └── Systemd, Title   tell the machine around it

Stopping keeps one promise: a claim is settled, or back in its queue before its job is interrupted. At the deadline
running jobs are given back first, then interrupted, then get three seconds for their `finally` blocks; then the
process leaves, whatever still hangs. If it is killed instead, leases do the same work later."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from pillion.config import Config
from pillion.errors import ConfigError
from pillion.given import closest
from pillion.plain import shown
from pillion.running import RunningJob, Signals
from pillion.setup import Setup
from pillion.setup import default as default_setup
from pillion.silence import silence
from pillion.store.scripts import load_all
from pillion.worker.announcer import Announcer
from pillion.worker.hands import Hands
from pillion.worker.hooks import Hooks
from pillion.worker.identity import identity
from pillion.worker.isolation import Gate
from pillion.worker.loop import LoopThread
from pillion.worker.reloading import runner_for
from pillion.worker.runner import Finished
from pillion.worker.service import Service
from pillion.worker.station import Station
from pillion.worker.systemd import Systemd
from pillion.worker.title import Title
from pillion.worker.wakeup import Wakeup
from pillion.worker.watchdog import EXIT_STUCK, Watchdog, stacks

if TYPE_CHECKING:
    from pillion.worker.isolated.pool import Pool

log = logging.getLogger("pillion")

GRACE = 3.0
GIVE_BACK = 5.0
LOOK = 0.01
JOIN = 2.0
EMBEDDED_CONCURRENCY = 2
HANDLED = ("TERM", "INT", "TSTP", "TTIN")


class Worker:
    """Runs the jobs of one `Setup`.

    `run()` is for a process of its own: it takes over signals and blocks. Embedded in another program, use `start()`,
    `quiet()` and `stop()`, which touch no signal and never end the process.
    """

    def __init__(self, setup: Setup | None = None, config: Config | None = None, *, embedded: bool = False) -> None:
        self.setup = setup or default_setup
        self.config = config or _config_of(self.setup, embedded=embedded)
        _insist_on_capsules(self.setup, self.config)
        _insist_on_handlers(self.setup)
        silence(self.config)
        self.identity = identity()
        self.signals = Signals()
        self._embedded = embedded
        self._loop = LoopThread()
        self._hooks = Hooks(self.setup, self._loop)
        self._systemd = Systemd({} if embedded else os.environ)
        self._title = None if embedded else Title(self.config)
        self._inbox: SimpleQueue[str] = SimpleQueue()
        self._wakeup: Wakeup | None = None
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._stopped: list[str] | None = None
        self._pool: Pool | None = None
        self._exit_code = 0
        load_all()
        self._build()

    def _build(self) -> None:
        setup, config = self.setup, self.config
        gate, several = Gate(), len(setup.shards) > 1
        self._announcer = Announcer(setup, config, self._hooks)
        crew = [
            (Hands(capsule, setup.registry, self._loop), runner_for(setup, config, self.signals, capsule.name))
            for capsule in config.capsules
        ]
        self.stations = [
            Station(
                shard.store,
                setup,
                config,
                crew,
                self._announcer,
                identity=self.identity,
                shard=shard.name if several else "",
                signals=self.signals,
                gate=gate,
                embedded=self._embedded,
                settled=self._settled,
                obey=self._hear,
                beat=_nothing if place else self._after_beat,
            )
            for place, shard in enumerate(setup.shards)
        ]
        self.fetchers = [fetcher for station in self.stations for fetcher in station.fetchers]
        places = [shard.settings for shard in setup.shards]
        self._patience = max(place.timeout for place in places)
        attempt = max(place.connect_timeout + 2 * place.timeout for place in places)
        self._watchdog = Watchdog(self.fetchers, config.lease, config.clock, embedded=self._embedded, attempt=attempt)

    def use(self, pool: Pool) -> None:
        """Run jobs that ask for a process of their own through this pool. Before `start`."""
        self._pool = pool
        pool.on_lost = self._lose_helper
        for fetcher in self.fetchers:
            fetcher.executor.runner.isolate = pool.isolate

    def _lose_helper(self) -> None:
        self._exit_code = EXIT_STUCK
        self._hear("TERM")

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fire `startup` and start every loop. What a startup function raises passes through, and nothing runs."""
        try:
            self._hooks.startup()
        except BaseException:
            self._loop.stop(JOIN)
            raise
        for service in self._services():
            service.start()
        self._show_title()
        self._systemd.ready()

    def quiet(self) -> None:
        """Claim no more jobs and give back those not started. Running jobs go on. Cannot be undone."""
        with self._lock:
            if self.signals.stopping:
                return
            self.signals.stopping = True
        for station in self.stations:
            station.quiet()
        self._show_title()
        self._hooks.fire("quiet")

    def stop(self, timeout: float | None = None) -> list[str]:
        """Stop within `timeout` seconds (the configured ones if None) plus a short grace.

        Returns the names of threads whose job would not end; their jobs are back in their queues.
        """
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            self._stopped = []
        steady = self.config.clock.steady
        deadline = steady() + (self.config.timeout if timeout is None else timeout)
        self._systemd.ending()
        self.quiet()
        self._hooks.fire("shutdown")
        if not self._wait(self._drained, deadline - steady(), self._hurry):
            self._evict()
        self._stopped = self._stuck()
        self._end()
        self._hooks.fire("exit")
        self._loop.stop(JOIN)
        return self._stopped

    def run(self) -> int:
        """Run until told to stop by a signal; returns the exit code. For the main thread of a worker process."""
        restore = self._take_signals()
        try:
            self.start()
            self._say_running()
            while (name := self._next_signal()) not in ("TERM", "INT"):
                self._obey(name)
            log.info("stopping: running jobs have %g s", self.config.timeout)
            stuck = self._stop_listening()
            if stuck:
                log.warning("these threads did not end; their jobs are back in their queues: %s", ", ".join(stuck))
            return self._exit_code
        finally:
            restore()

    def _say_running(self) -> None:
        log.info("pillion is running: %s", self.identity)

    def _stop_listening(self) -> list[str]:
        """Stop, and take a second signal as: now."""
        listener = threading.Thread(target=self._listen_while_stopping, name="pillion.signals", daemon=True)
        listener.start()
        return self.stop()

    def _listen_while_stopping(self) -> None:
        while True:
            name = self._inbox.get()
            if name == "INT":
                log.warning("stopping now: unfinished jobs go back to their queues")
                self._hurry.set()
            elif name != "TERM":
                self._obey(name)

    def _hear(self, name: str) -> None:
        self._inbox.put(name)
        if self._wakeup is not None:
            self._wakeup.wake()

    def _next_signal(self) -> str:
        """Wait for a signal, from the system or from a dashboard. For the main thread."""
        while self._wakeup is not None:
            try:
                return self._inbox.get_nowait()
            except Empty:
                self._wakeup.sleep()
        return self._inbox.get()

    def _obey(self, name: str) -> None:
        if name == "TSTP":
            log.info("quiet: no new jobs are taken")
            self.quiet()
        elif name == "TTIN":
            log.warning("all threads, as asked by TTIN:\n%s", stacks())

    def _take_signals(self) -> Callable[[], None]:
        before = {name: signal.getsignal(getattr(signal, f"SIG{name}")) for name in HANDLED}

        def handler(number: int, frame: FrameType | None) -> None:
            name = signal.Signals(number).name.removeprefix("SIG")
            earlier = before.get(name)
            if callable(earlier) and earlier is not signal.default_int_handler:
                earlier(number, frame)
            self._inbox.put(name)

        self._wakeup = wakeup = Wakeup()
        for name in HANDLED:
            signal.signal(getattr(signal, f"SIG{name}"), handler)

        def restore() -> None:
            for name, earlier in before.items():
                signal.signal(getattr(signal, f"SIG{name}"), earlier or signal.SIG_DFL)
            wakeup.restore()

        return restore

    # -- stopping --------------------------------------------------------------------------------------------------

    def _evict(self) -> None:
        """Give running jobs back, then interrupt them, then let them clean up for a moment."""
        self.signals.leaving = True
        running = [run.running for fetcher in self.fetchers for run in list(fetcher.executor.running.values())]
        for fetcher in self.fetchers:
            fetcher.evict()
        if not self._wait(lambda: all(fetcher.evicted.is_set() for fetcher in self.fetchers), GIVE_BACK):
            log.error("could not give all running jobs back; they come back when our lease has run out")
        for job in running:
            log.info("time is up: put back to queue %s and interrupted", job.queue, extra=_about(job))
        for fetcher in self.fetchers:
            fetcher.executor.interrupt()
        self._wait(lambda: not any(fetcher.executor.busy for fetcher in self.fetchers), GRACE)

    def _end(self) -> None:
        for fetcher in self.fetchers:
            fetcher.executor.end()
        services = self._services()[::-1]
        for service in services:
            if service is not self._announcer:
                service.stop()
        deadline = self.config.clock.steady() + JOIN + self._patience
        for service in services:
            left = max(deadline - self.config.clock.steady(), 0.0)
            if service is not self._announcer and not service.join(left):
                log.warning("%s did not end in time", service.name)
        self._announcer.stop()
        if not self._announcer.join(JOIN):
            log.warning(
                "%d handlers and subscribers were not called: those before them took too long", self._announcer.left
            )

    def _services(self) -> list[Service]:
        watched = [self._systemd] if self._systemd.is_watching else []
        pool = [self._pool] if self._pool is not None else []
        loops = [service for station in self.stations for service in station.services]
        return [self._announcer, *pool, *loops, self._watchdog, *watched]

    def _drained(self) -> bool:
        return all(fetcher.drained for fetcher in self.fetchers)

    def _stuck(self) -> list[str]:
        return [name for fetcher in self.fetchers for name in fetcher.executor.stuck()]

    def _wait(self, done: Callable[[], bool], seconds: float, hurry: threading.Event | None = None) -> bool:
        """Wait until `done()`, at most so long, or until hurried. Returns what `done()` says at the end."""
        deadline = self.config.clock.steady() + seconds
        pause = hurry or threading.Event()
        while not done():
            if self.config.clock.steady() >= deadline or pause.wait(LOOK):
                return done()
        return True

    # -- what the rooms tell each other ----------------------------------------------------------------------------

    def _settled(self, finished: Sequence[Finished]) -> None:
        self._announcer.settled(finished)

    def _after_beat(self, first: bool) -> None:
        self._show_title()
        if first:
            self._hooks.fire("heartbeat")
        self._hooks.fire("beat")

    def _show_title(self) -> None:
        if self._title is not None:
            busy = sum(fetcher.executor.busy for fetcher in self.fetchers)
            self._title.show(busy, stopping=self.signals.stopping)


def _nothing(_first: bool) -> None:
    """The process beats once for all its shards."""


def _config_of(setup: Setup, *, embedded: bool) -> Config:
    """The setup's configuration. Inside another program, whose threads want to run too, two jobs at once are enough."""
    resolved = setup.resolved
    if not embedded or "concurrency" in resolved.sources:
        return resolved.config
    default, *others = resolved.config.capsules
    small = msgspec.structs.replace(default, concurrency=EMBEDDED_CONCURRENCY)
    return msgspec.structs.replace(resolved.config, capsules=(small, *others))


def _insist_on_capsules(setup: Setup, config: Config) -> None:
    names = [capsule.name for capsule in config.capsules]
    for name in setup.own_capsules:
        if name not in names:
            close = closest(name, names)
            cure = f"did you mean `{close}`?" if close else f"known are {', '.join(names)}"
            raise ConfigError(f"capsule `{name}` has middleware, but there is none of this name; {cure}")


def _insist_on_handlers(setup: Setup) -> None:
    for name, handlers in (("error_handlers", setup.error_handlers), ("death_handlers", setup.death_handlers)):
        for handler in handlers:
            if not callable(handler):
                raise ConfigError(f"{name}: expected functions, got {shown(handler)}; append the function itself")


def _about(job: RunningJob) -> dict[str, Any]:
    """The fields of a log line about a job of another thread."""
    return {"pillion": {"jid": job.jid, "class": job.name, "queue": job.queue}}
