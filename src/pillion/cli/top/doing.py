"""What `pillion top` does to jobs, queues and workers: the same operations as everywhere, over one or several shards.

The screen asks before it calls `start`. An operation goes on in Redis if the terminal ends; whoever opens the
dashboard, or `pillion VERB --op ID`, goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pillion.api.audit import Audit
from pillion.api.driver import adrive
from pillion.api.operation import UNDOABLE, Operation, Verb
from pillion.api.operations import Operations, Preview
from pillion.api.processes import Process
from pillion.api.query import Query
from pillion.api.queue import Queue
from pillion.api.selection import Selection
from pillion.api.several import Several
from pillion.cli.acting import preview_text, result_text, who

Targets = Mapping[str, Query | Selection]


class Doing:
    """Acts for one person on some shards. `last` is what can be undone."""

    def __init__(self, several: Several) -> None:
        self.several = several
        self.by = who({"by": None})
        self.last: list[tuple[str, str]] = []

    async def previews(self, verb: Verb, targets: Targets) -> dict[str, Preview]:
        """What would be done on each shard."""
        return {
            shard: await Operations(self.several.client_of(shard)).apreview(verb, target)
            for shard, target in targets.items()
        }

    def told(self, previews: Mapping[str, Preview], now: float) -> str:
        """The same for people."""
        return "\n\n".join(
            (f"shard {shard}: " if len(previews) > 1 else "") + preview_text(preview, now)
            for shard, preview in previews.items()
        )

    async def start(self, verb: Verb, targets: Targets, on_progress: Callable[[str], None]) -> str:
        """Do it to the end, telling how far it is; returns what became of it."""
        started = [
            (shard, (await Operations(self.several.client_of(shard)).astart(verb, target, by=self.by)).id)
            for shard, target in targets.items()
        ]
        if verb in UNDOABLE:
            self.last = started
        return await self._drive(verb, started, on_progress)

    async def undo(self, on_progress: Callable[[str], None]) -> str:
        """Bring back what was done last."""
        names, self.last = self.last, []
        for shard, name in names:
            await Operations(self.several.client_of(shard)).aundo(name, by=self.by)
        return await self._drive("undo", names, on_progress)

    async def _drive(self, verb: str, names: list[tuple[str, str]], on_progress: Callable[[str], None]) -> str:
        def tell(now: Operation) -> None:
            on_progress(f"{verb}: {now.fraction:.0%} of {now.total:,}")

        done = [await adrive(name, self.several.client_of(shard), tell) for shard, name in names]
        return "; ".join(result_text(verb, each) for each in done)

    async def switch(self, name: str, paused: bool) -> str:
        """Pause a queue, or resume it where it is paused."""
        verb = "resume" if paused else "pause"
        for client in self.several.clients.values():
            queue = Queue(name, client)
            changed = await (queue.aresume() if paused else queue.apause())
            if changed:
                await Audit(client).anote(verb, by=self.by, filter=name)
        return f"{name} {'resumed' if paused else 'paused'}"

    async def signal(self, process: Process, verb: str) -> str:
        """Ask a worker to be `quiet` or to `stop`. Raises UsageError for one that is embedded."""
        ask: Any = process.aquiet if verb == "quiet" else process.astop
        await ask()
        await Audit(process.client).anote(verb, by=self.by, filter=process.identity)
        return f"{process.identity} hears it with its next beat, within 10 s"
