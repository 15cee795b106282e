"""Runs every job inside the configured `reloader`, which may load changed code, open a session, or both.

`reloader` makes a context manager. The job is looked up again inside of it, so that what was reloaded is what runs.
What the job raises passes through it; if it swallows that, the job counts as done. Async jobs use the same one, on the
event loop, where it must not block. Without a reloader this class is not used, so it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pillion import activejob
from pillion.config import Config
from pillion.running import Signals
from pillion.setup import Setup
from pillion.worker.runner import Run, Runner


class ReloadingRunner(Runner):
    """A `Runner` with a reloader around each run."""

    def __init__(
        self,
        setup: Setup,
        config: Config,
        signals: Signals,
        capsule: str,
        reloader: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        super().__init__(setup, config, signals, capsule)
        self._reloader = reloader

    def perform(self, run: Run) -> tuple[Any, BaseException | None]:
        result = None
        try:
            with self._reloader():
                self._look_up_again(run)
                result = _unpacked(super().perform(run))
        except BaseException as error:
            return None, error
        return result, None

    async def aperform(self, run: Run) -> tuple[Any, BaseException | None]:
        result = None
        try:
            with self._reloader():
                self._look_up_again(run)
                result = _unpacked(await super().aperform(run))
        except BaseException as error:
            return None, error
        return result, None

    def _look_up_again(self, run: Run) -> None:
        found = activejob.find(self._setup.registry, run.payload["class"], run.payload.get("wrapped"))
        if found is not None and found.is_async == run.definition.is_async:
            run.definition = found


def _unpacked(ended: tuple[Any, BaseException | None]) -> Any:
    result, error = ended
    if error is not None:
        raise error
    return result


def runner_for(setup: Setup, config: Config, signals: Signals, capsule: str) -> Runner:
    """The runner of one capsule: a plain one, or one with the configured reloader."""
    if config.reloader is None:
        return Runner(setup, config, signals, capsule)
    return ReloadingRunner(setup, config, signals, capsule, config.reloader)
