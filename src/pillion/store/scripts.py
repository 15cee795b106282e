"""The Lua scripts, loaded once per process from `lua/`, one file per verb.

The step, the one script that renews, settles and claims, stands in three parts in `lua/step/`. It has a seam for
features: an *effect* is a named Lua function body that runs with a settled claim, and only if the claim was still
held. A feature ships its own as `lua/effects/<name>.lua` or registers it with `add_effect`; deleting the feature's
file deletes the effect.

A line `--@ <name>` stands for `lua/shared/<name>.lua`, which several scripts need."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

_LUA = Path(__file__).parent / "lua"
_extra_effects: dict[str, str] = {}


class Script(msgspec.Struct, frozen=True):
    """A script's name, full text and the SHA-1 under which the server knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`; the step is put together from its parts in `lua/step/` and the effects."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, which programs that only define jobs need not pay for

    text = _step() if name == "step" else (_LUA / f"{name}.lua").read_text("utf-8")
    text = re.sub(r"^--@ (\w+)$", _shared, text, flags=re.MULTILINE)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def names() -> frozenset[str]:
    """The names of all scripts there are."""
    files = (entry.name for entry in _LUA.iterdir() if entry.name.endswith(".lua"))
    return frozenset({"step", *(name.removesuffix(".lua") for name in files)})


def load_all() -> None:
    """Load every script now. A worker that runs on while its package is replaced must not meet the new ones later."""
    for path in _LUA.glob("*.lua"):
        script(path.stem)
    script("step")


def _shared(line: re.Match[str]) -> str:
    return (_LUA / "shared" / f"{line[1]}.lua").read_text("utf-8")


def add_effect(name: str, body: str) -> None:
    """Register the Lua body of an effect: `keys`, `args` and `now` (server time, ms) are its locals.

    It runs inside the step before the claim is removed, and must write with `redis.pcall`, so that its failure leaves
    the settlement standing.
    """
    _extra_effects[name] = body
    script.cache_clear()


def _step() -> str:
    """The step in its three parts, with the effects between its first line and the rest."""
    parts = sorted((_LUA / "step").iterdir(), key=lambda part: part.name)
    shebang, _, rest = "".join(part.read_text("utf-8") for part in parts if part.name.endswith(".lua")).partition("\n")
    functions = [f"effects['{name}'] = function(keys, args, now)\n{body}\nend" for name, body in _effects().items()]
    return "\n".join([shebang, "local effects = {}", *functions, rest])


def _effects() -> dict[str, str]:
    shipped = {
        entry.name.removesuffix(".lua"): entry.read_text("utf-8")
        for entry in (_LUA / "effects").iterdir()
        if entry.name.endswith(".lua")
    }
    return dict(sorted((shipped | _extra_effects).items()))
