"""A bulk push by stencil makes the bytes of single pushes, and refuses what they refuse in the same words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pillion.client import Client
from pillion.config import random_jids
from pillion.delivery import Durability, deliver_as_before, deliver_here
from pillion.errors import PayloadError
from pillion.setup import Setup
from pillion.stencil import cut
from pillion.store.ops import Parcel
from tests.unit.test_payload import json_values

NOW = 1_795_347_718.276


class Stopped:
    """A clock at one moment, which counts how often it is read."""

    def __init__(self) -> None:
        self.readings = 0

    def now(self) -> float:
        self.readings += 1
        return NOW

    def steady(self) -> float:
        return NOW


class Keeping:
    """A delivery that keeps what it is given."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        self.parcels += parcels

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        self.parcels += parcels


def pushed(item: dict[str, Any], **options: Any) -> tuple[list[Parcel], str | None]:
    """The parcels of a bulk push, and what it was refused with."""
    kept, refused = Keeping(), None
    token = deliver_here(kept)
    try:
        Client(setup=Setup("redis://nowhere.invalid", clock=Stopped(), **options)).push_bulk(item)
    except PayloadError as error:
        refused = str(error)
    finally:
        deliver_as_before(token)
    return kept.parcels, refused


def one_by_one(item: dict[str, Any], jids: list[str], **options: Any) -> tuple[list[Parcel], str | None]:
    """The same where jids are the program's own, so that each job goes the way of a single push."""
    left = iter(["of-what-they-share", *jids])
    return pushed(item, new_jid=lambda: next(left, "f" * 24), **options)


odd = st.sampled_from([float("nan"), float("inf"), b"bytes", (1,), {1: 2}, "\ud800", object(), 10**5000, "\0", "null"])
rows = st.lists(
    st.lists(json_values | odd, max_size=3)
    | st.lists(json_values, max_size=3).map(tuple)
    | st.sampled_from(["text", 7, {"a": 1}, ["x" * 700]]),
    max_size=6,
)
keys = st.text(max_size=8).filter(lambda key: key not in {"class", "args", "at", "jid", "batch_size", "retry"})
free = st.dictionaries(keys.filter(lambda key: not key.startswith(("spread", "tags", "queue", "retry"))), json_values)
whens = st.one_of(st.none(), st.floats(NOW - 10, NOW + 10), st.just(NOW))


@given(
    rows=rows,
    options=free,
    kwargs=st.none() | st.dictionaries(st.text(max_size=5), json_values | odd, max_size=2),
    at=whens,
    wire=st.sampled_from(["6", "7", "8"]),
    strict=st.sampled_from([True, False]),
    most=st.sampled_from([1024, 1 << 20]),
)
@example(rows=[[], [1]], options={"ctx": {"\0": "\0"}}, kwargs=None, at=None, wire="8", strict=True, most=1 << 20)
@example(rows=[[], [1]], options={"enqueued_at": 1}, kwargs=None, at=NOW + 1, wire="7", strict=True, most=1 << 20)
@example(rows=[[[[]] * 99], [1]], options={}, kwargs={"k": []}, at=NOW, wire="8", strict=False, most=1 << 20)
def test_a_bulk_push_makes_the_bytes_of_single_pushes(
    rows: Any, options: Any, kwargs: Any, at: Any, wire: str, strict: bool, most: int
) -> None:
    item = {"class": "Stencilled", "args": rows, **options}
    item |= {} if kwargs is None else {"kwargs": kwargs}
    item |= {} if at is None else {"at": at}
    settings: dict[str, Any] = {"wire": wire, "strict_args": strict, "max_payload": most}

    fast, refused = pushed(item, **settings)
    slow, expected = one_by_one(item, [parcel.jid for parcel in fast], **settings)

    assert refused == expected
    assert fast == slow


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1, {"when": {1, 2}}], 'args[1]["when"], got a set'),
        (["ok", "\ud800"], "args[1], got half of a surrogate pair"),
        ([float("nan")], "args[0], got nan"),
        ("text", "list of lists, got str in it"),
        (["x" * 2000], "at most 1024 bytes"),
    ],
)
def test_a_row_that_is_refused_among_plain_ones_is_named(row: Any, words: str) -> None:
    parcels, refused = pushed({"class": "Stencilled", "args": [[1], row, [2]]}, max_payload=1024)
    assert parcels == []
    assert refused is not None
    assert words in refused


def test_each_job_of_a_bulk_push_warns_of_its_own_arguments() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        parcels, _ = pushed({"class": "Stencilled", "args": [[(1,)], [2], [(3,)]]}, strict_args="warn")
        pushed({"class": "Stencilled", "args": [[1], [2]], "kwargs": {"k": (1,)}}, strict_args="warn")
    assert len(told) == 4
    assert len(parcels) == 3


def test_a_batch_reads_the_clock_once_and_no_jid_comes_twice() -> None:
    kept, clock = Keeping(), Stopped()
    token = deliver_here(kept)
    try:
        Client(setup=Setup("redis://nowhere.invalid", clock=clock)).push_bulk(
            {"class": "Stencilled", "args": ([n] for n in range(500))}
        )
    finally:
        deliver_as_before(token)
    assert len({parcel.jid for parcel in kept.parcels}) == 500
    assert clock.readings <= 4  # created_at, and one per batch, of which the last is short


def test_random_jids_are_of_the_right_length_and_distinct() -> None:
    jids = random_jids(1000)
    assert len(set(jids)) == 1000
    assert {len(jid) for jid in jids} == {24}
    assert set("".join(jids)) <= set("0123456789abcdef")


def test_what_jobs_share_and_nobody_may_push_has_no_stencil() -> None:
    config = Setup("redis://nowhere.invalid").config
    job = {"class": "Stencilled", "args": [], "queue": "default", "jid": "a" * 24}
    assert cut(job, config) is not None
    assert cut({**job, "queue": "no good"}, config) is None
    assert cut({**job, "ctx": {1, 2}, "free": object()}, config) is None
    assert cut({"jid": "a" * 24, **job}, config) is None
    assert cut({**job, "free": msgspec.Raw(b'"\0"')}, config) is None
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    assert cut({**job, "free": deep}, config) is None


def test_the_largest_payload_is_pushed_and_one_byte_more_is_not() -> None:
    item = {"class": "Stencilled", "args": [["x"], ["x"]]}
    (parcel, _), _ = pushed(item, max_payload=1024)
    most = 1024 - len(parcel.raw) + 1
    parcels, refused = pushed({**item, "args": [["x" * most], ["x" * most]]}, max_payload=1024)
    assert (refused, [len(parcel.raw) for parcel in parcels]) == (None, [1024, 1024])
    parcels, refused = pushed({**item, "args": [["x"], ["x" * (most + 1)]]}, max_payload=1024)
    assert parcels == []
    assert refused is not None
    assert "got 1025" in refused
