"""Writes down which jobs Redis handed to one Ruby process and which of them the process gave back.

BRPOP and the poller of Sidekiq 6.4 take a job out of Redis: from then on nothing there says who has it. So the process
talks to the server through this recorder. It passes every byte on, notes each job before it does, and what the server
sent to a process that was dead already counts as well. A heartbeat shows payloads inside of JSON text, where their
quotes are escaped; those are not counted.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.crash.ledger import now
from tests.waiting import wait_until

JID = re.compile(rb'"jid":"([0-9a-f]{24})"')
TAIL = 40
READ = 65_536

Note = Callable[[Iterable[bytes]], None]


class Handover(NamedTuple):
    """A job that passed by: to Ruby (`taken`), or back into Redis. `at` is of the ledger's clock."""

    at: float
    jid: str
    taken: bool


class Recorder:
    """Listens at `path` for the connections of one process.

    Attributes:
        handovers: all that passed by, in this order.
    """

    def __init__(self, server: Path, path: Path) -> None:
        self.url = f"unix://{path}"
        self.handovers: list[Handover] = []
        self._passing = threading.Event()
        self._passing.set()
        self._server = server
        self._lock = threading.Lock()
        self._open = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def held(self) -> dict[str, float]:
        """The jids that the process took and did not send back, and when it took them."""
        last = {each.jid: each for each in list(self.handovers)}
        return {jid: each.at for jid, each in last.items() if each.taken}

    @property
    def returned(self) -> set[str]:
        """The jids that it sent back, into a queue or a set."""
        return {each.jid for each in list(self.handovers) if not each.taken}

    def withhold(self) -> None:
        """From now on, the jobs that Redis hands out stay on their way, as on a slow network, until `close`."""
        self._passing.clear()

    def close(self) -> None:
        """Take no more connections; wait until the process's own, and what they brought, have been dealt with.

        The process has ended. Harmless the second time."""
        self._passing.set()
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        wait_until(lambda: self._open == 0, what="the connections of a dead process to end")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(str(self._server))
            with self._lock:
                self._open += 1
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        down = threading.Thread(target=pump, args=(server, client, self._took), daemon=True)
        down.start()
        pump(client, server, self._gave)
        down.join()
        client.close()
        server.close()
        with self._lock:
            self._open -= 1

    def _took(self, jids: Iterable[bytes]) -> None:
        if self._note(jids, taken=True):
            self._passing.wait()

    def _gave(self, jids: Iterable[bytes]) -> None:
        self._note(jids, taken=False)

    def _note(self, jids: Iterable[bytes], *, taken: bool) -> bool:
        """Write it down, and say whether there was anything."""
        with self._lock:
            seen = [Handover(now(), jid.decode(), taken) for jid in jids]
            self.handovers += seen
        return bool(seen)


def pump(source: socket.socket, sink: socket.socket, note: Note) -> None:
    """Pass on what `source` sends until it ends, noting first; a sink that is gone is no reason to stop noting."""
    rest = b""
    while data := receive(source):
        text = rest + data
        found = list(JID.finditer(text))
        note(match[1] for match in found)
        rest = text[found[-1].end() if found else 0 :][-TAIL:]
        try:
            sink.sendall(data)
        except OSError:
            continue
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def receive(source: socket.socket) -> bytes:
    try:
        return source.recv(READ)
    except OSError:
        return b""
