"""The jobs of the census. This is all that a worker imports: `pillion worker jobs.py`.

`CountModule` reads one source file, `weigh` adds up the bytes of a package, `summarise` waits for both and adds up the
rest. They leave what they found in Redis, under keys of one census that expire after an hour.

A job may run twice: a worker can die between the work and its acknowledgement. So each job writes a field of its own,
none adds to a total, and a second run changes nothing.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

from redis import Redis

import pillion
from pillion.types import Later

KEPT = 3600
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.comprehension)


class CountModule(pillion.Job, queue="modules", retry=1):
    """Parse one source file and note what is in it."""

    def perform(self, census: str, path: str) -> None:
        started, cpu = time.time(), time.thread_time()
        found = count(Path(path).read_bytes())
        found |= {"attempt": self.context.attempt if self.context else 1}
        found |= {"started": started, "finished": time.time(), "cpu": time.thread_time() - cpu}
        note(census, "counted", path, found)

    @staticmethod
    def retry_in(_count: int, error: BaseException, _job: dict[str, Any]) -> int | str:
        """A missing file may still come: a second from now, plus jitter. Broken syntax stays broken: no retry."""
        return "kill" if isinstance(error, SyntaxError | ValueError) else 1

    @staticmethod
    def retries_exhausted(job: dict[str, Any], error: BaseException) -> None:
        """Runs once before the job goes to the dead set, so that `summarise` does not wait for it."""
        census, path = job["args"]
        note(census, "given_up", path, repr(error))


@pillion.job(queue="packages")
async def weigh(census: str, package: str, paths: list[str]) -> None:
    """Add up the bytes of a package. All its files are asked for at once, and other jobs run while the disk answers."""
    sizes = await asyncio.gather(*(asyncio.to_thread(os.path.getsize, path) for path in paths))
    await asyncio.to_thread(note, census, "sizes", package, sum(sizes))


@pillion.job(queue="packages")
def summarise(census: str, modules: int, packages: int) -> Later | None:
    """Add everything up once each module is counted or given up; until then, come back in a second."""
    counted, given_up, sizes = (notes(census, kind) for kind in ("counted", "given_up", "sizes"))
    if len(counted) + len(given_up) < modules or len(sizes) < packages:
        return pillion.snooze(1)
    totals = {
        name: sum(found[name] for found in counted.values()) for name in ("lines", "classes", "functions", "branches")
    }
    note(census, "summary", "totals", {"modules": len(counted), "bytes": sum(sizes.values()), **totals})
    return None


@pillion.configure_server
def look_often(setup: pillion.Setup) -> None:
    """A worker looks for due jobs about every 5 s. Whoever watches a demo should not have to wait for that."""
    setup.configure(poll_interval_average=0.3)


def count(source: bytes) -> dict[str, Any]:
    """What is in a source file. Raises SyntaxError, or ValueError for what is no text at all."""
    nodes = list(ast.walk(ast.parse(source)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    length, longest = max(((lines_of(node), node.name) for node in functions), default=(0, ""))
    return {
        "lines": source.count(b"\n"),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "functions": len(functions),
        "branches": sum(isinstance(node, BRANCHES) for node in nodes),
        "longest": longest,
        "length": length,
    }


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@functools.cache
def store() -> Redis:
    """Where results are kept: the Redis that carries the jobs. Connects when first used; threads share it."""
    return Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


def note(census: str, kind: str, name: str, value: Any) -> None:
    key = f"census:{census}:{kind}"
    with store().pipeline() as writes:
        writes.hset(key, name, json.dumps(value))
        writes.expire(key, KEPT)
        writes.execute()


def notes(census: str, kind: str) -> dict[str, Any]:
    found = store().hgetall(f"census:{census}:{kind}")
    return {str(name): json.loads(value) for name, value in found.items()}
