"""Questions about what running jobs do, and the answers: values, and the ops that carry them through Redis.

The API asks (`api/stacks.py`), a worker answers (`worker/stacks.py`). A question stands in a list of the process's, an
answer in a list of the question's, so that one can wait for it; both expire by themselves. Nothing depends on them:
what is lost is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.store.keys import ASK_TTL, STACKS_TTL, Keyspace
from pillion.store.op import Command, Op
from pillion.store.ops import batch

Kind: TypeAlias = Literal["thread", "task", "process"]

MOST_QUESTIONS = 20


class Line(msgspec.Struct, frozen=True):
    """One line of a stack.

    Attributes:
        file, line, function: where.
        source: the line's text, secrets masked; "" where it cannot be read.
        depth: 0 for the job itself; tasks that it waits for stand one deeper, tasks that these wait for two.
    """

    file: str
    line: int
    function: str
    source: str
    depth: int = 0


class Stack(msgspec.Struct, frozen=True):
    """What one running job does.

    Attributes:
        jid, klass, queue: the job.
        kind: a `thread`, a `task` of the event loop, or a `process` of its own, into which one cannot look.
        thread: its name, as `Work.thread_id` has it.
        seconds: how long it has been running.
        lines: outermost first; the last of depth 0 is where it stands now.
        left_out: lines left out in the middle of a very deep stack.
    """

    jid: str
    klass: str
    queue: str
    kind: Kind
    thread: str
    seconds: float
    lines: list[Line]
    left_out: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What a process answered.

    Attributes:
        identity: which.
        at: when it looked, epoch seconds.
        stacks: one per running job, longest first; none where no such job runs there.
        left_out: running jobs for which there was no room.
    """

    identity: str
    at: float
    stacks: list[Stack]
    left_out: int = 0


class Question(msgspec.Struct, frozen=True):
    """A number under which the answer is wanted, and the job it is about, or None for all that run."""

    number: str
    jid: str | None = None


_question = msgspec.json.Decoder(Question).decode
_answer = msgspec.json.Decoder(Answer).decode


def ask(keys: Keyspace, identity: str, question: Question) -> Op[list[Any]]:
    """Put a question before a process. Of those that it does not take, the last 20 stand there for half a minute."""
    key, raw = keys.ask(identity), msgspec.json.encode(question)
    return batch([("RPUSH", key, raw), ("LTRIM", key, -MOST_QUESTIONS, -1), ("EXPIRE", key, ASK_TTL)], strict=True)


def look(keys: Keyspace, identity: str, *, wake: bool) -> Op[bool]:
    """Whether there is a question. With `wake` the connection is told of the next one (client tracking)."""
    caching: tuple[Command, ...] = (("CLIENT", "CACHING", "YES"),) if wake else ()
    return Op("look", (*caching, ("EXISTS", keys.ask(identity))), lambda replies: replies[-1] == 1, safe=True)


def take(keys: Keyspace, identity: str) -> Op[Question | None]:
    """The oldest question, which is gone then; None where there is none, or where it cannot be read."""
    return Op("take", (("LPOP", keys.ask(identity)),), lambda replies: _read(_question, replies[0]))


def answer(keys: Keyspace, number: str, found: Answer) -> Op[list[Any]]:
    """Answer a question, for a minute."""
    key = keys.stacks(number)
    return batch([("RPUSH", key, msgspec.json.encode(found)), ("EXPIRE", key, STACKS_TTL)], strict=True)


def read(keys: Keyspace, number: str) -> Op[Answer | None]:
    """The answer to a question, None where there is none (any more)."""
    return Op("read", (("LINDEX", keys.stacks(number), 0),), _answered, safe=True)


def wait(keys: Keyspace, number: str, seconds: float) -> Op[Answer | None]:
    """The same, and wait for it up to `seconds`: the list is turned by one place, which leaves it as it is."""
    key = keys.stacks(number)
    return Op("wait", (("BLMOVE", key, key, "LEFT", "LEFT", seconds),), _answered, safe=True)


def _answered(replies: Sequence[Any]) -> Answer | None:
    found: Answer | None = _read(_answer, replies[0])
    return found


def _read(decode: Any, raw: Any) -> Any:
    try:
        return None if raw is None else decode(raw)
    except (msgspec.MsgspecError, TypeError):
        return None
