"""What a page function is given and gives back: `View`, the request as pages need it, and `Page`, what to draw.

A page is `async def overview(view: View) -> Page`, listed in `web/pages/__init__.py`. It asks `pillion.api` through
`view.client` and ends with `return view.page("overview.html", fragments=("tiles",), figures=figures)`. `app.py` draws
the template, or with `?fragment=tiles` only the block of that name; each fragment is a block around one element:

    {% block tiles %}<section id="tiles" data-live="figures">...</section>{% endblock %}

A View lives for one request. It changes nothing but cookies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

import msgspec
from markupsafe import Markup
from starlette.requests import Request

from pillion.api import JobRecord
from pillion.client import Client
from pillion.web.access import Role, User
from pillion.web.words import Words

if TYPE_CHECKING:
    from pillion.web.site import Site

LONGEST_TEXT = 1_000
PREFERENCES = ("language", "theme", "zone", "density")
_PREFERENCE = re.compile(r"[A-Za-z0-9_/+-]{1,40}")


class BadInput(Exception):
    """A question that cannot be answered as it was asked: 400, with this sentence."""


class Forbidden(Exception):
    """This role may not do or see that: 403, with this sentence."""


class NotThere(Exception):
    """What was asked for does not exist, or no longer: 404, with this sentence."""


class Page(msgspec.Struct, frozen=True):
    """What a page function returns.

    Attributes:
        template: file in `web/templates`.
        data: what the template sees, beside `view` and the globals.
        fragments: names of its blocks that can be fetched alone, with `?fragment=NAME`.
        status: of the response.
    """

    template: str
    data: dict[str, Any]
    fragments: tuple[str, ...] = ()
    status: int = 200


class View:
    """One request, as pages and actions see it.

    Attributes:
        site: what all requests of this dashboard share.
        request: Starlette's.
        user: who asks; `role` is theirs.
        words: the reader's language.
        now: epoch seconds, the same for the whole page.
        nonce: goes on every `<script>` and `<link>`.
        fragment: the only part that was asked for, or None for the whole page.
    """

    def __init__(self, site: Site, request: Request, user: User, words: Words, nonce: str) -> None:
        self.site = site
        self.request = request
        self.user = user
        self.words = words
        self.nonce = nonce
        self.now = site.clock.now()
        self.fragment: str | None = request.query_params.get("fragment") or None

    # --- where ------------------------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What the one who asks may do."""
        return self.user.role

    @property
    def shard(self) -> str | None:
        """The shard that was picked (`?shard=eu`), or None: all of them, or the only one."""
        name = self.request.query_params.get("shard")
        return name if name in self.site.clients else None

    @property
    def shards(self) -> list[str]:
        """The names of all shards; one for most people."""
        return list(self.site.clients)

    @property
    def clients(self) -> list[Client]:
        """The clients to look through: of the picked shard, or of all."""
        return [self.site.clients[self.shard]] if self.shard else list(self.site.clients.values())

    @property
    def client(self) -> Client:
        """The first of them."""
        return self.clients[0]

    @property
    def root_path(self) -> str:
        """Where the dashboard is mounted, as it stands in an address: "" or `/jobs`."""
        return quote(self.request.scope["pillion.root"])

    @property
    def path(self) -> str:
        """The path of this page, below the root: `/queues`."""
        path: str = self.request.scope["path"]
        return path.removeprefix(self.request.scope["pillion.root"]) or "/"

    def url(self, *segments: str, **query: Any) -> str:
        """A path within the dashboard: `url("queues", name, after=cursor)`; None and "" in the query are left out.

        The picked shard is carried along. Every segment is quoted, so a name may hold anything.
        """
        path = "/".join(quote(str(each), safe="") for each in segments)
        asked = {"shard": self.shard, **query}
        words = {name: value for name, value in asked.items() if value is not None and value != ""}
        return f"{self.root_path}/{path}" + (f"?{urlencode(words, doseq=True)}" if words else "")

    def here(self, **query: Any) -> str:
        """This page with some of its query changed; None takes one away."""
        asked: dict[str, Any] = {**self.request.query_params, **query}
        asked.pop("fragment", None)
        words = {name: value for name, value in asked.items() if value is not None and value != ""}
        path = f"{self.root_path}{quote(self.path)}"
        return path + (f"?{urlencode(words, doseq=True)}" if words else "")

    def static(self, name: str) -> str:
        """The address of a static file, with its version."""
        return f"{self.root_path}/static/{quote(name)}?v={self.site.version_of(name)}"

    def wants(self, fragment: str) -> bool:
        """Whether this part is to be drawn; ask before reading what only it needs."""
        return self.fragment in (None, fragment)

    # --- what was asked ---------------------------------------------------------------------------------------------

    def text(self, name: str, default: str = "", most: int = LONGEST_TEXT) -> str:
        """A text of the query. Raises BadInput where it is longer than `most`."""
        found = self.request.query_params.get(name, default)
        if len(found) > most:
            raise BadInput(f"expected at most {most} signs for `{name}`, got {len(found)}; shorten it")
        return found

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query, moved into `low`..`high`. Raises BadInput for what is no whole number."""
        found = self.request.query_params.get(name, "").strip()
        if not found:
            return default
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", found):
            raise BadInput(f"expected a whole number from {low} to {high} for `{name}`, got {found!r:.40}; give one")
        return min(max(int(found), low), high)

    def segment(self, name: str) -> str:
        """A part of the path, such as a queue's name."""
        return str(self.request.path_params[name])

    # --- how to show it ---------------------------------------------------------------------------------------------

    @property
    def t(self) -> Words:
        """The texts in the reader's language: `view.t("queues.title", count=3)`; values are escaped."""
        return self.words

    def args(self, record: JobRecord) -> list[Any] | None:
        """The arguments as the reader may see them, None where they may not."""
        return self.site.redaction.args(record, self.role)

    def message(self, text: str | None) -> str | None:
        """A text that a job wrote, without passwords."""
        return self.site.redaction.text(text, self.role)

    def shown(self, value: Any) -> Any:
        """Any other value of a job, without what is secret."""
        return self.site.redaction.shown(value)

    def may(self, verb: str) -> bool:
        """Whether the reader may do this action, so that its button is drawn; `actions.py` decides again."""
        return self.site.may(verb, self.role)

    def preference(self, name: str) -> str:
        """What the reader chose in Settings: `language`, `theme`, `zone` or `density`; "" for nothing."""
        found = self.request.cookies.get(f"pillion_{name}", "")
        return found if name in PREFERENCES and _PREFERENCE.fullmatch(found) else ""

    @property
    def live(self) -> str:
        """How the page is kept up to date: `sse` or `poll`; for `<body data-live=...>`."""
        return "poll" if self.request.scope.get("wsgi_environ") is not None else "sse"

    @property
    def flash(self) -> tuple[str, Markup] | None:
        """What the last action wants to be said: a level (`ok`, `notice`, `alarm`) and a text."""
        level, key, values = self.request.scope.get("pillion.flash", ("", "", {}))
        if not self.words.has(key):  # a cookie said it: only what is in our table is drawn
            return None
        try:
            return level, self.words(key, **values)
        except (KeyError, IndexError, ValueError):
            return None

    @property
    def flash_operation(self) -> str:
        """The operation that the flash speaks of, to offer its undo; "" for none."""
        found = str(self.request.scope.get("pillion.flash", ("", "", {}))[2].get("operation", ""))
        return found if re.fullmatch(r"[0-9a-f]{1,64}", found) else ""

    @property
    def tabs(self) -> list[tuple[Markup, str]]:
        """What extensions add to the navigation: title and address."""
        return [
            (self.t(tab.title), self.url("ext", extension.name, *tab.path.strip("/").split("/")))
            for extension in self.site.extensions
            for tab in extension.tabs
        ]

    def extra_rows(self, record: JobRecord) -> list[tuple[str, str]]:
        """What extensions add to the page of a job: name and text."""
        return [row for extension in self.site.extensions for row in extension.rows(self, record)]

    @property
    def token(self) -> str:
        """The hidden field `token` of every form, for browsers that say nothing else about where a request is from."""
        return token_for(self.site.secret, session_of(self.request), self.user.name)

    def page(self, template: str, fragments: tuple[str, ...] = (), status: int = 200, **data: Any) -> Page:
        """What a page function returns."""
        return Page(template, data, fragments, status)


PageFunction: TypeAlias = Callable[[View], Awaitable[Page]]


class PageRoute(NamedTuple):
    """One page: where it is, its name (for the navigation and tests), its function, and the key of its title."""

    path: str
    name: str
    fn: PageFunction
    title_key: str


# --- the session, which is nothing but a secret that a form must know -------------------------------------------------

SESSION_OVER_TLS = "__Host-pillion"
SESSION = "pillion_session"
SESSION_LASTS = 12 * 3600


def session_name(request: Request) -> str:
    """The session's cookie; over TLS one that no other host can set."""
    return SESSION_OVER_TLS if request.url.scheme == "https" else SESSION


def session_of(request: Request) -> str:
    """This browser's session; where it has none yet, the one that the response will set."""
    kept: str = request.scope.setdefault("pillion.session", {}).get("value", "")
    if kept:
        return kept
    given = request.cookies.get(session_name(request), "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{32,64}", given):
        given = request.scope["pillion.new_id"]()
        request.scope["pillion.session"]["fresh"] = True
    request.scope["pillion.session"]["value"] = given
    return given


def token_for(secret: bytes, session: str, user: str) -> str:
    """The token that forms of this session carry."""
    digest = hmac.digest(secret, f"{session}\0{user}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:24]).decode()
