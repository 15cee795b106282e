"""What a worker does at one shard: claim and settle, promote, rescue, be seen. A worker has a station for each.

The jobs of all shards run in the same hands (`hands.py`), with the same chains and handlers. Everything that Redis
keeps is the shard's own: leases, the process row, counters. So a dashboard on one shard sees this process and what it
runs from there, and a shard that is away holds up none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pillion.config import Config
from pillion.running import Signals
from pillion.setup import Setup
from pillion.store.connection import Store
from pillion.worker.announcer import Announcer
from pillion.worker.executor import Executor
from pillion.worker.fetcher import Fetcher
from pillion.worker.hands import Hands
from pillion.worker.heartbeat import Heartbeat
from pillion.worker.isolation import Gate
from pillion.worker.poller import Poller
from pillion.worker.reaper import Reaper
from pillion.worker.run_log import RunLog
from pillion.worker.runner import Finished, Runner
from pillion.worker.service import Service
from pillion.worker.stacks import Stacks
from pillion.worker.stats import Stats


class Station:
    """The loops of one shard.

    Args:
        store: the shard's.
        crew: the hands and the runner of each capsule, the same at every station.
        shard: the shard's name, empty where there is only one; it becomes a part of the owners' names.
        settled: called with outcomes that are in Redis now.
        obey: called with a signal that a dashboard has sent.
        beat: called after each beat, with whether it was the first.
    """

    def __init__(
        self,
        store: Store,
        setup: Setup,
        config: Config,
        crew: Iterable[tuple[Hands, Runner]],
        announcer: Announcer,
        *,
        identity: str,
        shard: str,
        signals: Signals,
        gate: Gate,
        embedded: bool,
        settled: Callable[[Sequence[Finished]], None],
        obey: Callable[[str], None],
        beat: Callable[[bool], None],
    ) -> None:
        self.store = store
        self.stats = Stats()
        self.runs = RunLog(config) if config.run_log else None
        self._pass_on = settled
        self.fetchers = [
            Fetcher(
                store,
                Executor(hands, runner, config.clock),
                config,
                setup.registry,
                identity=identity,
                shard=shard,
                signals=signals,
                gate=gate,
                events=setup.events,
                settled=self._settled,
            )
            for hands, runner in crew
        ]
        executors = [fetcher.executor for fetcher in self.fetchers]
        self.stacks = Stacks(store, config, identity, executors)
        self.poller = Poller(store, setup, config, announcer.report)
        self.reaper = Reaper(store, config, setup.events, announcer.died)
        self.heartbeat = Heartbeat(
            store,
            config,
            self.stats,
            self.runs,
            executors,
            embedded=embedded,
            obey=obey,
            fleet=self._see_fleet,
            beat=beat,
        )

    @property
    def services(self) -> list[Service]:
        """The loops, in the order of starting."""
        return [*self.fetchers, self.heartbeat, self.poller, self.reaper, self.stacks]

    def quiet(self) -> None:
        """Claim no more jobs and give back those not started."""
        self.heartbeat.quiet = True
        self.poller.stop()
        for fetcher in self.fetchers:
            fetcher.quiet()

    def _settled(self, finished: Sequence[Finished]) -> None:
        self.stats.add(finished)
        if self.runs is not None:
            self.runs.add(finished)
        self._pass_on(finished)

    def _see_fleet(self, processes: int) -> None:
        self.poller.fleet = max(processes, 1)
        if self.runs is not None:
            self.runs.fleet = max(processes, 1)
        for fetcher in self.fetchers:
            fetcher.herd.fleet = max(processes, 1)
