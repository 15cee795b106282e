"""Hiding passwords in whatever a person may read: errors, logs, the banner, `pillion config`, `pillion doctor`.

Called wherever an address or a foreign error text is about to be shown. It works on text, so it also covers addresses
that are malformed, which is when they get printed most. When in doubt it hides too much. It does not touch Redis and
does not look for secrets in jobs' arguments; those are never printed at all.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_SECRET_WORD = r"(?:password|passwd|passphrase|secret|token|api[-_]?key)"
_USER_INFO = re.compile(r"\A(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)?(?P<info>.*)@", re.DOTALL)
# Every repetition is bounded: anybody's error text comes by here, and a pattern that tries all splits of a long one
# would hold the process up for minutes.
_QUERY = re.compile(rf"(?P<name>[?&][^=&?\s]{{0,64}}?{_SECRET_WORD}[^=&?\s]{{0,64}}=)[^&\s]*", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?P<name>\b\w{{0,64}}?{_SECRET_WORD}['\"]?\s{{0,8}}[=:]\s{{0,8}})"
    rf"(?P<value>'[^']{{0,1024}}'|\"[^\"]{{0,1024}}\"|[^\s,;&)\]}}}}]+)",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]{0,32}://)(?P<info>\S{0,2048})@")


def mask_url(url: str) -> str:
    """The address with its password, and secrets among its query values, replaced by `***`. Never raises.

    Everything up to the last `@` counts as user and password, because a password with a bare `@`, `/` or `#` in it is
    the usual reason for an address to be malformed.
    """
    return _QUERY.sub(rf"\g<name>{HIDDEN}", _USER_INFO.sub(_hide_info, url))


def mask_secrets(text: str) -> str:
    """Free text with every password in it replaced by `***`: inside addresses, and in `password=...` pairs."""
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", _IN_TEXT.sub(_hide_info, text))
    return _ASSIGNED.sub(rf"\g<name>{HIDDEN}", text)


def _hide_info(match: re.Match[str]) -> str:
    user, colon, _ = match["info"].partition(":")
    plain = colon and re.fullmatch(r"[\w.-]*", user)  # a user name that is surely not a piece of a password
    return f"{match['scheme'] or ''}{user}:{HIDDEN}@" if plain else f"{match['scheme'] or ''}{HIDDEN}@"
