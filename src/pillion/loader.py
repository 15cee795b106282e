"""Running something when a part of Pillion is loaded, for those who extend a part that most processes never load.

    @pillion.on_load("worker")
    def instrument() -> None: ...

`worker` is the engine: it is loaded by `pillion worker`, and by a program that runs a worker inside itself. `api`
is `pillion.api`, `testing` is `pillion.testing`. A function runs once, in the thread that loads the part, or at once
where it is loaded already. What it raises passes through."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pillion.errors import ConfigError

F = TypeVar("F", bound=Callable[[], object])

PARTS = ("worker", "api", "testing")

_lock = threading.Lock()
_waiting: dict[str, list[Callable[[], object]]] = {part: [] for part in PARTS}
_loaded: set[str] = set()


def on_load(part: str) -> Callable[[F], F]:
    """Register a function for the moment when a part is loaded. Raises ConfigError for one that nobody knows."""
    if part not in PARTS:
        raise ConfigError(f"on_load: expected one of {', '.join(PARTS)}, got {part!r:.80}")

    def register(fn: F) -> F:
        with _lock:
            if part not in _loaded:
                _waiting[part].append(fn)
                return fn
        fn()
        return fn

    return register


def loaded(part: str) -> None:
    """Say that a part is loaded; called at the end of its module."""
    with _lock:
        _loaded.add(part)
        waiting, _waiting[part] = _waiting[part], []
    for fn in waiting:
        fn()
