"""What the tests of the pages share: the addresses of all pages, and reading what they drew."""

from __future__ import annotations

import re
from html.parser import HTMLParser

PAGES = (
    *("/", "/queues", "/queues/mailers", "/queues/mailers?order=oldest", "/jobs", "/jobs?q=state:dead", "/running"),
    *("/failures", "/scheduled", "/retries", "/dead", "/classes", "/classes?period=24h", "/classes/SendDigest"),
    *("/workers", "/audit", "/settings"),
)
"""Every page that needs no address of its own."""


class Found(HTMLParser):
    """The elements of a page: (name, attributes), its text, and its links by target."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))

    def every(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of each such element; `wanted` are attributes that it must have."""
        names = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in names.items())
        ]

    def links(self, within: str) -> list[str]:
        """Addresses that begin so."""
        return [found["href"] for found in self.every("a") if found.get("href", "").startswith(within)]
