"""How much the pages weigh, what they may not contain, and that what is not ours is what it says."""

from __future__ import annotations

import gzip
import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from pillion.web import site
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.seeding import seed
from tests.web.shop import PAGES, Found

STATIC = site.STATIC
VENDOR = tomllib.loads((STATIC / "VENDOR.toml").read_text())
OURS = {"pillion.js": 12 * 1024, "pillion.css": 8 * 1024}
MOST_OF_A_PAGE = 60 * 1024
TEXTS = [*site.TEMPLATES.glob("*.html")]


def weight(raw: bytes) -> int:
    return len(gzip.compress(raw, 9))


@pytest.mark.parametrize("name", OURS)
def test_our_own_script_and_style_stay_small(name: str) -> None:
    assert weight((STATIC / name).read_bytes()) <= OURS[name]


@pytest.mark.parametrize("name", VENDOR)
def test_vendored_files_are_what_they_say(name: str) -> None:
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == VENDOR[name]["sha256"]
    assert VENDOR[name]["license"] in ("0BSD", "MIT")


def test_every_static_file_is_ours_or_named() -> None:
    ours = {*OURS, "favicon.svg", "VENDOR.toml"}
    assert {path.name for path in STATIC.iterdir()} == ours | set(VENDOR) | {"idiomorph.LICENSE", "uplot.LICENSE"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_template_has_inline_script_or_style(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\son[a-z]+=|javascript:", text)
    assert "|safe" not in text.replace(" ", "")


def test_nothing_leaves_the_house() -> None:
    for path in [*TEXTS, STATIC / "pillion.js", STATIC / "pillion.css"]:
        assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"'(]?(?:https?:)?//", path.read_text()), path


def test_pages_stay_below_their_budget_and_ask_for_nothing_else(server: Server, visit: Visit) -> None:
    seed(server.url)
    visitor = visit()
    for path in PAGES:
        response = visitor.get(path)
        assert response.status == 200, path
        found = Found(response.text)
        files = [each.get("src") or each.get("href", "") for name, each in found.elements if name in ("script", "link")]
        assert all(file.startswith("/static/") for file in files)
        whole = weight(response.body) + sum(weight(visitor.get(file).body) for file in files)
        assert whole <= MOST_OF_A_PAGE, path
        assert not found.every("style")
        assert not [
            name for name, each in found.elements if "style" in each or any(key.startswith("on") for key in each)
        ]
