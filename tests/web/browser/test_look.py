"""Every page in a real browser: light and dark, on a phone, from right to left; clean for axe, and never too wide."""

from __future__ import annotations

import pytest

from pillion import Client
from pillion.api.operations import Operations
from tests.servers import Server
from tests.web.browser.conftest import OpenPage, axe, too_wide
from tests.web.seeding import SMALL, seed
from tests.web.shop import PAGES

MOST = 20


@pytest.fixture
def shop(server: Server, site: str, shown: Client) -> str:
    seed(server.url, SMALL)
    operation = Operations(shown).start("retry", "state:dead class:ChargeCard", by="anna")
    Operations(shown).advance(operation.id, seconds=5)
    return site


def every(tab: object, site: str) -> list[str]:
    """The addresses of all pages, with a job of each kind and an operation."""
    found = [f"{site}{path}" for path in PAGES]
    for path, link in (("/dead", "/job/"), ("/running", "/job/"), ("/audit", "/operations/")):
        tab.goto(f"{site}{path}")  # type: ignore[attr-defined]
        href = tab.locator(f'a[href^="{link}"]').first.get_attribute("href")  # type: ignore[attr-defined]
        found.append(f"{site}{href}")
    return [*found, f"{site}/nothing", f"{site}/job/nobody"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_on_any_page(shop: str, open_page: OpenPage, dark: bool) -> None:
    tab = open_page(shop, dark=dark)
    tab.expected = ("404",)
    found: dict[str, list[str]] = {}
    for address in every(tab, shop):
        tab.goto(address)
        if faults := axe(tab):
            found[address.removeprefix(shop)] = faults
    assert found == {}


@pytest.mark.parametrize("lang", ["en", "de", "ar"])
def test_no_page_scrolls_sideways_on_a_phone(shop: str, open_page: OpenPage, lang: str) -> None:
    tab = open_page(shop, phone=True, lang=lang)
    tab.expected = ("404",)
    found: dict[str, int] = {}
    for address in every(tab, shop):
        tab.goto(address)
        if more := too_wide(tab):
            found[address.removeprefix(shop)] = more
    assert found == {}


def test_from_right_to_left(shop: str, open_page: OpenPage) -> None:
    tab = open_page(shop, lang="ar")
    assert tab.evaluate("document.documentElement.dir") == "rtl"
    rail, main = tab.locator(".rail").bounding_box(), tab.locator("main").bounding_box()
    assert rail["x"] > main["x"]
    assert tab.evaluate("getComputedStyle(document.querySelector('.chart')).direction") == "ltr"
    assert axe(tab) == []


def test_what_is_pressed_on_a_phone_is_large_enough(shop: str, open_page: OpenPage) -> None:
    tab = open_page(shop, phone=True)
    for path in ("/", "/queues", "/failures", "/dead"):
        tab.goto(f"{shop}{path}")
        small = tab.evaluate(
            "[...document.querySelectorAll('button, .btn, nav a')].filter(e => e.offsetHeight && e.offsetHeight < 24)"
            ".map(e => e.outerHTML.slice(0, 120))"
        )
        assert small == [], path


def test_the_confirmation_and_the_empty_pages_are_clean_too(server: Server, site: str, open_page: OpenPage) -> None:
    tab = open_page(site)
    assert axe(tab) == []
    seed(server.url, SMALL)
    tab.goto(f"{site}/dead")
    tab.get_by_text("All that match").click()
    tab.locator("details[open]").get_by_role("button", name="Retry").click()
    assert axe(tab) == []
