"""The jobs of the fuzzed worker: they fail, ask and answer with whatever they were given.

They stand in a registry of their own, so that no other test meets them.
"""

from __future__ import annotations

from typing import Any

from pillion.define import define_class, define_function
from pillion.job import Job
from pillion.registry import Registry
from pillion.types import discard, snooze
from tests.fuzz.inputs import SECRETS


def registry() -> Registry:
    """The definitions behind `inputs.JOBS`."""
    made = Registry()
    hooks = {"retry_in": answers, "retries_exhausted": answers}
    made.register(define_function(echo, "Echo", (), {}, {}))
    made.register(define_function(fails, "Fails", (), {}, {"backtrace": True}))
    made.register(define_function(fits, "Fits", (), {}, {"retry": 3}))
    made.register(define_function(asks, "Asks", (), {}, {}))
    made.register(define_function(odd, "Odd", (), hooks, {}))
    made.register(define_class(Stub, "Stub", (), {}, {}))
    return made


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [args, kwargs]


def fails(*args: Any, **kwargs: Any) -> None:
    """An exception whose class and message are the job's arguments."""
    name = next((arg for arg in args if isinstance(arg, str) and arg not in SECRETS), "Failure")
    raise type(name, (Exception,), {})(*args)


def fits(number: int, *, text: str = "") -> None:
    if number is None:
        raise ValueError(text)


def asks(what: Any = None, *rest: Any) -> object:
    return snooze(what) if isinstance(what, int | float) else discard(what)


def odd(*args: Any, **kwargs: Any) -> None:
    raise BaseExceptionGroup("odd", [ValueError(args), KeyboardInterrupt()])


def answers(*args: Any) -> Any:
    """What `odd` wants to become of it: its own first argument."""
    job = next(arg for arg in args if isinstance(arg, dict))
    job["args"].append("changed by a block")
    return job["args"][0]


class Stub(Job):
    """Runs elsewhere."""
