"""The jobs of these tests, and the diary in which each run is noted. They run in workers inside the test's process."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pillion

PATIENCE = 20.0


class Diary:
    """What became of every job: the jids of those that started, ended and failed, in order.

    Attributes:
        go: until it is set, a `Lingers` stays.
        push: how a `Sends` pushes.
    """

    def __init__(self) -> None:
        self.push: Callable[[dict[str, Any]], object] = print
        self.go = threading.Event()
        self.facts: list[tuple[str, str]] = []

    def note(self, what: str) -> None:
        """Note something about the job that runs here."""
        running = pillion.current_job()
        assert running is not None
        self.facts.append((what, running.jid))

    def count(self, what: str) -> Counter[str]:
        """How often each jid has this fact."""
        return Counter(jid for fact, jid in list(self.facts) if fact == what)

    def clear(self) -> None:
        """Begin anew."""
        self.go.clear()
        self.facts.clear()


diary = Diary()


class NoJitter(random.Random):
    """Delays of retries without their random part."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0


class Errand(pillion.Job):
    """Does nothing."""

    def perform(self) -> None:
        diary.note("start")
        diary.note("end")


class Lingers(pillion.Job):
    """Stays until it may go."""

    def perform(self) -> None:
        diary.note("start")
        assert diary.go.wait(PATIENCE)
        diary.note("end")


class Stumbles(pillion.Job, retry=5):
    """Fails the first time."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: object) -> int:
        return 1

    def perform(self) -> None:
        diary.note("start")
        running = pillion.current_job()
        if running is not None and running.attempt == 1:
            raise ConnectionError("the first attempt fails")
        diary.note("end")


class Falls(pillion.Job, retry=0):
    """Fails for good."""

    def perform(self) -> None:
        diary.note("start")
        raise ValueError("it cannot be done")


class Rests(pillion.Job):
    """Comes back once, a moment later."""

    def perform(self) -> object:
        diary.note("start")
        running = pillion.current_job()
        if running is not None and diary.count("start")[running.jid] == 1:
            return pillion.snooze(0.01)
        diary.note("end")
        return None


class Sends(pillion.Job, retry=5):
    """Pushes another job, and fails if that is refused."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: object) -> int:
        return 1

    def perform(self) -> None:
        diary.note("start")
        diary.push({"class": Errand, "args": []})
        diary.note("end")
