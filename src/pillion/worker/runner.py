"""From a claim to its outcome: decode, look up, wrap, call the user's code, decide. What a job's life is, in one place.

    begin(claim) -> Run or Finished          shared by both colours
    perform(run) | aperform(run)             the only place where the user's code is called, once per colour
    finish(run, result, error) -> Finished   shared by both colours

Executors call these three; nothing here touches Redis or another thread. A crash anywhere in between leaves the claim
in its tray, where a reaper finds it. Whatever a job raises becomes an outcome; only `Shutdown` means that it did not
end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Token
from typing import Any, NoReturn, TypeAlias

import msgspec

from pillion import activejob
from pillion.config import Config
from pillion.errors import ArgumentsError, BadPayload, PayloadError, UsageError
from pillion.events import JobStarted
from pillion.log import hold_level
from pillion.middleware import run_async, run_sync
from pillion.payload import decode, splice
from pillion.registry import Definition
from pillion.retry import NO_RULES, Rules, Verdict, decide, is_shutdown
from pillion.running import RunningJob, Signals, enter, leave
from pillion.setup import Setup
from pillion.types import (
    Claim,
    Dead,
    Discard,
    Done,
    Drop,
    Later,
    Outcome,
    Payload,
    Requeue,
    Settlement,
    Snooze,
)

DONE = Done()
REQUEUE = Requeue()


_Opened: TypeAlias = tuple[Token[RunningJob | None], Sequence[Token[Any]], Callable[[], None] | None]


class Run:
    """A job on its way through user code.

    Attributes:
        started: the steady clock's reading when it began.
        thread: ident of the thread that runs it, the event loop's for async jobs.
        task: the task of an async job.
    """

    __slots__ = ("claim", "definition", "payload", "running", "started", "task", "thread")

    def __init__(
        self, claim: Claim, payload: Payload, definition: Definition, running: RunningJob, started: float
    ) -> None:
        self.claim = claim
        self.payload = payload
        self.definition = definition
        self.running = running
        self.started = started
        self.thread = 0
        self.task: asyncio.Task[None] | None = None


class Failure(msgspec.Struct, frozen=True):
    """What a job raised and what was decided about it, for handlers and subscribers."""

    error: BaseException
    verdict: Verdict


class Finished(Settlement, frozen=True, gc=False):
    """A settlement on its way to the fetcher, with what handlers and counters will ask about it.

    Attributes:
        name: the job's class name, "" where it could not be read.
        elapsed: seconds it ran; negative if it did not run.
        payload: the decoded job, where somebody will ask for it.
        failure: what it raised.
        rejected: why its payload can never run.
        started: the steady clock's reading when it began; 0.0 if it did not run.
    """

    name: str = ""
    elapsed: float = -1.0
    payload: Payload | None = None
    failure: Failure | None = None
    rejected: str | None = None
    started: float = 0.0


class Runner:
    """Runs claims for one capsule. Holds no job: everything about one travels in its `Run`."""

    def __init__(self, setup: Setup, config: Config, signals: Signals, capsule: str = "default") -> None:
        self._setup = setup
        self._config = config
        self._signals = signals
        self._clock = config.clock
        self._events = setup.events
        self._carrier = setup.carrier
        self._get = setup.registry.get
        self._middleware = tuple(setup.server_chain(capsule))
        self._sync_middleware = tuple(entry for entry in self._middleware if not entry.is_async)
        self.isolate: Callable[[Run], Callable[..., Any]] = _nowhere

    def begin(self, claim: Claim, started: float) -> Run | Finished:
        """Decode a claim and find its definition. `started` is the steady clock's reading."""
        try:
            payload = decode(claim.raw)
        except BadPayload as bad:
            return Finished(claim, Dead(self._clock.now(), claim.raw), rejected=bad.reason)
        definition = self._get(payload["class"])
        if definition is None:
            return self._begin_wrapped(claim, payload, started)
        return self._run(claim, payload, definition, started)

    def _begin_wrapped(self, claim: Claim, payload: Payload, started: float) -> Run | Finished:
        """A job of a class that nobody registered: perhaps Rails wrapped one that somebody did."""
        registry = self._setup.registry
        definition = activejob.find(registry, payload["class"], payload.get("wrapped"))
        if definition is None:
            return self._fail(claim, payload, None, activejob.unknown(registry, payload), started)
        try:
            payload = activejob.unwrap(payload)
        except PayloadError as error:
            return self._fail(claim, payload, definition, error, started)
        return self._run(claim, payload, definition, started)

    def _run(self, claim: Claim, payload: Payload, definition: Definition, started: float) -> Run:
        running = RunningJob(claim, payload, definition, self._signals, started=started, home=self._setup)
        return Run(claim, payload, definition, running, started)

    def perform(self, run: Run) -> tuple[Any, BaseException | None]:
        """Call a sync job here, inside its context and middleware: (result, None) or (None, what it raised)."""
        opened = self._open(run)
        try:
            self._announce_start(run)
            instance, perform = run.definition.start(run.running)
            if run.definition.isolation is not None:
                perform = self.isolate(run)
            payload = run.payload
            if self._sync_middleware:
                call = _bind(perform, payload)
                return run_sync(self._sync_middleware, instance, payload, run.claim.queue, call), None
            kwargs = payload.get("kwargs")
            return (perform(*payload["args"], **kwargs) if kwargs else perform(*payload["args"])), None
        except BaseException as error:
            return None, error
        finally:
            self._close(opened)

    async def aperform(self, run: Run) -> tuple[Any, BaseException | None]:
        """The same for an async job, in a task of its own."""
        opened = self._open(run)
        try:
            self._announce_start(run)
            instance, perform = run.definition.start(run.running)
            call = _bind(perform, run.payload)
            if self._middleware:
                return await run_async(self._middleware, instance, run.payload, run.claim.queue, call), None
            return await call(), None
        except BaseException as error:
            return None, error
        finally:
            self._close(opened)

    def finish(self, run: Run, result: Any, error: BaseException | None) -> Finished:
        """The outcome of a run. A shutdown or a cancelled task puts the job back; whatever else it raised failed it."""
        elapsed = self._clock.steady() - run.started
        if error is None and type(result) not in (Later, Drop):
            effects = tuple(run.running.effects) if run.running.effects else ()
            claim, name, started = run.claim, run.definition.name, run.started
            return Finished(claim, DONE, effects, name, elapsed, run.payload, None, None, started)
        if error is None:
            return self._as_asked(run, result, elapsed)
        if is_shutdown(error) or (isinstance(error, asyncio.CancelledError) and self._signals.leaving):
            return Finished(run.claim, REQUEUE, (), run.definition.name, elapsed, run.payload)
        error = _misfit(run, error) or error
        return self._fail(run.claim, run.payload, run.definition, error, run.started)

    def fail(self, claim: Claim, error: Exception) -> Finished:
        """The outcome of a claim with which we could not deal: a failure, or the dead set if that is no way either."""
        try:
            payload = decode(claim.raw)
            return self._fail(claim, payload, self._get(payload["class"]), error, self._clock.steady())
        except Exception:
            return Finished(claim, Dead(self._clock.now(), claim.raw), rejected=f"{type(error).__name__}: {error}")

    def _open(self, run: Run) -> _Opened:
        """Make the job current here: its own context, the variables it carries, its own log level."""
        token = enter(run.running)
        carried = self._carrier.restore(run.payload) if self._carrier else ()
        held = hold_level(run.payload["log_level"]) if "log_level" in run.payload else None
        return token, carried, held

    def _close(self, opened: _Opened) -> None:
        token, carried, held = opened
        if held is not None:
            held()
        if carried:
            self._carrier.reset(carried)
        leave(token)

    def _as_asked(self, run: Run, asked: Later | Drop, elapsed: float) -> Finished:
        """A job that returned `snooze(...)` or `discard(...)`."""
        outcome: Outcome
        if isinstance(asked, Drop):
            outcome = Discard(asked.reason)
        else:
            at = self._clock.now() + max(asked.seconds, 0.0)
            outcome = Snooze(at, splice(run.claim.raw, {}, remove=("enqueued_at",)))
        effects = tuple(run.running.effects)
        return Finished(run.claim, outcome, effects, run.definition.name, elapsed, run.payload, started=run.started)

    def _fail(
        self, claim: Claim, payload: Payload, definition: Definition | None, error: BaseException, started: float
    ) -> Finished:
        rules = Rules(definition.retry_in, definition.retries_exhausted) if definition else NO_RULES
        options = definition.options if definition else None
        verdict = decide(claim.raw, payload, claim.queue, error, rules, self._config, options)
        name = definition.name if definition else activejob.real_name(payload["class"], payload.get("wrapped"))
        elapsed = self._clock.steady() - started
        failure = Failure(error, verdict)
        return Finished(claim, verdict.outcome, (), name, elapsed, payload, failure, started=started)

    def _announce_start(self, run: Run) -> None:
        if self._events.wanted(JobStarted):
            running = run.running
            self._events.emit(
                JobStarted(
                    jid=running.jid,
                    name=running.name,
                    queue=running.queue,
                    attempt=running.attempt,
                    payload=run.payload,
                )
            )


def _nowhere(run: Run) -> NoReturn:
    raise UsageError(
        f"{run.definition.name} wants a process of its own, which only `pillion worker` can give it; take its queue "
        "from this worker, or define it without isolation"
    )


def _bind(perform: Callable[..., Any], payload: Payload) -> Callable[[], Any]:
    args, kwargs = payload["args"], payload.get("kwargs")
    return (lambda: perform(*args, **kwargs)) if kwargs else (lambda: perform(*args))


def _misfit(run: Run, error: BaseException) -> ArgumentsError | None:
    """What to say instead, if the call of the job failed and not the job: user code had not begun."""
    signature, trace = run.definition.signature, error.__traceback__
    kwargs = run.payload.get("kwargs") or {}
    if type(error) is not TypeError or signature is None or trace is None or not isinstance(kwargs, dict):
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    if trace.tb_frame.f_code.co_filename != _bind.__code__.co_filename:
        return None
    return signature.misfit(run.payload["args"], kwargs)
