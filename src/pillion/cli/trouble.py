"""What went wrong, as a sentence that a person can act on: every `PillionError` a command may end with.

The store's errors carry what the operating system, TLS or redis-py said, in their chain of causes. Here that chain is
read and the usual causes of a first day get their own words: server down, wrong port, wrong password, TLS on one side
only, something else listening. Passwords never appear.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.config import RedisSettings
from pillion.errors import BootError, PillionError, Refused, StoreError, Unavailable, UsageError
from pillion.mask import mask_secrets
from pillion.version import __version__

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
USUAL_PORT = 6379
PROBE_PATIENCE = 0.2

START = "start one: redis-server, or docker run -p 6379:6379 valkey/valkey"
EMBEDDED = "for development, leave REDIS_URL out: `pillion dev` brings a server along"
ELSEWHERE = "if it runs elsewhere, say where: export REDIS_URL=redis://host:6379/0"


class Trouble(NamedTuple):
    """A sentence, what to do about it, and the exit code."""

    sentence: str
    cures: tuple[str, ...] = ()
    code: Exit = Exit.UNREACHABLE


def explain(error: PillionError) -> int:
    """Say on stderr what an error means and what to do; returns the exit code. Never raises."""
    try:
        trouble = diagnose(error, _settings())
    except Exception:  # what Redis is said to be cannot even be described: the error speaks for itself
        trouble = Trouble(mask_secrets(str(error)), (), Exit.UNHEALTHY)
    shown = getattr(error, "shown", "")
    if shown:
        say.note(shown)
    say.error(trouble.sentence, trouble.cures)
    return trouble.code


def blame(error: Exception) -> int:
    """Say whose mistake an unexpected exception is, with its traceback: the user's own code, or a bug of ours."""
    from pillion.cli.loading import is_users, users_traceback

    kind = " ".join(f"{type(error).__name__}: {error}".split())
    if is_users(error):
        say.note(mask_secrets(users_traceback(error)))
        say.error(mask_secrets(f"your code failed: {kind}"))
        return Exit.UNHEALTHY
    say.note(mask_secrets("".join(traceback.format_exception(error)).rstrip()))
    where = f"Pillion {__version__}, Python {sys.version.split()[0]}, {sys.platform}"
    say.error(mask_secrets(f"a bug in Pillion: {kind}"), [f"report the lines above, with: {where}"])
    return Exit.BUG


def diagnose(error: PillionError, settings: RedisSettings) -> Trouble:
    """The trouble that an error stands for, given where Redis was looked for. Its sentence holds no password."""
    trouble = _diagnose(error, settings)
    return trouble._replace(sentence=mask_secrets(trouble.sentence))


def _diagnose(error: PillionError, settings: RedisSettings) -> Trouble:
    from pillion.cli.loading import AppError

    if isinstance(error, AppError):
        return Trouble(str(error), error.cures, Exit.IMPORT)
    if isinstance(error, StoreError):
        return _store_trouble(error, settings)
    if isinstance(error, BootError):
        return Trouble(*_split(error), Exit.REFUSED)
    if isinstance(error, UsageError):
        return Trouble(*_split(error), Exit.USAGE)
    return Trouble(*_split(error), Exit.UNHEALTHY)


def _split(error: PillionError) -> tuple[str, tuple[str, ...]]:
    """A message of the form `expected X, got Y; do Z` as its two halves."""
    sentence, _, cure = str(error).partition("; ")
    return sentence, (mask_secrets(cure),) if cure else ()


def _settings() -> RedisSettings:
    from pillion import setup

    try:
        return setup.default.config.redis
    except Exception:  # wrong settings, or a block of the app's that fails
        return RedisSettings()


def _store_trouble(error: StoreError, settings: RedisSettings) -> Trouble:
    from pillion.store.address import describe

    at = describe(settings)
    causes = list(_causes(error))
    said = " ".join(str(cause) for cause in causes)
    if isinstance(error, Refused):
        return _refusal(said, at, settings)
    if isinstance(error, Unavailable):
        if known := _by_sign(said, at, settings, TURNED_AWAY):
            return known
        reason, cures = _unreachable(causes, said, settings)
        return Trouble(f"cannot reach Redis at {at} ({reason})", cures)
    return Trouble(*_split(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything behind it, each once, the nearest first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        waiting += [current.__cause__, current.__context__]
        yield current


# --- no connection ----------------------------------------------------------------------------------------------------


def _unreachable(causes: list[BaseException], said: str, settings: RedisSettings) -> tuple[str, tuple[str, ...]]:
    for cause in causes:
        found = _by_kind(cause, said, settings)
        if found:
            return found
    if "closed" in said.lower() or "reset" in said.lower() or any(isinstance(e, ConnectionError) for e in causes):
        return "it closed the connection", _other_side_wants_tls(settings)
    return (said.rpartition(": ")[2] or "no reason given").lower(), (ELSEWHERE,)


def _by_kind(cause: BaseException, said: str, settings: RedisSettings) -> tuple[str, tuple[str, ...]] | None:
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused", (*_usual_port(settings), START, ELSEWHERE, EMBEDDED)
    if isinstance(cause, FileNotFoundError):
        return "no such socket", ("check the path, and that the server has `unixsocket` set to it", EMBEDDED)
    if isinstance(cause, PermissionError):
        return "permission denied", ("let this user write to the socket: unixsocketperm 770 and a common group",)
    if isinstance(cause, socket.gaierror | UnicodeError):
        return "unknown host", ("check the host's name in REDIS_URL", ELSEWHERE)
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "name the authority that signed it: redis.ca_file, or PILLION_REDIS_CA_FILE=/path/ca.pem"
        return f"its certificate is not trusted: {cause.verify_message}", (cure,)
    if isinstance(cause, ssl.SSLError):
        return "it does not speak TLS", ("write redis:// instead of rediss://, or use the server's TLS port",)
    if isinstance(cause, TimeoutError):
        tls = ("if the server has no TLS, write redis:// instead of rediss://",) if _wants_tls(settings) else ()
        cures = ("check the host and port, and the firewall between here and there", *tls, ELSEWHERE)
        waited = settings.connect_timeout if "connecting" in said else settings.timeout
        return f"no answer within {waited:g} s", cures
    return None


def _other_side_wants_tls(settings: RedisSettings) -> tuple[str, ...]:
    if _wants_tls(settings):
        return ("check that this port is Redis with TLS",)
    return ("if the server wants TLS, write rediss:// instead of redis://", "check that this port is Redis")


def _wants_tls(settings: RedisSettings) -> bool:
    return settings.url is not None and settings.url.startswith("rediss:")


def _usual_port(settings: RedisSettings) -> tuple[str, ...]:
    """The cure for the wrong port, where something answers on the usual one of the same machine."""
    from urllib.parse import urlsplit

    parts = urlsplit(settings.url or "")
    if parts.hostname not in LOCAL_HOSTS or parts.port in (None, USUAL_PORT):
        return ()
    try:
        with socket.create_connection((parts.hostname, USUAL_PORT), timeout=PROBE_PATIENCE):
            return (f"something answers on the usual port: REDIS_URL=redis://{parts.hostname}:{USUAL_PORT}",)
    except OSError:
        return ()


# --- a connection, but no --------------------------------------------------------------------------------------------


def _refusal(said: str, at: str, settings: RedisSettings) -> Trouble:
    """The server answered, and refused; told by the code at the front of its reply."""
    if forbidden := FORBIDDEN.search(said):
        what = f"`{forbidden[1] or forbidden[2]}`" if forbidden[1] or forbidden[2] else "this"
        cures = ("print what each kind of user needs: pillion acl", "let an administrator extend this user's ACL")
        return Trouble(f"Redis at {at} does not allow {what} to its user", cures, Exit.REFUSED)
    if known := _by_sign(said, at, settings, REFUSALS):
        return known
    if any(sign in said for sign in ("WRONGPASS", "NOAUTH", "invalid password", "AUTH", "credentials")):
        given = settings.url and "@" in settings.url
        sentence = f"Redis at {at} " + ("refused the password" if given else "wants a password, and got none")
        cure = "put it into the address: redis://:password@host:6379/0, with %40 for @, %2F for / and %23 for #"
        return Trouble(sentence, (cure, "where users are set up: redis://user:password@host:6379/0"))
    return Trouble(f"Redis at {at} refused: {' '.join(said.rpartition(': ')[2].split())}", (), Exit.REFUSED)


def _by_sign(said: str, at: str, settings: RedisSettings, signs: Sequence[tuple[str, str, str]]) -> Trouble | None:
    from pillion.store.address import target_of

    for sign, sentence, cure in signs:
        if sign.lower() in said.lower():
            db = target_of(settings).address.db if "{db}" in sentence else None
            return Trouble(sentence.format(at=at, db=db), (cure,))
    return None


FORBIDDEN = re.compile(
    r"(?:NOPERM|ACL failure in script|The user executing the script can't)"
    r"(?:.*?run the '([\w|]+)' command|.*?on @user_script:\d+\. \(([^)]+)\))?"
)
"""An ACL said no; with the command, where the server named it."""

TURNED_AWAY = (
    ("max number of clients", "Redis at {at} takes no more connections", "raise its maxclients, or stop other clients"),
    ("Protocol Error", "what answers at {at} is not Redis", "check host and port; Redis listens on 6379 by default"),
)
"""What is said instead of letting us in."""

REFUSALS = (
    ("LOADING", "Redis at {at} is still loading its data", "wait until it is done, and try again"),
    ("DB index", "Redis at {at} has no database {db}", "use a lower number; usual servers have 0 to 15"),
    ("MISCONF", "Redis at {at} cannot write to its disk", "make room there, or repair what its log complains of"),
    ("BUSY ", "Redis at {at} is kept busy by somebody's script", "let whoever looks after it stop that: SCRIPT KILL"),
    ("OOM ", "Redis at {at} has no memory left", "raise its maxmemory, or let workers drain the queues"),
    ("READONLY", "Redis at {at} is a replica", "connect to its primary, or name the Sentinels"),
    (
        "unknown command 'HELLO'",
        "what answers at {at} is too old, or not Redis",
        "use Redis 7.0 or Valkey 7.2 or newer",
    ),
)
