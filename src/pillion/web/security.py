"""The gate in front of every page, button, file and stream of the dashboard.

    sizes -> method -> Host -> rate -> who -> same site -> body -> [the app] -> headers

One ASGI middleware, so that nothing can be added behind its back: extensions, static files and the event stream pass it
too. Refusals are plain sentences. `/healthz` and `/readyz` are asked by machines under any name, and say nothing about
jobs: they pass without Host and user. What each point defends against stands in docs/dashboard.md. It reads no Redis;
its memory (rates, failed log-ins) is bounded and goes with the process."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pillion.clock import Clock
from pillion.web.access import User, identify
from pillion.web.context import SESSION_LASTS, BadInput, session_name, session_of, token_for
from pillion.web.drawing import json_response
from pillion.web.form import Form
from pillion.web.site import ALWAYS, Site

LOG = logging.getLogger("pillion.web")
METHODS = ("GET", "HEAD", "POST")
MAX_HEADERS = 16 * 1024
MAX_BODY = 64 * 1024
BODY_PATIENCE = 10.0
OPEN_TO_MACHINES = ("/healthz", "/readyz")
MOST_PRINCIPALS = 10_000
FREE_TRIES = 5
LONGEST_WAIT = 300.0
ANY_HOST = "*"

CSP = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types pillion"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}


class Refusal(Exception):
    """A request that goes no further: status, sentence, and headers that belong to it."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Gate:
    """The middleware. `app` is everything behind it."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        self._hosts, self._origins = _known(site.options.hosts)
        self._rates = Rates(lambda: site.clock, site.options.requests_per_second)
        self._failures = BackOff(lambda: site.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        root = scope["pillion.root"] = scope.get("root_path", "").rstrip("/")
        if scope["path"] == root:
            scope = {**scope, "path": f"{root}/"}
        request = Request(scope, receive)
        nonce = scope["pillion.nonce"] = self._site.new_id()
        scope["pillion.new_id"] = self._site.new_id
        send = self._dressed(request, nonce, send)
        try:
            receive = await self._examined(request)
        except Refusal as refusal:
            await self._refuse(request, refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _examined(self, request: Request) -> Receive:
        """Let the request through or raise Refusal; returns where its body is read from, which is read by now."""
        check_sizes(request)
        if request.method not in METHODS:
            raise Refusal(405, "only GET, HEAD and POST are answered here", allow=", ".join(METHODS))
        path = _path(request)
        if path in OPEN_TO_MACHINES and request.method != "POST":
            return request.receive
        self._check_host(request)
        address = address_of(request)
        user = await self._user(request, address)
        request.scope["pillion.user"] = user
        if request.method != "POST":
            return request.receive
        body = await read_body(request)
        self._check_site(request, user, body)
        request.scope["pillion.body"] = body
        return _again(body, request.receive)

    def _check_host(self, request: Request) -> None:
        names = request.headers.getlist("host")
        if len(names) != 1:
            raise Refusal(400, "expected one Host header")
        if ANY_HOST not in self._hosts and _bare(names[0]) not in self._hosts:
            raise Refusal(
                421, "this dashboard is not known under that name; add it to `hosts` (pillion web --host-name NAME)"
            )

    async def _user(self, request: Request, address: str) -> User:
        self._failures.check(address)
        try:
            user = await identify(self._site.options.auth, request)
        except Exception as error:
            LOG.error("`auth` failed; nobody is let in", exc_info=error)
            raise Refusal(500, "the `auth` of this dashboard failed; the log of this process says how") from None
        if user is None:
            self._rates.count(address)
            if "authorization" in request.headers:
                self._failures.failed(address)
            if self._site.options.challenge:
                raise Refusal(401, "who are you?", www_authenticate=self._site.options.challenge)
            raise Refusal(403, "nobody is let in here unless `dashboard(auth=...)` says who; see docs/dashboard.md")
        self._failures.passed(address)
        self._rates.count(f"{user.name} {address}")
        return user

    def _check_site(self, request: Request, user: User, body: bytes) -> None:
        """Is this really from one of our own pages? Sec-Fetch-Site, else Origin, else the form's token."""
        if user.bearer and "cookie" not in request.headers:
            return
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None:
            allowed = site == "same-origin"
        elif origin is not None:
            allowed = self._is_own(origin, request)
        else:
            allowed = self._has_token(request, user, body)
        if not allowed:
            raise Refusal(403, "this did not come from a page of this dashboard; load the page again and press there")

    def _is_own(self, origin: str, request: Request) -> bool:
        own = f"{request.url.scheme}://{request.headers['host']}".lower()
        return origin.lower() == own or origin.lower() in self._origins

    def _has_token(self, request: Request, user: User, body: bytes) -> bool:
        try:
            given = Form.read(body, request.headers.get("content-type", "")).get("token")
        except BadInput as bad:
            raise Refusal(400, str(bad)) from None
        token = token_for(self._site.secret, session_of(request), user.name)
        return hmac.compare_digest(given.encode(errors="replace"), token.encode())

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        if _path(request).startswith("/api/"):
            problem = {"error": {"status": refusal.status, "message": refusal.sentence}}
            return json_response(problem, refusal.status, **refusal.headers)
        headers = {"cache-control": "no-store", **refusal.headers}
        return PlainTextResponse(f"{refusal.sentence}\n", refusal.status, headers)

    def _dressed(self, request: Request, nonce: str, send: Send) -> Send:
        """`send` that puts our headers on the response."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = CSP.format(nonce=nonce)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if request.url.scheme == "https":
                    headers["strict-transport-security"] = "max-age=31536000"
                if request.scope.get("pillion.session", {}).get("fresh"):
                    headers.append("set-cookie", _session_cookie(request))
            elif request.method == "HEAD":  # a WSGI host may send what we say
                message = {**message, "body": b""}
            await send(message)

        return dressed


def check_sizes(request: Request) -> None:
    """Refuse headers that are too long, and a body that says it is."""
    if sum(len(name) + len(value) for name, value in request.scope["headers"]) > MAX_HEADERS:
        raise Refusal(431, f"expected at most {MAX_HEADERS} bytes of headers")
    if len(request.scope["path"]) + len(request.scope.get("query_string", b"")) > MAX_HEADERS // 2:
        raise Refusal(414, f"expected an address of at most {MAX_HEADERS // 2} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Refusal(400, "expected Content-Length to be a number")
    if len(length) > 9 or int(length) > MAX_BODY:
        raise Refusal(413, f"expected at most {MAX_BODY} bytes")


async def read_body(request: Request) -> bytes:
    """The whole body. Refuses one that is too long, too slow, or a form of too many fields."""
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            async for chunk in request.stream():
                found += chunk
                if len(found) > MAX_BODY:
                    raise Refusal(413, f"expected at most {MAX_BODY} bytes")
    except TimeoutError:
        raise Refusal(408, f"expected the body within {BODY_PATIENCE:.0f} s") from None
    return bytes(found)


def address_of(request: Request) -> str:
    """Who is at the other end of the connection, as the server in front of us says it; "" where it does not."""
    environ = request.scope.get("wsgi_environ")
    if environ is not None:
        return str(environ.get("REMOTE_ADDR", ""))
    return request.client.host if request.client else ""


class Rates:
    """How often each user and each address asks: refuses more than so many in a second, of the last 10,000 of them."""

    def __init__(self, clock: Callable[[], Clock], most: int) -> None:
        self._clock = clock
        self._most = most
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, who: str) -> None:
        """One more request; raises Refusal (429) where it is one too many."""
        now = self._clock().steady()
        left, before = self._seen.pop(who, (float(self._most), now))
        left = min(self._most, left + (now - before) * self._most)
        self._seen[who] = (max(left - 1, 0.0), now)
        if len(self._seen) > MOST_PRINCIPALS:
            self._seen.popitem(last=False)
        if left < 1:
            raise Refusal(429, f"expected at most {self._most} requests a second", retry_after="1")


class BackOff:
    """After five wrong passwords an address waits: twice as long after each further one, five minutes at most."""

    def __init__(self, clock: Callable[[], Clock]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises Refusal (429) while the address has to wait."""
        count, until = self._failed.get(address, (0, 0.0))
        left = until - self._clock().steady()
        if count > FREE_TRIES and left > 0:
            raise Refusal(429, f"too many wrong passwords; wait {left:.0f} s", retry_after=str(int(left) + 1))

    def failed(self, address: str) -> None:
        """A wrong password came from there."""
        count = self._failed.pop(address, (0, 0.0))[0] + 1
        wait = min(LONGEST_WAIT, 2.0 ** min(count - FREE_TRIES, 20)) if count > FREE_TRIES else 0.0
        self._failed[address] = (count, self._clock().steady() + wait)
        if len(self._failed) > MOST_PRINCIPALS:
            self._failed.popitem(last=False)

    def passed(self, address: str) -> None:
        """A right one came."""
        self._failed.pop(address, None)


def _known(hosts: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Names without port that the page may be asked for under, and origins that its forms may come from."""
    names, origins = {*ALWAYS}, set[str]()
    for host in hosts:
        if "://" in host:
            origins.add(host.lower().rstrip("/"))
        names.add(_bare(urlsplit(host).netloc if "://" in host else host))
    return names, origins


def _bare(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _path(request: Request) -> str:
    """The path below the root."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope["pillion.root"]) or "/"


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, and then what comes."""
    left = [True]

    async def again() -> Message:
        if left:
            left.pop()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _session_cookie(request: Request) -> str:
    secure = "; Secure" if request.url.scheme == "https" else ""
    named = f"{session_name(request)}={session_of(request)}"
    return f"{named}; Path=/; Max-Age={SESSION_LASTS}; HttpOnly; SameSite=Lax{secure}"
