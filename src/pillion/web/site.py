"""What all requests of one dashboard share: clients, options, templates, extensions, limits.

Made once by `dashboard(...)`; read by every request; extensions add to it before the first. It holds no data of jobs,
so a crash loses nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined

from pillion.api.driver import Operator
from pillion.client import Client
from pillion.clock import Clock
from pillion.web.access import Auth, Role, nobody
from pillion.web.redaction import Redaction, visible

if TYPE_CHECKING:
    from pillion.web.extension import Extension

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
STATIC = HERE / "static"
ALWAYS = ("localhost", "127.0.0.1", "[::1]")


class Options(msgspec.Struct, frozen=True):
    """What `dashboard(...)` was told.

    Attributes:
        auth: tells who asks.
        hosts: further names that the page is asked for under, each with or without scheme and port.
        app_url: where "back to the app" leads; "" for no such link.
        title: the name beside the logo; the environment where it is not production.
        challenge: the `WWW-Authenticate` header for those who are nobody; "" for a plain 403.
        requests_per_second: of one user or address.
        tabs: event streams at once.
        patience: seconds that a page may take.
    """

    auth: Auth = nobody
    hosts: tuple[str, ...] = ()
    app_url: str = ""
    title: str = ""
    challenge: str = ""
    requests_per_second: int = 50
    tabs: int = 32
    patience: float = 10.0


class Site:
    """One dashboard.

    Attributes:
        actions: what buttons do, by verb; extensions add theirs.
        extensions: in the order of their registration.
        operators: drive operations that were started here.
    """

    def __init__(
        self, find: Callable[[], Mapping[str, Client]], options: Options, redaction: Redaction, secret: bytes | None
    ) -> None:
        self._find = find
        self.options = options
        self.redaction = redaction
        self._secret = secret
        self.actions: dict[str, Any] = {}
        self.extensions: list[Extension] = []
        self.operators = Operators()
        self._versions: dict[str, str] = {}
        self._extended: dict[str, FileSystemLoader] = {}
        self.folders: dict[str, Path] = {}
        self.texts: list[Mapping[str, Mapping[str, str]]] = []
        self.environment = self._jinja()

    @cached_property
    def clients(self) -> dict[str, Client]:
        """The shards, found at the first request: a host application is configured after it has mounted us."""
        return dict(self._find())

    @cached_property
    def secret(self) -> bytes:
        """Signs the token of forms; this process's own unless one was given."""
        return self._secret or self.new_id().encode()

    @property
    def client(self) -> Client:
        """The first client; its setup decides the clock and the environment's name."""
        return next(iter(self.clients.values()))

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        clock: Clock = self.client.setup.config.clock
        return clock

    @property
    def environment_name(self) -> str:
        """`production`, `development`, ...: shown beside the title unless it is production."""
        name: str = self.client.setup.config.environment
        return name

    def new_id(self) -> str:
        """128 bits of chance, for nonces and sessions."""
        found: str = self.client.setup.config.new_jid() + self.client.setup.config.new_jid()
        return found

    def may(self, verb: str, role: Role) -> bool:
        """Whether a role may do an action. One that nobody declared, nobody may do."""
        action = self.actions.get(verb)
        return action is not None and role >= action.role

    def version_of(self, name: str) -> str:
        """Changes when the static file does; "0" for one that is not there."""
        if name not in self._versions:
            path = self.static_file(name)
            self._versions[name] = "0" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return self._versions[name]

    def static_file(self, name: str) -> Path | None:
        """The static file of that name, of the dashboard or, as `EXTENSION/...`, of an extension; None for none."""
        first, _, rest = name.partition("/")
        folder, tail = (self.folders[first], rest) if rest and first in self.folders else (STATIC, name)
        try:
            path = (folder / tail).resolve()
            return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
        except (ValueError, OSError):  # no name of a file: a NUL in it, or too long
            return None

    def add(self, extension: Extension) -> None:
        """Take in an extension: templates as `NAME/page.html`, static files under `/static/NAME/`, texts."""
        name = extension.name
        if extension.templates is not None:
            self._extended[name] = FileSystemLoader(extension.templates)
        if extension.static is not None:
            self.folders[name] = extension.static
        self.texts.append(extension.words)
        self.extensions.append(extension)

    def _jinja(self) -> Environment:
        loader = ChoiceLoader([FileSystemLoader(TEMPLATES), PrefixLoader(self._extended)])
        return Environment(
            loader=loader,
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
        )


class Operators:
    """A thread per shard that goes on with open operations, begun when the first one is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Operator] = {}

    @property
    def running(self) -> int:
        """How many threads there are."""
        return len(self._running)

    def go_on(self, client: Client) -> None:
        """See to it that what is open on this shard goes on, now."""
        with self._lock:
            operator = self._running.get(id(client))
            if operator is None:
                operator = self._running[id(client)] = Operator(client)
                operator.start()
        operator.wake()

    def stop(self) -> None:
        """End all threads; what is open goes on when somebody else drives it."""
        with self._lock:
            stopping, self._running = list(self._running.values()), {}
        for operator in stopping:
            operator.stop()


def _finalize(value: Any) -> Any:
    """Whatever a template draws: nothing for None, and no sign that cannot be seen."""
    if value is None:
        return ""
    return visible(value) if type(value) is str else value
