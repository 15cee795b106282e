"""Who asks, and what they may do: roles, users, and the ways to tell who somebody is.

`dashboard(auth=...)` takes any callable that is given the request and answers with a `Role`, a `User` or None; `Keys`
is one that asks for a password or a bearer token, for `pillion web`. Nobody is let in unless an `auth` says so. Roles
are checked in one place, `actions.py`; this file only says who has which. Secrets are kept as digests and compared in
constant time; nothing here is ever written to Redis or a log."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from typing import TypeAlias

import msgspec
from starlette.requests import Request

from pillion.errors import ConfigError

FEWEST_SIGNS = 12


class Role(IntEnum):
    """What somebody may do; each role may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: object) -> Role:
        """The role of that name, as `operator`. Raises ConfigError for a name that is none."""
        if isinstance(name, cls):
            return name
        known = {role.name.lower(): role for role in cls}
        if not isinstance(name, str) or name.lower() not in known:
            raise ConfigError(f"expected a role, {', '.join(known)}, got {name!r:.40}; let `auth` return one, or None")
        return known[name.lower()]


class User(msgspec.Struct, frozen=True):
    """Somebody who was let in: a name for the audit, and a role.

    Attributes:
        name: shown in the audit; never a secret.
        role: what they may do.
        bearer: whether they proved it with a token that no browser sends by itself.
    """

    name: str
    role: Role
    bearer: bool = False


Answer: TypeAlias = User | Role | str | None
Auth: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]


def ANYONE_I_KNOW(_: Request) -> Answer:  # noqa: N802 - a constant to its reader: dashboard(auth=ANYONE_I_KNOW)
    """Everybody who reaches the page may do everything. For a network on which that is true."""
    return User("anyone", Role.ADMIN)


def nobody(_: Request) -> Answer:
    """What holds until somebody passes `auth`."""
    return None


async def identify(auth: Auth, request: Request) -> User | None:
    """Who asks, or None. Raises what `auth` raises, and ConfigError for an answer that is no role."""
    answer = auth(request)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or isinstance(answer, User):
        return answer
    role = Role.named(answer)
    return User(role.name.lower(), role)


class Keys:
    """Passwords and tokens of `pillion web`: `anna:operator:<secret>`, one line each.

    The secret opens the door as the password of HTTP basic authentication, with the name as the user, and as a bearer
    token. Raises ConfigError for a line that is no such thing, a name that comes twice, or a secret that is too short.
    """

    challenge = 'Basic realm="Pillion", charset="UTF-8"'

    def __init__(self, lines: Mapping[str, tuple[str, str]]) -> None:
        self._known: dict[str, tuple[bytes, Role]] = {}
        for name, (role, secret) in lines.items():
            if len(secret) < FEWEST_SIGNS:
                raise ConfigError(
                    f"expected a secret of at least {FEWEST_SIGNS} signs for {name!r:.40}; make it longer"
                )
            self._known[name] = (_digest(secret), Role.named(role))

    @classmethod
    def read(cls, text: str) -> Keys:
        """From the text of a file: `name:role:secret` lines; empty ones and those after `#` do not count."""
        found: dict[str, tuple[str, str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, colon, rest = line.strip().partition(":")
            role, second, secret = rest.partition(":")
            if not (name and colon and second) or name in found:
                raise ConfigError(f"expected `name:role:secret` with a name of its own in line {number}; write it so")
            found[name] = (role, secret)
        if not found:
            raise ConfigError("expected at least one line `name:role:secret`, got none; write one")
        return cls(found)

    def __call__(self, request: Request) -> Answer:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(given.strip())
        if scheme.lower() == "basic":
            return self._basic(given.strip())
        return None

    def _basic(self, given: str) -> User | None:
        try:
            name, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        digest, role = self._known.get(name, (b"", Role.VIEWER))
        return User(name, role) if hmac.compare_digest(digest, _digest(secret)) else None

    def _bearer(self, secret: str) -> User | None:
        given, found = _digest(secret), None
        for name, (digest, role) in self._known.items():  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, given):
                found = User(name, role, bearer=True)
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
