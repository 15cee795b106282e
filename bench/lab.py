"""What every workload works with: the servers, the marks, how long a run may take, and how to start a peer.

with Lab(folder, seconds=1.5) as lab:
    lab.push(peer, "fill", "noop", "1000", "")
    with lab.worker(peer, "noop", 10) as worker:
        print(lab.drain(worker, 1000))
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import environments
from bench.catalog import Peer
from bench.measure import Marks, Processes, TooSlow
from bench.server import Server

Sample = dict[str, float]
Probe = Callable[[], float]


class Lab:
    """Open servers, and what the peers have in common.

    Attributes:
        seconds: about how long a peer is to be busy with one sample.
        quick: whether sizes that do not scale with speed (a million due jobs) are to be small as well.
        url: where the peers find the server; workloads put a proxy in between.
    """

    def __init__(self, folder: Path, seconds: float, *, quick: bool) -> None:
        self.folder, self.seconds, self.quick = folder, seconds, quick
        self._stack = ExitStack()
        self._servers: dict[bool, Server] = {}
        self.marks = Marks(folder / "marks")
        self.server = self.open_server(append_only=False)
        self.url = self.server.url

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *error: object) -> None:
        self.marks.close()
        self._stack.close()

    def open_server(self, *, append_only: bool) -> Server:
        """The server of that kind; started when first asked for."""
        if append_only not in self._servers:
            server = Server(self.folder / ("aof" if append_only else "memory"), append_only=append_only)
            self._stack.callback(server.close)
            self._servers[append_only] = server
        return self._servers[append_only]

    @contextmanager
    def at(self, server: Server, url: str | None = None) -> Iterator[None]:
        """Let peers talk to this server, through `url` if given, for the length of a block."""
        before = self.server, self.url
        self.server, self.url = server, url or server.url
        try:
            yield
        finally:
            self.server, self.url = before

    def size(self, speed: float, least: int = 200) -> int:
        """How many jobs keep a peer of that speed busy for a sample."""
        return max(least, int(speed * self.seconds) // 100 * 100)

    @property
    def patience(self) -> float:
        """Seconds to wait for what should take `seconds`."""
        return 30 + 12 * self.seconds

    def fresh(self) -> None:
        """An empty server, and no old marks."""
        self.server.empty()
        self.marks.clear()

    def push(self, peer: Peer, *words: str) -> None:
        """Run one of the peer's verbs to its end, past any proxy. Raises TooSlow."""
        with self.pushing(peer, *words) as process:
            self.told(words[0], process)

    def told(self, verb: str, process: subprocess.Popen[str]) -> Sample:
        """Wait for a verb's end; what it printed as JSON, if it did. Raises TooSlow."""
        try:
            out, err = process.communicate(timeout=self.patience + 60)
        except subprocess.TimeoutExpired:
            raise TooSlow(f"`{verb}` did not end") from None
        if process.returncode:
            raise TooSlow(f"`{verb}` failed: {(err.strip().splitlines() or ['?'])[-1]}")
        lines = out.strip().splitlines()
        figures: Sample = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return figures

    @contextmanager
    def pushing(self, peer: Peer, *words: str) -> Iterator[subprocess.Popen[str]]:
        """One of the peer's verbs while it runs; it is gone at the end."""
        environment = environments.environment(peer, self.server.url, self.marks.path)
        command, pipe = environments.command(peer, *words), subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, cwd=self.folder, stdout=pipe, stderr=pipe, text=True
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    @contextmanager
    def worker(self, peer: Peer, kind: str, concurrency: int, processes: int = 1) -> Iterator[Processes]:
        """The peer's worker, from its start to its end."""
        words = environments.command(peer, "worker", kind, str(concurrency), str(processes))
        environment = environments.environment(peer, self.url, self.marks.path)
        copies = processes if peer.is_ruby else 1
        running = Processes([words] * copies, environment, self.folder / f"{peer.name}.log")
        try:
            yield running
        finally:
            running.stop()

    def drain(self, worker: Processes, count: int, probes: Mapping[str, Probe] | None = None) -> Sample:
        """What a worker spends between the first and the last job of a filled queue, per job."""
        counters = {"cpu_us": lambda: worker.cpu() * 1e6, **(probes or {})}
        return self.between_marks(count, worker.is_alive, counters) | {"rss_mb": worker.rss()}

    def between_marks(self, count: int, alive: Callable[[], bool], counters: Mapping[str, Probe]) -> Sample:
        """Seconds from the mark `first` to the mark `last`, and by how much counters grew meanwhile, per job.

        The server's CPU and traffic are always among them. Raises TooSlow.
        """
        read = {"redis_us": lambda: self.server.cpu() * 1e6, "bytes": self.server.traffic, **counters}
        begun = self.marks.wait("first", self.patience, alive)
        before = {name: now() for name, now in read.items()}
        ended = self.marks.wait("last", self.patience, alive)
        grown = {name: (now() - before[name]) / count for name, now in read.items()}
        seconds = (ended - begun) / 1e9
        return {"jobs": count, "seconds": seconds, "rate": count / seconds, **grown}
