"""What an operation takes away, kept for an undo: how a parked copy looks, and how much of them is kept.

A copy is a line that says where the job stood, and then its exact bytes. For ten minutes after the end of an operation
they are kept, 64 MB of one operation and 128 MB of all; of one that takes away more nothing is kept, and it says so."""

from __future__ import annotations

import msgspec

from pillion.api.faces import Face, Plan, ask
from pillion.errors import BadPayload
from pillion.payload import splice
from pillion.store import operations
from pillion.store.keys import MAX_OPERATIONS
from pillion.store.operations import Return

MOST_BYTES = 64_000_000
MOST_BYTES_OF_ALL = 128_000_000


def header(place: str, at: str) -> bytes:
    """The line before a parked job: the name of its place, and its score or how far from the head it stood."""
    return msgspec.json.encode([place, at]) + b"\n"


def unparked(face: Face, copy: bytes, verb: str, to: str) -> Return:
    """How to put a parked copy back."""
    line, _, raw = copy.partition(b"\n")
    place, at = msgspec.json.decode(line, type=tuple[str, str])
    state, _, queue = place.partition(":")
    kind = "queue" if state == "queued" else "set"
    other = b""
    if verb == "kill":
        kind = f"dead-{kind}"
    elif verb == "move":
        kind, other = f"moved-{kind}", meant_for(raw, to)
    home = face.keys.queue(queue) if queue else set_key(face, state)
    return Return(copy, len(line) + 1, kind, home, queue, at, other)


def meant_for(raw: bytes, queue: str) -> bytes:
    """A job that is moved to another queue: only its `queue` differs. What is no JSON stays as it is."""
    try:
        return splice(raw, {"queue": queue})
    except BadPayload:
        return raw


def set_key(face: Face, state: str) -> str:
    """The key of a set by the name of its state."""
    return {"scheduled": face.keys.schedule, "retry": face.keys.retry}.get(state, face.keys.dead)


def plan_room(face: Face) -> Plan[int]:
    """How many bytes an operation that begins now may park. O(200), two exchanges."""
    recent = yield from ask(operations.recent(face.keys, MAX_OPERATIONS))
    records = yield from ask(operations.look(face.keys, recent))
    kept = 0
    for record in records:
        fields = record.fields
        until = int(fields.get("undo_until", "0")) / 1000
        if fields.get("parking") == "1" and (until > record.now or fields.get("state") in ("running", "paused")):
            kept += int(fields.get("bytes", "0"))
    return max(0, min(MOST_BYTES, MOST_BYTES_OF_ALL - kept))
