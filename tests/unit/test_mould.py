"""A plain push by mould makes the bytes of the ordinary way, and is refused in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion.client import Client
from pillion.config import random_jid
from pillion.delivery import deliver_as_before, deliver_here
from pillion.errors import PayloadError
from pillion.registry import Definition, Place
from pillion.setup import Setup
from pillion.store.ops import Parcel
from tests.unit.test_bulk_bytes import Keeping, Stopped, free, json_values, odd


def definition(**options: Any) -> Definition:
    place = Place("<test>", "moulded", "<test>:1")
    return Definition("Moulded", print, kind="function", place=place, options={"queue": "low", "retry": 3, **options})


def client(jid: str | None = None, **options: Any) -> Client:
    new_jid = random_jid if jid is None else lambda: jid  # whose jids are its own goes the ordinary way
    return Client(setup=Setup("redis://nowhere.invalid", clock=Stopped(), new_jid=new_jid, **options))


def pushed(by: Client, item: Mapping[str, Any]) -> Parcel | str:
    """What goes out, or what it was refused with."""
    kept = Keeping()
    token = deliver_here(kept)
    try:
        by.push(item)
    except PayloadError as error:
        return str(error)
    finally:
        deliver_as_before(token)
    [parcel] = kept.parcels
    return parcel


@given(
    args=st.lists(json_values | odd, max_size=3) | st.just(["x" * 900]) | st.sampled_from(["text", 7, (1, 2)]),
    options=free,
    wire=st.sampled_from(["6", "7", "8"]),
    strict=st.sampled_from([True, False]),
)
def test_a_mould_makes_the_bytes_of_the_ordinary_way(args: Any, options: Any, wire: str, strict: bool) -> None:
    settings: dict[str, Any] = {"wire": wire, "strict_args": strict, "max_payload": 1024}
    item = {"class": definition(**options), "args": args}

    moulded = pushed(client(**settings), item)
    jid = moulded.jid if isinstance(moulded, Parcel) else "f" * 24

    assert moulded == pushed(client(jid, **settings), item)


@pytest.mark.parametrize("field", ["at", "created_at", "enqueued_at", "jid"])
def test_options_that_stand_where_the_mould_writes_go_the_ordinary_way(field: str) -> None:
    given = {"jid": "a" * 24, "at": 9e9}.get(field, 1_700_000_000_000)
    parcel = pushed(client(), {"class": definition(**{field: given}), "args": [1]})
    assert isinstance(parcel, Parcel)
    assert pushed(client(parcel.jid), {"class": definition(**{field: given}), "args": [1]}) == parcel


def test_a_mould_is_made_anew_when_an_option_the_configuration_or_the_definition_changes() -> None:
    by, first = client(), definition()
    assert fields(pushed(by, {"class": first, "args": []}))["queue"] == "low"
    first.change_options({"queue": "high", "tags": ["t"]})
    changed = pushed(by, {"class": first, "args": []})
    assert isinstance(changed, Parcel)
    assert (changed.queue, fields(changed)["queue"], fields(changed)["tags"]) == ("high", "high", ["t"])
    by.setup.configure(default_job_options={"backtrace": 5})
    assert fields(pushed(by, {"class": first, "args": []}))["backtrace"] == 5
    assert fields(pushed(by, {"class": definition(retry=9), "args": []}))["retry"] == 9


def test_middleware_and_carried_variables_see_every_push_also_after_a_mould_was_made() -> None:
    by, seen = client(), []

    class Sees:
        def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
            seen.append(job["jid"])
            yield

    pushed(by, {"class": definition(), "args": []})
    by.setup.client_middleware.add(Sees)
    parcel = pushed(by, {"class": definition(), "args": []})
    assert isinstance(parcel, Parcel)
    assert seen == [parcel.jid]


def fields(parcel: Parcel | str) -> dict[str, Any]:
    assert isinstance(parcel, Parcel)
    found: dict[str, Any] = msgspec.json.decode(parcel.raw)
    return found
