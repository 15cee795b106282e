"""What a worker and the process of one run say to each other: one `Order`, at most a few words, one `Answer`.

The order is JSON, for a job is. The answer holds what Python code returned or raised, pickled: it comes from a process
that the worker has forked and that runs the same code, over a socket that nobody else has.
"""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from pillion.errors import ProcessCrashed
from pillion.types import Effect

STOPPING = b"stopping"
LOST = b"lost"


class Order(msgspec.Struct, frozen=True):
    """A run to perform.

    Attributes:
        name: the definition's name.
        owner, n, queue: the claim, which the worker goes on holding.
        payload: the job as middleware has left it.
        started: the steady clock's reading when the run began; that clock is the host's.
        max_memory: most bytes of memory, None for no limit.
    """

    name: str
    owner: str
    n: int
    queue: str
    payload: msgspec.Raw
    started: float
    max_memory: int | None


class Answer(msgspec.Struct, frozen=True):
    """How it ended. `pickled` is (result, error, effects); `told` says the same to people, should it not be readable.

    Attributes:
        frames: the error's frames, the raising one first.
    """

    pickled: bytes
    told: str
    frames: list[str]


def pack(result: Any, error: BaseException | None, effects: list[Effect], frames: list[str]) -> bytes:
    """An answer as bytes. What cannot be pickled is told in words."""
    told = repr(error) if error is not None else f"its result is a {type(result).__qualname__}"
    try:
        pickled = pickle.dumps((result, error, effects))
    except Exception as reason:
        if error is None:  # nobody but middleware looks at a result
            pickled = pickle.dumps((None, None, effects))
        else:
            pickled, told = b"", f"{told} ({type(reason).__name__} when it was pickled)"
    return msgspec.msgpack.encode(Answer(pickled, told[:10_000], frames))


def unpack(data: bytes) -> tuple[Any, BaseException | None, list[Effect], list[str]]:
    """(result, error, effects, frames) from an answer's bytes."""
    answer = msgspec.msgpack.decode(data, type=Answer)
    try:
        result, error, effects = pickle.loads(answer.pickled)  # noqa: S301 - our own child, our own socket
    except Exception:  # an exception with a constructor of its own kind, most often
        strange = ProcessCrashed(f"the job failed with what cannot cross processes: {answer.told}")
        return None, strange, [], answer.frames
    return result, error, effects, answer.frames
