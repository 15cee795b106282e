"""Answers those who ask what running jobs do just now: `Stacks` of the API, and the button on the dashboard.

A worker has a connection for this at each shard, and a thread that sleeps on it. It asks the server once to be told of
changes of one key, the list of questions for this process (client tracking), and is woken by the first: an idle worker
sends nothing but one look in half a minute, in case word got lost. Where a server cannot tell, it looks every second.

It stands apart from everything that runs jobs, so it answers while a fetcher hangs, the event loop is held up, or the
worker is stopping; and whatever goes wrong here costs an answer, nothing else. A question that was taken by a process
that then died is not answered, and the one who asked asks again."""

from __future__ import annotations

import logging
import os
import select
import weakref
from collections.abc import Sequence

import msgspec

from pillion.config import Config
from pillion.errors import StoreError
from pillion.store import stacks
from pillion.store.connection import Store
from pillion.store.stacks import Answer, Question, Stack
from pillion.worker.executor import Executor
from pillion.worker.frames import all_frames, stack_of
from pillion.worker.runner import Run
from pillion.worker.service import Service

log = logging.getLogger("pillion")

LOOK_EVERY = 30.0
LOOK_OFTEN = 1.0
AGAIN_AFTER = 5.0
MOST_STACKS = 50
MOST_LINES, MOST_LINES_OF_ONE = 40, 200
MOST_BYTES = 256_000


class Stacks(Service):
    """Listens for questions at one shard and answers them about the jobs of these executors."""

    name = "stacks"

    def __init__(self, store: Store, config: Config, identity: str, executors: Sequence[Executor]) -> None:
        super().__init__()
        self._store = store
        self._config = config
        self._identity = identity
        self._executors = executors
        self._session = store.session("stacks")
        self._told = False
        self._wake_in, self._wake_out = os.pipe()
        end = weakref.finalize(self, _close, self._wake_in, self._wake_out)
        end.atexit = False

    def stop(self) -> None:
        super().stop()
        os.write(self._wake_out, b"!")

    def turn(self) -> float:
        """Answer all questions there are; returns how long to sleep if nobody asks another."""
        try:
            if not self._session.is_open:
                self._session.open()
                self._told = self._session.track()
            while self._session.call(stacks.look(self._store.keys, self._identity, wake=self._told), looks=True):
                self._answer(self._session.call(stacks.take(self._store.keys, self._identity)))
        except StoreError as error:
            log.debug("stacks: not listening for questions just now: %s", error)
            self._session.close()
            return AGAIN_AFTER
        return LOOK_EVERY if self._told else LOOK_OFTEN

    def wait(self, seconds: float) -> None:
        """Sleep until there is a question, or the worker stops."""
        session = self._session
        try:
            if session.is_open and session.heard():
                return
            poll = select.poll()
            poll.register(self._wake_in, select.POLLIN)
            if session.is_open:
                poll.register(session.fileno(), select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(seconds * 1000)]
            if ready and self._wake_in not in ready:
                session.changed()
        except StoreError as error:
            log.debug("stacks: lost the connection: %s", error)

    def after(self) -> None:
        self._session.close()

    def _answer(self, question: Question | None) -> None:
        if question is not None:
            found = answer(self._identity, self._executors, self._config, question.jid)
            self._session.call(stacks.answer(self._store.keys, question.number, found))


def answer(identity: str, executors: Sequence[Executor], config: Config, jid: str | None) -> Answer:
    """What the jobs that run do just now, or the one with this jid."""
    runs = [(executor, run) for executor in executors for run in list(executor.running.values())]
    wanted = [pair for pair in runs if jid is None or pair[1].running.jid == jid]
    wanted.sort(key=lambda pair: pair[1].started)
    frames, now = all_frames(), config.clock.steady()  # after the runs: else they could be of the jobs before these
    most = MOST_LINES_OF_ONE if jid is not None else MOST_LINES
    found: list[Stack] = []
    room = MOST_BYTES
    for executor, run in wanted[:MOST_STACKS]:
        stack = stack_of(run, frames, max(now - run.started, 0.0), most)
        room -= len(msgspec.json.encode(stack))
        if room < 0:
            break
        if _is_running(executor, run):  # else they may be of the job after it
            found.append(stack)
    return Answer(identity, config.clock.now(), found, max(len(wanted) - len(found), 0))


def _is_running(executor: Executor, run: Run) -> bool:
    return executor.running.get(run.claim.n) is run


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
