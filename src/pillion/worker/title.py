"""The process title: what `ps` and `top` show of a worker, `pillion 1.0 shop [3 of 10 busy] stopping`.

Needs the extra `title` (setproctitle); without it the title stays what it was."""

from __future__ import annotations

from collections.abc import Callable

from pillion.config import Config
from pillion.version import __version__
from pillion.worker import identity


class Title:
    """Sets the title of this process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._set = _setter()

    def show(self, busy: int, *, stopping: bool) -> None:
        """Say how many jobs run, and whether new ones are taken."""
        if self._set is not None:
            self._set(title(self._config, busy, stopping=stopping))


def title(config: Config, busy: int, *, stopping: bool) -> str:
    """The words, as Sidekiq orders them."""
    words = ["pillion", __version__, identity.tag(config), f"[{busy} of {config.concurrency} busy]"]
    return " ".join(word for word in (*words, "stopping" * stopping) if word)


def _setter() -> Callable[[str], None] | None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    setter: Callable[[str], None] = setproctitle
    return setter
