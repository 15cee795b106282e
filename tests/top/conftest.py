"""What the tests of the terminal share: `top`, the application on a server, and a person in front of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest
import redis

from pillion import Client
from pillion.api import Several
from pillion.cli.top.app import Top
from tests.servers import Kind, Server

Play: TypeAlias = Callable[..., None]
JOBS = 100_000


@pytest.fixture(scope="session")
def kind() -> Kind:
    """Valkey alone: the screens only call the API, which is tested on both."""
    return "valkey"


@pytest.fixture
def look(server: Server) -> redis.Redis:
    return server.client()


class Person:
    """Somebody who presses keys and reads."""

    def __init__(self, app: Top, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def screen(self) -> list[str]:
        """What stands on the screen, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(part.text for part in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.screen)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        names = {" ": "space", ":": "colon", "*": "asterisk", "!": "exclamation_mark", ",": "comma", "-": "minus"}
        await self.pilot.press(*(names.get(sign, sign) for sign in text), "enter")

    async def sees(self, *words: str) -> None:
        """Wait until all of it stands there."""
        await self.until(lambda: all(word in self.text for word in words), f"{words} in\n{self.text}")

    async def until(self, true: Callable[[], Any], what: str = "") -> None:
        async with asyncio.timeout(30):
            while not true():
                await self.pilot.pause(0.02)
        assert true(), what

    async def goes(self, number: int, *words: str) -> None:
        """To a place, and waits for what stands there."""
        await self.press(str(number))
        await self.sees(*words)


@pytest.fixture
def play(server: Server) -> Play:
    """`play(story, read_only=True)`: run `async def story(person)` in front of `pillion top`."""

    def run(
        story: Callable[[Person], Coroutine[Any, Any, None]], size: tuple[int, int] = (80, 24), **options: Any
    ) -> None:
        async def evening() -> None:
            options.setdefault("every", 0.2)
            app = Top(Several.of(Client(server.url)), **options)
            async with app.run_test(size=size) as pilot:
                await story(Person(app, pilot))

        asyncio.run(evening())

    return run


def fill(server: redis.Redis, jobs: int = JOBS) -> None:
    """So many jobs: nine tenths wait, of two classes; the others are dead, retried or scheduled."""
    now = time.time()

    def stored(n: int, **fields: Any) -> str:
        klass = "SendDigest" if n % 3 else "Resize"
        queue = "mailers" if n % 3 else "default"
        made = {"created_at": int((now - 600) * 1000), "enqueued_at": int((now - 600) * 1000)}
        return json.dumps({"class": klass, "args": [n], "jid": f"{n:024}", "queue": queue, **made, **fields})

    def failed(n: int) -> str:
        error = {"error_class": "TimeoutError", "error_message": f"timed out after {n} s", "retry_count": 1}
        return stored(n, **error, failed_at=int((now - 300) * 1000))

    waiting, rest = range(jobs * 9 // 10), range(jobs * 9 // 10, jobs)
    server.sadd("queues", "mailers", "default", "quiet")
    for queue, some in (("mailers", [n for n in waiting if n % 3]), ("default", [n for n in waiting if not n % 3])):
        for start in range(0, len(some), 10_000):
            server.lpush(f"queue:{queue}", *map(stored, some[start : start + 10_000]))
    third = len(rest) // 3
    server.zadd("dead", {failed(n): now - n / 100 for n in rest[:third]})
    server.zadd("retry", {failed(n): now + 3600 + n for n in rest[third : 2 * third]})
    server.zadd("schedule", {stored(n): now + 7200 + n for n in rest[2 * third :]})
