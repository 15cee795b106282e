"""Somebody with a browser, in the same process: asks an ASGI application, keeps cookies, says where a form is from.

visitor = visit(role="admin")
visitor.get("/queues").text
visitor.post("/do/pause", queue="mailers").status
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

Headers = list[tuple[str, str]]


@dataclass
class Response:
    """What came back."""

    status: int
    headers: Headers
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """A header, "" where there is none; it must not come twice."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} comes {len(found)} times"
        return found[0] if found else ""


@dataclass
class Visitor:
    """One browser. `root` is what the server tells the application of its place, `prefix` what every path begins with.

    `same_site` is what it says of itself with every POST; None is an old one that says nothing.
    """

    app: Any
    runner: asyncio.Runner
    host: str = "localhost"
    root: str = ""
    prefix: str = ""
    scheme: str = "http"
    address: str = "127.0.0.1"
    same_site: str | None = "same-origin"
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, *more: tuple[str, str], **fields: str) -> Response:
        """Press a button."""
        return self.ask("POST", path, body=urlencode([*more, *fields.items()]).encode(), headers=FORM)

    def send(self, path: str, found: Any, **headers: str) -> Response:
        """Send JSON."""
        return self.ask("POST", path, json.dumps(found).encode(), {"content-type": "application/json", **headers})

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Response:
        """Any request. A header's `_` is a `-`; an empty one is left out."""
        return self.runner.run(self.whole(self._scope(method, path, body, headers), body))

    async def whole(self, scope: dict[str, Any], body: bytes) -> Response:
        response = Response(0, [])
        async with self.sent(scope, body) as messages:
            async for message in messages:
                if message["type"] == "http.response.start":
                    response.status = message["status"]
                    response.headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
                else:
                    response.body += message.get("body", b"")
        self._keep(response)
        return response

    @asynccontextmanager
    async def sent(self, scope: dict[str, Any], body: bytes = b"") -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The messages of the response as they come; leaving the block is closing the tab."""
        said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        left, closed = [body], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if left:
                return {"type": "http.request", "body": left.pop(), "more_body": False}
            await closed.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self.app(scope, receive, said.put)
            finally:
                await said.put(None)

        async def messages() -> AsyncIterator[dict[str, Any]]:
            while (message := await said.get()) is not None:
                yield message

        task = asyncio.create_task(run())
        try:
            yield messages()
        finally:
            closed.set()
            await asyncio.wait_for(task, 20)

    def stream(self, path: str) -> dict[str, Any]:
        """The scope of a GET, for `sent`."""
        return self._scope("GET", path, b"", {})

    def _scope(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        address = urlsplit(path) if not path.startswith("//") else urlsplit(f"http://x{path}")
        said: dict[str, str] = {"host": self.host, **self.headers}
        if method == "POST":
            said |= {"content-length": str(len(body))} | ({"sec-fetch-site": self.same_site} if self.same_site else {})
        if self.cookies:
            said["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        said |= {name.replace("_", "-").lower(): value for name, value in headers.items()}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": self.scheme,
            "path": self.root + self.prefix + unquote(address.path),
            "raw_path": quote(self.root + self.prefix).encode() + address.path.encode(),
            "query_string": address.query.encode(),
            "root_path": self.root,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in said.items() if value],
            "client": (self.address, 50000),
            "server": ("127.0.0.1", 80),
        }

    def _keep(self, response: Response) -> None:
        for name, value in response.headers:
            if name == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    if morsel["max-age"] == "0" or not morsel.value:
                        self.cookies.pop(key, None)
                    else:
                        self.cookies[key] = morsel.value


FORM = {"content-type": "application/x-www-form-urlencoded"}
