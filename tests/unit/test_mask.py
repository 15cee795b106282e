"""Passwords are hidden in every text a person may read, above all in malformed addresses."""

from __future__ import annotations

import pytest

from pillion.resolve import mask_secrets, mask_url


@pytest.mark.rule("client.secrets")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hush@h:1/0", "redis://:***@h:1/0"),
        ("redis://user:hush@h", "redis://user:***@h"),
        ("redis://hush@h", "redis://***@h"),
        ("redis://u:hu@sh@h", "redis://u:***@h"),
        ("redis://u:hu/sh@h", "redis://u:***@h"),
        ("redis://hu/s:h@h", "redis://***@h"),
        (":hush@h:1", ":***@h:1"),
        ("unix:///run/s?password=hush&db=1", "unix:///run/s?password=***&db=1"),
        ("unix://u:hush@/run/s", "unix://u:***@/run/s"),
        ("", ""),
    ],
)
def test_mask_url(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach redis://:hush@h:1/0 now", "cannot reach redis://:***@h:1/0 now"),
        ("url='redis://u:hush@h', 5", "url='redis://u:***@h', 5"),
        ("Connection(host=h, password=hush, db=0)", "Connection(host=h, password=***, db=0)"),
        ('{"password": "hush hush", "x": 1}', '{"password": ***, "x": 1}'),
        ("mail bob@example.com", "mail bob@example.com"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_mask_secrets(text: str, shown: str) -> None:
    assert mask_secrets(text) == shown


@pytest.mark.parametrize("hostile", ["?apikey" * 3_000, "?" * 20_000, "password='" * 5_000, "://x:" + "y" * 50_000])
@pytest.mark.timeout(20)
def test_hostile_text_does_not_hold_the_process_up(hostile: str) -> None:
    assert mask_secrets(hostile)  # unbounded patterns took minutes for these
