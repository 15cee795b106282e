"""What `pillion worker --processes N` saves in memory: `python -m bench.shared [N]`.

The same app runs once as N workers that were started one by one, and once under one supervisor. It stands for a
middling program: it imports a part of the standard library and holds 20 MB of data. Each process runs some jobs before
it is measured. The figure is PSS, in which a page that several processes share counts for each of them in part, so that
sums are honest; it is Linux's (`/proc/<pid>/smaps_rollup`). Nothing is stored.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.server import Server

APP = """
import asyncio, csv, decimal, difflib, email.message, http.client, json, sqlite3, statistics, unittest.mock, xml.dom
import pillion

DATA = [{"number": number, "square": number * number} for number in range(100_000)]


class Sum(pillion.Job):
    def perform(self, start):
        return sum(row["square"] for row in DATA[start : start + 1000])
"""
JOBS = 400
PATIENCE = 60.0
PILLION = [sys.executable, "-P", "-m", "pillion"]


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "app.py").write_text(APP)
        server = Server(place / "server", append_only=False)
        try:
            separate = measured(place, server, [["worker", "app"]] * count, count)
            together = measured(place, server, [["worker", "app", "--processes", str(count)]], count)
        finally:
            server.close()
    print(f"{count} workers started one by one    {total(separate):7.1f} MB")
    print(f"{count} workers under a supervisor     {total(together):7.1f} MB, of which")
    for words, size in together:
        print(f"    {words:<32} {size:7.1f} MB")
    return 0


def measured(place: Path, server: Server, commands: list[list[str]], count: int) -> list[tuple[str, float]]:
    """Start workers, let them run jobs, and weigh every process that there is: (title, MB)."""
    server.empty()
    env = {**os.environ, "REDIS_URL": server.url, "PILLION_LOG_LEVEL": "error"}
    started = [subprocess.Popen([*PILLION, *words], cwd=place, env=env) for words in commands]
    try:
        until(lambda: server.client.scard("processes") == count)
        for number in range(JOBS):
            job = f'{{"class":"Sum","args":[{number * 200}],"jid":"{number:024}","queue":"default","retry":true}}'
            server.client.lpush("queue:default", job)
        until(lambda: not server.client.llen("queue:default"))
        time.sleep(1)
        return [weighed(pid) for process in started for pid in family(process.pid)]
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(PATIENCE)


def until(done: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit("the workers did not do what they should in a minute")
        time.sleep(0.05)


def family(pid: int) -> list[int]:
    """A process and those below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in family(int(child)))]


def weighed(pid: int) -> tuple[str, float]:
    title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found, "the kernel tells no PSS"
    return title, int(found[1]) / 1024


def total(weights: list[tuple[str, float]]) -> float:
    return sum(size for _, size in weights)


if __name__ == "__main__":
    sys.exit(main())
