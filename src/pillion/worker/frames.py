"""Where a running job stands: its Python lines, read from another thread while it goes on.

Used by `stacks.py` when somebody asks. A thread's frames come from the interpreter; a task's from the chain of what its
coroutine awaits, which needs no help of the event loop, so one that a job holds up can be looked at too. Tasks that a
task waits for (`gather`, `TaskGroup`, `wait`, or one by itself) stand below it. No value of the job's variables is
read. What it sees is one moment, and the job may have moved on; what cannot be read is left out."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from traceback import StackSummary
from types import FrameType
from typing import Any, TypeAlias

import pillion
from pillion.log_format import base36, tid
from pillion.mask import mask_secrets
from pillion.store.stacks import Kind, Line, Stack
from pillion.worker.runner import Run

MOST_DEEP = 3
MOST_TASKS = 20
MOST_TEXT = 200
MOST_PATH = 500
LAST = 3 / 4  # of a stack that is cut, the lines near where it stands say more

Frames: TypeAlias = Mapping[int, FrameType]
Place: TypeAlias = tuple[FrameType, int, int]  # frame, line, depth

_OURS = f"{Path(pillion.__file__).parent}{os.sep}"
_BELOW = (threading.__file__, asyncio.base_events.__file__, asyncio.events.__file__, asyncio.runners.__file__)


def all_frames() -> Frames:
    """The innermost frame of every thread, now."""
    return sys._current_frames()  # pyright: ignore[reportPrivateUsage]


def thread_id(run: Run) -> str:
    """What a run's thread or task is called, as its log lines say."""
    thread = tid(run.thread, os.getpid())
    return thread if run.task is None else f"{thread}-{base36(run.claim.n)}"


def stack_of(run: Run, frames: Frames, seconds: float, most: int) -> Stack:
    """A run's stack of at most `most` lines. `frames` are those of all threads."""
    isolated = run.definition.isolation is not None
    places: list[Place] = []
    if run.task is not None:
        places = list(_of_task(run.task, _of_thread(frames.get(run.thread)), 0, {run.task}))
    elif not isolated and run.thread in frames:
        places = [(frame, line, 0) for frame, line in _of_thread(frames[run.thread])]
    places = _without_ours(places)
    first = max(most - int(most * LAST), 1)
    left_out = max(len(places) - most, 0)
    if left_out:
        places = places[:first] + places[first + left_out :]
    kind: Kind = "process" if isolated else "thread" if run.task is None else "task"
    jid, klass = run.running.jid, run.definition.name
    return Stack(jid, klass, run.claim.queue, kind, thread_id(run), seconds, list(_lines(places)), left_out)


def _of_thread(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    """The frames of a thread with their lines, outermost first."""
    found = []
    while frame is not None:
        found.append((frame, frame.f_lineno or 0))
        frame = frame.f_back
    return found[::-1]


def _of_task(
    task: asyncio.Task[Any], thread: list[tuple[FrameType, int]], depth: int, seen: set[Any]
) -> Iterator[Place]:
    """The frames of a task, outermost first, each task that it waits for below it. `thread` are those of its loop's."""
    chain = list(_awaits(task.get_coro()))
    start = next((i for i, (frame, _) in enumerate(thread) if chain and frame is chain[0][0]), None)
    if start is not None:  # it runs this very moment, perhaps in a function that holds up the loop
        chain = thread[start:]
    yield from ((frame, line, depth) for frame, line in chain)
    if depth >= MOST_DEEP or start is not None:
        return
    for child in _awaited(task, [frame for frame, _ in chain]):
        if child not in seen and len(seen) < MOST_TASKS:
            seen.add(child)
            yield from _of_task(child, thread, depth + 1, seen)


def _awaits(awaitable: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames of a coroutine and of what it awaits, and so on."""
    while awaitable is not None:
        for kind, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno or 0
                awaitable = getattr(awaitable, f"{kind}_{inner}", None)
                break
        else:
            return


def _awaited(task: asyncio.Task[Any], frames: list[FrameType]) -> list[asyncio.Task[Any]]:
    """The tasks that a task waits for. Until 3.14 asyncio does not tell; where it keeps them has not changed."""
    waiter = getattr(task, "_fut_waiter", None)
    found = [waiter, *_some(getattr(waiter, "_children", ()))]
    for frame in frames[-2:]:
        place, name = Path(frame.f_code.co_filename).name, frame.f_code.co_name
        if (place, name) == ("taskgroups.py", "__aexit__"):
            found += _some(getattr(frame.f_locals.get("self"), "_tasks", ()))
        elif (place, name) == ("tasks.py", "_wait"):
            found += _some(frame.f_locals.get("fs", ()))
    tasks = {each for each in found if isinstance(each, asyncio.Task) and not each.done()}
    return sorted(tasks, key=lambda task: (len(task.get_name()), task.get_name()))  # Task-9 before Task-10


def _some(tasks: Any) -> list[Any]:
    """A copy, as far as one can be made: the loop may be changing it."""
    try:
        return list(tasks)
    except (RuntimeError, TypeError):
        return []


def _without_ours(places: list[Place]) -> list[Place]:
    """The places from where the job's own code begins; all of them where there is none yet."""
    for i, (frame, _, _) in enumerate(places):
        file = frame.f_code.co_filename
        if not file.startswith(_OURS) and file not in _BELOW:
            return places[i:]
    return places


def _lines(places: Iterable[Place]) -> Iterator[Line]:
    places = list(places)
    summary = StackSummary.extract([(frame, line) for frame, line, _ in places], capture_locals=False)
    for told, (_, _, depth) in zip(summary, places, strict=True):
        source = mask_secrets((told.line or "")[:MOST_PATH])[:MOST_TEXT]
        yield Line(told.filename[-MOST_PATH:], told.lineno or 0, told.name[:MOST_TEXT], source, depth)
