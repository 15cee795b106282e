"""What the store must look like after each op: the scripts' contracts, kept on plain dictionaries of jids.

The machine in `machine.py` tells it every op that the server carried out, with its words and the time, and compares
what it then expects with what is there. It is written from the design and the scripts' headers, not from their bodies:
it knows nothing of the order of writes, of payload bytes or of Redis types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Claims: TypeAlias = dict[int, tuple[str, str]]
Places: TypeAlias = dict[str, Any]

FENCED, STALE = "FENCED", "STALE"
TRAY = 256
"""Claim n is the one at position n % 256 of tray n / 256; each queue of a step has a tray of its own."""


def jid_of(raw: bytes | str) -> str:
    return str(json.loads(raw)["jid"])


@dataclass
class Holder:
    """An owner's index: claim -> (queue, jid), and its lease's end in ms, None once it was fenced."""

    expiry: int | None
    concurrency: int
    generation: int = 1
    claims: Claims = field(default_factory=dict)
    marks: set[int] = field(default_factory=set)


@dataclass
class Reference:
    """The whole store. Queues are lists of jids as Redis has them: pushed at index 0, taken from the end."""

    queues: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=lambda: {"retry": {}, "schedule": {}, "dead": {}})
    paused: set[str] = field(default_factory=set)
    owners: dict[str, Holder] = field(default_factory=dict)
    fenced: set[str] = field(default_factory=set)
    salvage: set[str] = field(default_factory=set)
    pulse: tuple[int, int] | None = None
    crashes: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def apply(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Carry out one op; the reply it must have had, or None where nothing is said about it."""
        handler = getattr(self, f"_{name}", None)
        return handler(keys, args) if handler else None

    # -- owners ----------------------------------------------------------------------------------------------------

    def _join(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        owner, lease, now, concurrency = args
        if owner in self.fenced or owner in self.owners:
            return 0
        self.owners[owner] = Holder(now + lease, concurrency)
        self._beat(now, lease)
        return 1

    def _resync(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        owner, lease, now = args
        holder = self._valid(owner)
        if holder is None:
            return FENCED
        holder.expiry = now + lease
        holder.generation += 1
        self._beat(now, lease)
        return holder.generation, {n: queue for n, (queue, _) in holder.claims.items()}

    def _leave(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        holder = self.owners.get(args[0])
        if holder is not None and holder.claims:
            return 0
        self._forget(args[0])
        return 1

    def _mark(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        owner, n, _, before = args
        holder = self.owners.get(owner)
        if holder is None or holder.expiry is None or n not in holder.claims:
            return 0
        holder.marks = (holder.marks | {n}) - {before}
        return 1

    def _valid(self, owner: str) -> Holder | None:
        holder = self.owners.get(owner)
        return holder if holder is not None and holder.expiry is not None else None

    def _forget(self, owner: str) -> None:
        self.owners.pop(owner, None)
        self._let_pulse_end()

    # -- the step --------------------------------------------------------------------------------------------------

    def _step(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        owner, generation, lease, now, want, _, tray, nqueues, ntrays, nothers = args[:10]
        holder = self._valid(owner)
        if holder is None:
            return FENCED
        if generation < holder.generation:
            return STALE
        holder.expiry = now + lease
        self._beat(now, lease)
        rest = list(args[13:])
        shares = [(rest.pop(0), rest.pop(0)) for _ in range(nqueues)]
        settled: list[tuple[int, str, float]] = []
        for _ in range(ntrays):
            number, positions = rest.pop(0), rest.pop(0)
            settled += [(number * TRAY + position, "done", 0.0) for position in positions]
        destinations = [""] * len(settled) + list(keys[5 + nqueues + ntrays :][:nothers])
        for _ in range(nothers):
            n, verb, at, _ = (rest.pop(0) for _ in range(4))
            settled.append((n, verb, float(at or 0)))
        missed = []
        for (n, verb, at), destination in zip(settled, destinations, strict=True):
            if n in holder.claims:
                self._settle(holder, n, verb, at, destination)
            else:
                missed.append(n)
        return missed, self._claim(holder, want, tray, shares)

    def _settle(self, holder: Holder, n: int, verb: str, at: float, destination: str) -> None:
        queue, jid = holder.claims.pop(n)
        if verb in ("done", "drop"):
            self.gone.append(jid)
        elif verb == "requeue":
            self.queues.setdefault(queue, []).append(jid)
        else:
            self.sets[destination][jid] = at
        if verb != "done":
            holder.marks.discard(n)

    def _claim(self, holder: Holder, want: int, tray: int, shares: list[tuple[str, int]]) -> list[tuple[int, str, str]]:
        found: list[tuple[int, str, str]] = []
        free: dict[str, int] = {}
        looked = [(name, share) for name, share in shares if name not in self.paused]
        for most in (looked, [(name, want) for name, _ in looked]):
            for name, share in most:
                for _ in range(min(share, want - len(found), len(self.queues.get(name, [])))):
                    jid = self.queues[name].pop()
                    n = free.get(name) or (tray + len(free)) * TRAY
                    holder.claims[n] = (name, jid)
                    found.append((n, name, jid))
                    free[name] = n + 1
            if not found:
                break
        return found

    # -- rescue ----------------------------------------------------------------------------------------------------

    def _lapsed(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        now, lease, _ = args
        expired = {name for name, holder in self.owners.items() if holder.expiry is not None and holder.expiry <= now}
        return expired, set(self.salvage), self.steady(now, lease)

    def _fence(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        owner, now, lease, _ = args
        holder = self._valid(owner)
        if holder is None or holder.expiry is None:
            return int(owner in self.salvage)
        if lease != "" and (holder.expiry > now or not self.steady(now, lease)):
            return 0
        holder.expiry = None
        self.fenced.add(owner)
        self.salvage.add(owner)
        self._let_pulse_end()
        return 1

    def _salvage(self, keys: Sequence[str], args: Sequence[Any]) -> list[int]:
        owner, rest, moved = args[0], list(args[5:]), []
        holder = self.owners.get(owner)
        while rest:
            n, verb, counted, jid, at, _ = (rest.pop(0) for _ in range(6))
            if holder is None or n not in holder.claims:
                continue
            queue, held = holder.claims.pop(n)
            holder.marks.discard(n)
            moved.append(n)
            if verb == "return":
                self.queues.setdefault(queue, []).append(held)
                self.crashes[jid] = self.crashes.get(jid, 0) + counted
            else:
                assert self.crashes.pop(jid) >= 2, f"{jid} was buried before its third crash"
                self.sets["dead"][held] = float(at)
        if holder is None or not holder.claims:
            self.owners.pop(owner, None)
            self.salvage.discard(owner)
        return moved

    # -- what is due -----------------------------------------------------------------------------------------------

    def _promote(self, keys: Sequence[str], args: Sequence[Any]) -> list[int]:
        source, rest, results = self.sets[keys[0]], list(args[3:]), []
        while rest:
            member, score, verb, later, _, queue = (rest.pop(0) for _ in range(6))
            jid = jid_of(member)
            if source.get(jid) != float(score):
                results.append(0)
                continue
            results.append(1)
            if verb == "later":
                source[jid] = float(later)
                continue
            del source[jid]
            if verb == "push":
                self.queues.setdefault(queue, []).insert(0, jid)
            elif verb == "dead":
                self.sets["dead"][jid] = float(later)
            else:
                self.gone.append(jid)
        return results

    # -- the pulse -------------------------------------------------------------------------------------------------

    def steady(self, now: int, lease: int) -> bool:
        """Whether every owner that is alive has had a whole lease to renew in."""
        if self.pulse is None:
            return False
        last, since = self.pulse
        return last <= now <= last + lease / 2 and now - since >= lease

    def _beat(self, now: int, lease: int) -> None:
        unbroken = self.pulse is not None and 0 <= now - self.pulse[0] <= lease / 2
        self.pulse = (now, self.pulse[1] if self.pulse is not None and unbroken else now)

    def _let_pulse_end(self) -> None:
        if not any(holder.expiry is not None for holder in self.owners.values()):
            self.pulse = None

    # -- what can be seen ------------------------------------------------------------------------------------------

    def places(self) -> Places:
        """Everything there is, in the form in which `observe` reads it from a server."""
        return {
            "queues": {name: jids for name, jids in self.queues.items() if jids},
            "sets": self.sets,
            "paused": self.paused,
            "lease": {name: holder.expiry for name, holder in self.owners.items() if holder.expiry is not None},
            "claims": {name: holder.claims for name, holder in self.owners.items()},
            "generation": {name: holder.generation for name, holder in self.owners.items()},
            "fenced": self.fenced,
            "salvage": self.salvage,
            "pulse": self.pulse,
        }

    def whereabouts(self) -> list[str]:
        """Each job once per place it stands in, and once where it is rightly gone."""
        held = [jid for holder in self.owners.values() for _, jid in holder.claims.values()]
        waiting = [jid for jids in self.queues.values() for jid in jids]
        return [*held, *waiting, *(jid for members in self.sets.values() for jid in members), *self.gone]
