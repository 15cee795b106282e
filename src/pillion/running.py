"""What a job can know about its own run, and which of the caller's variables travel with it.

A worker makes one `RunningJob` per run and keeps it current in a `ContextVar` while user code runs, so `current_job()`
answers in threads and in tasks alike. A `Carrier` copies chosen context variables of the pushing code into the payload
(key `ctx`) and back around `perform`; `Setup` owns the list, the client dumps, the worker restores.

Nothing here talks to Redis or decides anything: `interrupted()` and `lost()` read two facts that the worker writes into
the `Signals` it shares with all its jobs. A crash leaves nothing, since nothing here outlives the process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import msgspec

from pillion.errors import ConfigError
from pillion.plain import check_plain, shown
from pillion.types import Claim, Effect, Payload

if TYPE_CHECKING:
    from pillion.registry import Definition
    from pillion.setup import Setup

CONTEXT_KEY = "ctx"
MAX_LEVELS = 50
INLINE = ("inline", 0)
"""The token of every run that no worker holds."""


class Signals:
    """What a worker tells all its running jobs at once. The worker writes, jobs only read.

    Attributes:
        stopping: the worker has begun to stop.
        leaving: jobs that are still running have been given back and are being interrupted.
        lost_owners: owners whose lease ran out while jobs of theirs were still running.
    """

    __slots__ = ("leaving", "lost_owners", "stopping")

    def __init__(self) -> None:
        self.stopping = False
        self.leaving = False
        self.lost_owners: set[str] = set()


class RunningJob(msgspec.Struct, frozen=True, eq=False):
    """One run of one job, as the job itself may see it. Made once per run, so everything derived is a property.

    Attributes:
        claim: how this process holds the job.
        payload: the decoded job. Changes to it are seen by this run's middleware only, never by a retry.
        definition: the registry entry that runs it.
        signals: what the worker tells its jobs.
        started: the steady clock's reading when it began; None where nobody measures.
        home: the setup that runs it.
        effects: a feature's own writes that are to happen with this run's acknowledgement, and only then.
    """

    claim: Claim
    payload: Payload
    definition: Definition
    signals: Signals
    effects: list[Effect] = []
    started: float | None = None
    home: Setup | None = None

    @classmethod
    def inline(cls, payload: Payload, definition: Definition, home: Setup | None = None) -> RunningJob:
        """A run that no worker holds: `perform_inline` and tests. Never interrupted, never lost."""
        return cls(Claim(*INLINE, payload["queue"], b""), payload, definition, Signals(), home=home)

    @property
    def jid(self) -> str:
        """The job's id, the same in every attempt."""
        jid: str = self.payload["jid"]
        return jid

    @property
    def name(self) -> str:
        """The name it is defined under here; the payload may say one of its aliases."""
        return self.definition.name

    @property
    def options(self) -> dict[str, Any]:
        """The options of its definition (`queue`, `retry`, `tags`, keys of your own); a push may have set others."""
        return self.definition.options

    @property
    def queue(self) -> str:
        """The queue it was taken from."""
        return self.claim.queue

    @property
    def capsule(self) -> str:
        """The capsule that runs it; "" outside of a worker."""
        place = self.claim.owner.rpartition("/")[2].rpartition(".")[0]
        return place.partition("@")[0]

    @property
    def attempt(self) -> int:
        """1 in the first run, 2 in the first retry, and so on: the wire's `retry_count` is absent, then 0, then 1."""
        count = self.payload.get("retry_count")
        return count + 2 if type(count) is int else 1

    @property
    def token(self) -> tuple[str, int]:
        """(owner, number) of the claim: no two runs of a job share one, so it can fence writes to other systems."""
        return (self.claim.owner, self.claim.n)

    def interrupted(self) -> bool:
        """True once the job should come to an end: the worker is stopping, or the lease is lost."""
        return self.signals.stopping or self.lost()

    def lost(self) -> bool:
        """True once the lease ran out: somebody else may run this job now, and this run's outcome will not count."""
        return self.claim.owner in self.signals.lost_owners

    def __repr__(self) -> str:
        return f"<RunningJob {self.name} {self.payload.get('jid')} attempt {self.attempt}>"


_current: ContextVar[RunningJob | None] = ContextVar("pillion_current_job", default=None)


def current_job() -> RunningJob | None:
    """The job that the calling thread or task is running, or None outside of a job."""
    return _current.get()


def enter(running: RunningJob) -> Token[RunningJob | None]:
    """Make `running` the current job of this thread or task; give the token to `leave` in the same one."""
    return _current.set(running)


def leave(token: Token[RunningJob | None]) -> None:
    """Put back what was current before `enter`."""
    _current.reset(token)


_promoted: ContextVar[Payload | None] = ContextVar("pillion_promoted", default=None)


@contextmanager
def promoting(payload: Payload) -> Generator[None]:
    """For this block, `payload` is a stored job that is on its way through client middleware again."""
    token = _promoted.set(payload)
    try:
        yield
    finally:
        _promoted.reset(token)


def is_promotion(job: Payload) -> bool:
    """For client middleware: whether `job` is not pushed by a program, but was stored and now goes to its queue.

    True for a scheduled or failed job that has become due, or that somebody sends on, and only for that one: what the
    middleware itself pushes meanwhile is a first push. `job` is the mapping that the middleware was given.
    """
    return _promoted.get() is job


_log_fields: ContextVar[Mapping[str, Any] | None] = ContextVar("pillion_log_fields", default=None)


@contextmanager
def context(**fields: Any) -> Generator[None]:
    """Add fields to the context of every line that is logged in this block, and by what it calls or awaits."""
    token = _log_fields.set({**log_fields(), **fields})
    try:
        yield
    finally:
        _log_fields.reset(token)


def log_fields() -> Mapping[str, Any]:
    """The fields that the blocks of `context` around the caller have added."""
    return _log_fields.get() or {}


class Carrier:
    """The context variables that travel with every job, in the payload's `ctx` under their own names.

    An empty carrier is false, so that callers skip it: `if carrier: carrier.dump(payload)`.
    """

    def __init__(self, variables: Iterable[ContextVar[Any]] = ()) -> None:
        self._variables: dict[str, ContextVar[Any]] = {}
        self.add(*variables)

    def add(self, *variables: ContextVar[Any]) -> None:
        """Carry these too; adding one again changes nothing.

        Raises:
            ConfigError: it is no context variable, or another one of the same name is carried already.
        """
        check_variables("carry", variables)
        for variable in variables:
            if self._variables.setdefault(variable.name, variable) is not variable:
                raise ConfigError(
                    f"carry: expected names of context variables to be unique, got a second {variable.name!r}; "
                    "create one of the two under another name"
                )

    def dump(self, payload: Payload) -> None:
        """Put the values that are set here into `payload["ctx"]`, unless it has one: a retry keeps its first caller's.

        Raises:
            PayloadError: a value is not plain JSON; the message names the variable.
        """
        if CONTEXT_KEY in payload:
            return
        values = dict(self._present())
        if values:
            payload[CONTEXT_KEY] = values

    def _present(self) -> Iterator[tuple[str, Any]]:
        for name, variable in self._variables.items():
            value = variable.get(_UNSET)
            if value is _UNSET:
                continue
            check_plain(value, name, f"context variable {name!r}", MAX_LEVELS)
            yield name, value

    def restore(self, payload: Payload) -> list[Token[Any]]:
        """Set the variables from `payload["ctx"]`; give the tokens to `reset` in the same thread or task.

        Names that are not carried here, and a `ctx` of a strange shape, are passed over: the payload is foreign input.
        """
        values = payload.get(CONTEXT_KEY)
        if not isinstance(values, dict):
            return []
        known = self._variables
        return [known[name].set(value) for name, value in values.items() if name in known]

    def reset(self, tokens: Iterable[Token[Any]]) -> None:
        """Put the variables back to what they were before `restore`."""
        for token in tokens:
            token.var.reset(token)

    def __len__(self) -> int:
        return len(self._variables)


def check_variables(owner: str, variables: Iterable[object]) -> None:
    """Refuse what is no context variable; `owner` is what it was given to.

    Raises:
        ConfigError: the message shows what was given.
    """
    for variable in variables:
        if not isinstance(variable, ContextVar):
            raise ConfigError(
                f"{owner}: expected the context variable itself, got {shown(variable)}; "
                'make one with ContextVar("name"), and pass that'
            )


_UNSET: Any = object()
