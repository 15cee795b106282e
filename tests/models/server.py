"""The bridge between the model and a real server: moves the scripts' clock, breaks connections, reads what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import redis

from pillion.config import RedisSettings
from pillion.errors import Ambiguous
from pillion.store.connection import Session, Store
from pillion.store.keys import Keyspace
from pillion.store.ops import Op
from pillion.store.scripts import Script
from tests.models.reference import TRAY, Places, jid_of

T = TypeVar("T")
Fate: TypeAlias = Literal["ok", "lost", "never", "late"]
"""What becomes of a request: answered; carried out but the answer is lost; gone on its way; arrives much later."""

NOW_AT = {"join": 2, "step": 3, "resync": 2, "fence": 1, "lapsed": 0, "salvage": 1, "due": 0}
"""Where a script's own idea of the time stands among its arguments."""


class Change(msgspec.Struct, frozen=True):
    """A fault put into one script, to see that it is found."""

    script: str
    old: str
    new: str


class Wire:
    """Everything the machine sends goes through here.

    Attributes:
        now: the server's time, seconds; only the machine moves it.
        change: the fault in the scripts, if any.
        told: called with each op that the server carried out, and its result.
        fates: what becomes of the next calls of sessions, "ok" when empty.
        late: ops that have left and will arrive when the machine lets them.
    """

    def __init__(self, url: str, told: Callable[[Op[Any], Any], None], now: float, change: Change | None) -> None:
        self.now = now
        self.change = change
        self.told = told
        self.fates: list[Fate] = []
        self.late: list[Op[Any]] = []
        self.settings = RedisSettings(url=url)
        self.store = TimedStore(self)

    def timed(self, op: Op[T]) -> Op[T]:
        """The op with the driven time among its words, and the fault in its script."""
        if op.script is None:
            return op
        words, body = list(op.commands[-1]), op.script
        if body.name in NOW_AT:
            place = 3 + int(words[2]) + NOW_AT[body.name]
            words[place] = self.now if body.name == "due" else round(self.now * 1000)
        if self.change is not None and self.change.script == body.name:
            assert self.change.old in body.text, f"{body.name} does not hold {self.change.old!r} any more"
            body = broken(body, self.change)
            words[1] = body.sha
        return msgspec.structs.replace(op, commands=(*op.commands[:-1], tuple(words)), script=body)

    def deliver(self, number: int) -> None:
        """Let one of the late ops arrive; nobody hears the answer."""
        self.store.run(self.late.pop(number))


def broken(script: Script, change: Change) -> Script:
    """A script with a fault in it, under a name of its own on the server."""
    import hashlib

    text = script.text.replace(change.old, change.new)
    return Script(script.name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class TimedStore(Store):
    """A store during whose ops something else can happen: `interruption` is (before which op, what)."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.settings)
        self._wire = wire
        self.interruption: tuple[int, Callable[[], None]] | None = None

    def run(self, op: Op[T]) -> T:
        if self.interruption is not None:
            left, what = self.interruption
            self.interruption = (left - 1, what) if left else None
            if not left:
                what()
        timed = self._wire.timed(op)
        result = super().run(timed)
        self._wire.told(timed, result)
        return result

    def session(self, role: str = "fetcher") -> Session:
        return BrittleSession(self._wire)


class BrittleSession(Session):
    """A session whose requests meet the fates that the machine has laid out for them."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.settings)
        self._wire = wire

    def call(self, op: Op[T], *, looks: bool = False) -> T:
        fate = self._wire.fates.pop(0) if self._wire.fates else "ok"
        if fate == "late" and op.script is not None:
            self._wire.late.append(op)
        if fate not in ("ok", "lost"):
            self.close()
            raise Ambiguous("the request did not come through", [None])
        timed = self._wire.timed(op)
        result = super().call(timed, looks=looks)
        self._wire.told(timed, result)
        if fate == "lost":
            self.close()
            raise Ambiguous("the answer was lost", [None])
        return result


def observe(client: redis.Redis, keys: Keyspace, queues: tuple[str, ...]) -> Places:
    """What stands on the server, in the words of the reference."""
    found = client.pipeline(transaction=False)
    for queue in queues:
        found.lrange(keys.queue(queue), 0, -1)
    for key in (keys.retry, keys.schedule, keys.dead, keys.lease, keys.fenced, keys.salvage):
        found.zrange(key, 0, -1, withscores=True)
    found.smembers(keys.paused).hgetall(keys.pulse).keys(keys.index("*"))
    *lists, retry, schedule, dead, lease, fenced, salvage, paused, pulse, ours = found.execute()
    names = [key.decode() for key in ours]
    indexes, trays = _claims(client, keys, [name for name in names if not name.rpartition(":")[2].isdigit()])
    assert len(names) == len(indexes) + trays, "a tray that no index knows of"
    return {
        "queues": {q: [jid_of(raw) for raw in raws] for q, raws in zip(queues, lists, strict=True) if raws},
        "sets": {
            name: {jid_of(raw): at for raw, at in members}
            for name, members in (("retry", retry), ("schedule", schedule), ("dead", dead))
        },
        "paused": {name.decode() for name in paused},
        "lease": {name.decode(): int(at) for name, at in lease},
        "claims": {owner: claims for owner, (_, claims) in indexes.items()},
        "generation": {owner: generation for owner, (generation, _) in indexes.items()},
        "fenced": {name.decode() for name, _ in fenced},
        "salvage": {name.decode() for name, _ in salvage},
        "pulse": (int(pulse[b"last"]), int(pulse[b"since"])) if pulse else None,
    }


def _claims(
    client: redis.Redis, keys: Keyspace, names: list[str]
) -> tuple[dict[str, tuple[int, dict[int, tuple[str, str]]]], int]:
    """By owner its generation and claims, and how many trays there are in all."""
    found: dict[str, tuple[int, dict[int, tuple[str, str]]]] = {}
    trays = 0
    for name in names:
        owner, fields = name.removeprefix(keys.index("")), client.hgetall(name)
        claims: dict[int, tuple[str, str]] = {}
        for field, value in fields.items():
            if not field.isdigit():
                continue
            tray, (states, _, queue) = int(field), value.partition(b" ")
            held = client.lrange(keys.tray(owner, tray), 0, -1)
            assert len(held) == len(states), f"tray {tray} of {owner} holds {len(held)} payloads, its index {states!r}"
            places = [place for place, state in enumerate(states) if state == ord("1")]
            claims |= {tray * TRAY + place: (queue.decode(), jid_of(held[place])) for place in places}
            trays += 1
        found[owner] = (int(fields[b"g"]), claims)
    return found, trays
