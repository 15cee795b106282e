"""Who takes part: for each peer its file, its promise, and what it offers. The rest stands in the peer's file."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

AT_LEAST, AT_MOST = "at least once", "at most once"

EVERY = frozenset({"noop", "nap", "spin", "mix", "latency", "retry"})
SYNC = EVERY | {"enqueue"}
ASYNC = EVERY | {"aenqueue", "anap"}
SIDEKIQS = frozenset({"bulk", "half", "wire"})


@dataclass(frozen=True)
class Peer:
    """One competitor, or one way to run it.

    Attributes:
        name: as `--peers` takes it.
        app: its module in `bench/peers`, or its Ruby file.
        promise: what happens to a job whose worker dies.
        speed, pushes: rough guesses of jobs/s for drains and for pushes; they only size the samples.
        offers: which workloads it can run (`Workload.needs`); it is left out of the others. `wire` stands for
            Sidekiq's format.
        coroutine: the name of its job that waits on an event loop, if it has one.
        distributions: whose versions are told.
        keeps: whether the server keeps jobs that are done, as an untrimmed stream does.
    """

    name: str
    app: str
    promise: str
    speed: int
    pushes: int
    offers: frozenset[str]
    coroutine: str = ""
    distributions: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    keeps: bool = False

    @property
    def is_ruby(self) -> bool:
        return self.app.endswith(".rb")

    @property
    def is_ours(self) -> bool:
        return self.name == "pillion"

    @property
    def leads(self) -> bool:
        """Whether the figures to reach compare it: then it is measured more often."""
        return self.is_ruby or self.is_ours


def _python(
    name: str, promise: str, speed: int, pushes: int, offers: frozenset[str], *beside: str, keeps: bool = False
) -> Peer:
    coroutine = "nap" if "anap" in offers else ""
    names = (name, *beside)
    return Peer(name, f"{name}_app", promise, speed, pushes, offers | {"import"}, coroutine, names, keeps=keeps)


def _ruby(name: str, speed: int, offers: frozenset[str], flags: str) -> Peer:
    return Peer(name, "sidekiq_app.rb", AT_MOST, speed, 8_000, offers, environment={"RUBYOPT": flags})


OURS = SYNC | ASYNC | SIDEKIQS | {"import", "soak"}

PEERS = (
    Peer("pillion", "pillion_app", AT_LEAST, 90_000, 14_000, OURS, "anap", ("pillion", "redis", "hiredis")),
    _ruby("sidekiq", 15_000, SYNC | SIDEKIQS, "-W0"),
    _ruby("sidekiq-yjit", 18_000, frozenset({"noop", "spin", "enqueue", "bulk", "latency"}), "-W0 --yjit"),
    _python("dramatiq", AT_LEAST, 10_000, 5_200, SYNC | {"half"}, "redis"),
    _python("celery", AT_LEAST, 3_000, 2_400, SYNC, "kombu", "redis"),
    _python("rq", AT_LEAST, 260, 2_800, SYNC | {"bulk"}, "redis"),
    _python("huey", AT_MOST, 3_200, 8_000, SYNC, "redis"),
    _python("taskiq", AT_LEAST, 4_500, 3_500, ASYNC, "taskiq-redis", "redis", keeps=True),
    _python("saq", AT_LEAST, 2_000, 5_700, ASYNC, "redis"),
    _python("arq", AT_LEAST, 1_600, 2_500, ASYNC, "redis"),
    _python("streaq", AT_LEAST, 1_300, 3_500, ASYNC | {"bulk"}, "coredis"),
)
BY_NAME = {peer.name: peer for peer in PEERS}


def ruby_version(peer: Peer) -> str | None:
    """What a Ruby peer runs on, or None if this machine has it not."""
    flags = peer.environment.get("RUBYOPT", "").split()
    code = "require 'sidekiq'; print 'Sidekiq ', Sidekiq::VERSION, ', ', RUBY_DESCRIPTION"
    try:
        done = subprocess.run(["ruby", *flags, "-e", code], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
