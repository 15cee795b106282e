"""Pushing from web servers: uvicorn with an ASGI app, prefork gunicorn with a WSGI app, asked over HTTP.

What a server process opens, it keeps: the figures come from Redis itself. Every process that is started here is ended
by its id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.servers import Server, free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
POOL_SIZE = 10
REQUESTS = 60


class WebServer:
    """One web server process on a loopback port, pushing to `redis`."""

    def __init__(self, redis: Server, folder: Path, *words: str) -> None:
        self.port = free_port()
        self.log = folder / f"web-{self.port}.log"
        command = [sys.executable, "-m", *(word.format(port=self.port) for word in words)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "REDIS_URL": redis.tcp_url, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> WebServer:
        wait_until(lambda: self._process.poll() is not None or self.answers(), timeout=20, what="the web server")
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        return self

    def answers(self) -> bool:
        try:
            return "connection" in self.get("/who")
        except (OSError, HTTPException):
            return False

    def get(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return {"status": response.status, **json.loads(response.read())}
        finally:
            connection.close()

    def push(self, path: str = "/push") -> str:
        answer = self.get(path)
        assert answer["status"] == 200, answer
        jid: str = answer["jid"]
        return jid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        """Ask it to end, and end it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)


Serve: TypeAlias = Callable[..., WebServer]


@pytest.fixture
def serve(own_server: Server, tmp_path: Path) -> Iterator[Serve]:
    """Starts web servers that live as long as the test."""
    made: list[WebServer] = []

    def start(*words: str) -> WebServer:
        made.append(WebServer(own_server, tmp_path, *words))
        return made[-1].wait()

    yield start
    for each in made:
        each.close()


def uvicorn(serve: Serve) -> WebServer:
    return serve("uvicorn", "tests.web.asgi_app:app", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "info")


def gunicorn(serve: Serve, *more: str) -> WebServer:
    options = ["--bind", "127.0.0.1:{port}", "--workers", "2", "--preload", "--graceful-timeout", "2", *more]
    return serve("gunicorn", "tests.web.wsgi_app:app", *options)


class Watcher:
    """Redis as the web servers leave it, seen through one connection."""

    def __init__(self, server: Server) -> None:
        self.client = server.client(single_connection_client=True)
        self._own = int(self.client.client_id())

    def opened(self) -> int:
        """How many connections there have been in all."""
        return int(self.client.info("stats")["total_connections_received"])

    def ids(self) -> set[int]:
        """The connections there are, without its own."""
        return {int(each["id"]) for each in self.client.client_list()} - {self._own}

    def jids(self) -> list[str]:
        return [json.loads(raw)["jid"] for raw in self.client.lrange("queue:default", 0, -1)]


# --- ASGI -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/push", "/threads"])
def test_an_asgi_app_reuses_its_connection(serve: Serve, own_server: Server, path: str) -> None:
    web, watcher = uvicorn(serve), Watcher(own_server)
    web.push(path)
    opened = watcher.opened()
    jids = [web.push(path) for _ in range(REQUESTS)]
    assert watcher.opened() == opened
    assert watcher.jids()[::-1][1:] == jids


def test_many_requests_at_once_share_one_pool(serve: Serve, own_server: Server) -> None:
    web, watcher = uvicorn(serve), Watcher(own_server)
    with ThreadPoolExecutor(16) as pool:
        jids = set(pool.map(lambda _: web.push(), range(REQUESTS)))
        opened = watcher.opened()
        assert len(watcher.ids()) <= POOL_SIZE
        jids |= set(pool.map(lambda _: web.push(), range(REQUESTS)))
        assert watcher.opened() - opened < POOL_SIZE  # it may still grow to its size, and no further
    assert len(watcher.ids()) <= POOL_SIZE
    assert set(watcher.jids()) == jids
    assert len(jids) == 2 * REQUESTS


def test_an_asgi_app_survives_a_restart_of_redis(serve: Serve, own_server: Server) -> None:
    web = uvicorn(serve)
    first = web.push()
    own_server.kill()
    assert web.get("/push")["status"] == 503
    own_server.restart()
    second = web.push()
    watcher = Watcher(own_server)
    assert watcher.jids() == [second, first]
    opened = watcher.opened()
    for _ in range(10):
        web.push()
    assert watcher.opened() == opened


def test_an_asgi_app_leaves_no_connection_behind(serve: Serve, own_server: Server) -> None:
    web, watcher = uvicorn(serve), Watcher(own_server)
    web.push()
    assert watcher.ids()
    web.close()
    wait_until(lambda: not watcher.ids(), what="its connections to be closed")
    said = web.log.read_text()
    assert "Finished server process" in said
    assert "Warning" not in said
    assert "rror" not in said


# --- WSGI -------------------------------------------------------------------------------------------------------------


def workers(web: WebServer, count: int = 2) -> dict[int, int]:
    """The connection of each worker process, once so many have answered."""
    found: dict[int, int] = {}

    def all_of_them() -> bool:
        try:
            answer = web.get("/who")
        except (OSError, HTTPException):  # a worker that was just killed
            return False
        found[answer["pid"]] = answer["connection"]
        return len(found) >= count

    wait_until(all_of_them, timeout=20, what=f"{count} workers to answer")
    return found


def test_prefork_workers_share_nothing_that_was_opened_before_the_fork(serve: Serve, own_server: Server) -> None:
    web = gunicorn(serve)
    master = web.get("/who")["master"]
    found = workers(web)
    assert master["pid"] not in found
    assert len(set(found.values())) == 2
    assert master["connection"] not in found.values()
    assert {master["connection"], *found.values()} <= Watcher(own_server).ids()


def test_prefork_workers_reuse_their_connections(serve: Serve, own_server: Server) -> None:
    web, watcher = gunicorn(serve), Watcher(own_server)
    found = workers(web)
    opened = watcher.opened()
    with ThreadPoolExecutor(4) as pool:
        jids = set(pool.map(lambda _: web.push(), range(REQUESTS)))
    assert watcher.opened() == opened
    assert jids < set(watcher.jids())
    assert len(jids) == REQUESTS
    assert workers(web) == found


def test_threads_of_a_worker_share_its_pool(serve: Serve, own_server: Server) -> None:
    web, watcher = gunicorn(serve, "--workers", "1", "--threads", "8"), Watcher(own_server)
    with ThreadPoolExecutor(16) as pool:
        jids = set(pool.map(lambda _: web.push(), range(2 * REQUESTS)))
    assert len(jids) == 2 * REQUESTS
    assert len(watcher.ids()) <= POOL_SIZE + 1  # and the master's


def test_a_killed_worker_is_replaced_and_its_connection_ends(serve: Serve, own_server: Server) -> None:
    web, watcher = gunicorn(serve), Watcher(own_server)
    found = workers(web)
    victim, connection = next(iter(found.items()))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: connection not in watcher.ids(), what="the dead worker's connection to end")
    replaced = workers(web)
    assert victim not in replaced
    assert len(set(replaced.values())) == 2
    assert connection not in replaced.values()
    opened = watcher.opened()
    jids = {web.push() for _ in range(10)}
    assert watcher.opened() == opened
    assert jids < set(watcher.jids())


def test_prefork_workers_survive_a_restart_of_redis(serve: Serve, own_server: Server) -> None:
    web = gunicorn(serve)
    before = workers(web)
    own_server.kill()
    assert web.get("/push")["status"] == 503
    own_server.restart()
    jids = {web.push() for _ in range(10)}
    watcher = Watcher(own_server)
    assert jids < set(watcher.jids())
    assert workers(web).keys() == before.keys()


def test_a_reload_of_the_workers_keeps_no_connection_of_the_old_ones(serve: Serve, own_server: Server) -> None:
    web, watcher = gunicorn(serve), Watcher(own_server)
    old = workers(web)
    web.signal(signal.SIGHUP)
    wait_until(lambda: not set(old.values()) & watcher.ids(), timeout=20, what="the old workers to leave")
    assert not old.keys() & workers(web).keys()
    assert web.push() in watcher.jids()
