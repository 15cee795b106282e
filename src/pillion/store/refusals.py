"""The server's error replies as exceptions, with what to do about each. Used by `exchange.py`, and by pushes by jid."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pillion.errors import QueueFull, Refused
from pillion.store.scripts import Script

_ONE_SLOT = "; a Redis Cluster spreads keys over its nodes: keep to one slot with redis.prefix = '{s0}'"
CURES = {
    "MOVED": f"{_ONE_SLOT}, and name some of its nodes in redis.cluster, so that the one that holds it is found",
    "ASK": "; the slot of this shard is moving to another node: it can be used again when it has arrived",
    "CROSSSLOT": _ONE_SLOT,
    "READONLY": "; connect to the primary, or name the Sentinels (redis.sentinels and redis.master)",
    "MISCONF": "; make room on its disk, or repair what its log complains of: until it can save it takes no writes",
    "BUSY": "; somebody's script runs without end: whoever looks after the server can stop it with SCRIPT KILL",
    "NOREPLICAS": "; bring its replicas back, or lower its min-replicas-to-write",
}
"""What to do about a refusal, by its code."""

_FORBIDDEN = re.compile("NOPERM|ACL failure in script|The user executing the script can't")
_ANONYMOUS = re.compile(r"can't run this command or subcommand(?: script: \w+, on @user_script:(\d+))?")
_VERB = re.compile(r"redis\.p?call\('([A-Z]+)'")
ALLOW = "; allow it to the user of this address: `pillion acl` prints what each kind of user needs"


def refusal(name: str, reply: str, accepted: Sequence[bool] = (), script: Script | None = None) -> Refused:
    """The exception for an error reply; `script` is what the server ran."""
    reply = reply.partition(", with args beginning with")[0]  # what follows may be a job's arguments
    if reply.startswith("OOM") or " OOM " in reply:
        return QueueFull(
            f"the server's memory is full and it takes no new jobs ({name}): {reply}; "
            "raise maxmemory, let workers drain the queues, or remove what is not needed",
            accepted,
        )
    return Refused(f"the server refused {name}: {_named(reply, script)}{cure_of(reply)}", accepted)


def is_forbidden(reply: str) -> bool:
    """Whether an ACL said no."""
    return _FORBIDDEN.search(reply) is not None


def cure_of(reply: str) -> str:
    """What to do about an error reply, as the end of a sentence; empty where nothing is known."""
    if is_forbidden(reply):
        return ALLOW
    return next((cure for code, cure in CURES.items() if reply.startswith(code)), "")


def _named(reply: str, script: Script | None) -> str:
    """The reply with the command that is not allowed; within a script Redis 7.0 tells only on which line it stands."""
    found = _ANONYMOUS.search(reply)
    if not found or not found[1] or script is None:
        return reply
    verbs = _VERB.findall(script.text.splitlines()[int(found[1]) - 1])
    return f"{reply} ({' or '.join(dict.fromkeys(verb.lower() for verb in verbs))})" if verbs else reply
