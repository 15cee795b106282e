"""Where running jobs stand just now: `Stacks().show(identity)` gives the Python lines of each, within about a second.

The question is put into Redis, where a connection of the worker that listens for it hears of it at once
(`worker/stacks.py`); the answer stands there for a minute. Nothing is asked of the job, of the event loop, or of the
threads that claim and settle, so a worker that hangs answers too. Ruby's processes do not answer. Answers hold no
values of variables; secrets in source lines are masked as in logs."""

from __future__ import annotations

import math

from pillion.api.faces import Face, Plan, faces
from pillion.api.faces import ask as put
from pillion.store import stacks
from pillion.store.stacks import Answer, Kind, Line, Question, Stack

__all__ = ["Answer", "Kind", "Line", "Stack", "Stacks"]

LONGEST_WAIT = 1.0


class Stacks(Face):
    """Asks worker processes what their jobs do."""

    def plan_ask(self, identity: str, jid: str | None = None) -> Plan[str]:
        """Ask a process for the stack of one job, or of all that it runs; returns the number to `read` with. O(1).

        A process that does not take the question within half a minute will not answer it.
        """
        number = str(self.config.new_jid())
        yield from put(stacks.ask(self.keys, identity, Question(number, jid)))
        return number

    ask, aask = faces(plan_ask)

    def plan_read(self, number: str) -> Plan[Answer | None]:
        """The answer to a question of the last minute, or None where there is none yet. O(1)."""
        return (yield from put(stacks.read(self.keys, number)))

    read, aread = faces(plan_read)

    def plan_show(self, identity: str, jid: str | None = None, patience: float = 2.0) -> Plan[Answer | None]:
        """Ask and wait for the answer; None where none has come within `patience` seconds.

        O(1), in two exchanges or a few more. Meanwhile it holds one connection of the pool.
        """
        number = yield from self.plan_ask(identity, jid)
        rounds = max(1, math.ceil(patience / min(LONGEST_WAIT, self.client.store.settings.timeout / 2)))
        for _ in range(rounds):
            answer = yield from put(stacks.wait(self.keys, number, max(patience / rounds, 0.001)))
            if answer is not None:
                return answer
        return None

    show, ashow = faces(plan_show)
