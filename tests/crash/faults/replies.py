"""Requests that the server executed, and whose reply is lost: nobody can tell them from those that it never saw."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from pillion.store.scripts import script
from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Fault, Needs
from tests.proxy import Mischief, Trap, When, Words

MISCHIEFS: tuple[Mischief, ...] = ("lose_reply", "cut_reply", "swallow_reply", "close_early")
SPRUNG_WITHIN = 1.0


def calls(name: str) -> Callable[[Words], bool]:
    """Whether a request calls this script."""
    sha = script(name).sha.encode()
    return lambda words: words[0] == b"EVALSHA" and words[1] == sha


def settles(words: Words) -> bool:
    """A step that carries an outcome."""
    if not calls("step")(words):
        return False
    arguments = words[3 + int(words[2]) :]
    return int(arguments[8]) + int(arguments[9]) > 0


def claims(words: Words, reply: Any) -> bool:
    """A step that brings a job, or may."""
    return calls("step")(words) and (reply is None or (isinstance(reply, list) and bool(reply[3])))


def pushes(words: Words) -> bool:
    return words[0] == b"LPUSH"


EXCHANGES: dict[str, When] = {
    "any step": lambda words, _: calls("step")(words),
    "a step that settles": lambda words, _: settles(words),
    "a step that claims": claims,
    "what is due": lambda words, _: calls("promote")(words) or calls("due")(words),
    "a push": lambda words, _: pushes(words),
    "a push by jid": lambda words, _: calls("push_once")(words),
    "a look for the dead": lambda words, _: calls("lapsed")(words),
    "anything": lambda words, reply: True,
}
SHARES = (15, 25, 25, 8, 6, 4, 4, 13)


class LostReply(Fault):
    """One to three replies of any exchange are lost, cut or swallowed; sometimes that of the re-sync after it, too."""

    id, title = "T4", "executed, and the reply lost, cut or swallowed"
    trials, short = 3000, True
    needs = Needs(proxy=True)

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        assert bed.proxy is not None
        traps: list[Trap] = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            what, mischief = rng.choices(list(EXCHANGES), SHARES)[0], rng.choice(MISCHIEFS)
            bed.plan(f"{what}: {mischief}")
            traps.append(bed.proxy.trap(mischief, EXCHANGES[what]))
        if rng.random() < 0.25:
            bed.plan("and a re-sync: lose_reply")
            bed.proxy.trap("lose_reply", lambda words, _: calls("resync")(words))
        for trap in traps:
            trap.sprung.wait(SPRUNG_WITHIN)

    def heal(self, bed: ChaosBed) -> None:
        assert bed.proxy is not None
        if not bed.proxy.disarm():
            bed.plan("one of them sprang not")
