"""Which client a job's verbs push through."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

import pillion
from pillion import delivery, routing, testing
from pillion.registry import default


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    with default.restored():
        yield


@pytest.fixture
def pushed() -> Iterator[list[pillion.Client]]:
    """The clients that pushed, in order; nothing reaches Redis."""
    seen: list[pillion.Client] = []

    class Noting:
        def send(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
            del parcels, once, durability
            seen.append(client)

        async def asend(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
            self.send(client, parcels, once=once, durability=durability)

    token = delivery.deliver_here(Noting())
    yield seen
    delivery.deliver_as_before(token)


A, B, C = (pillion.Client(f"redis://nobody.invalid/{number}") for number in range(3))


@pytest.mark.rule("b9.22", "client.via")
def test_an_explicit_client_goes_before_via_and_via_before_the_class_and_that_before_the_default(
    pushed: list[pillion.Client],
) -> None:
    class ViaOwn(pillion.Job, client=C):
        def perform(self) -> None: ...

    class ViaPlain(pillion.Job):
        def perform(self) -> None: ...

    ViaPlain.perform_async()
    ViaOwn.perform_async()
    with pillion.via(B):
        ViaOwn.perform_async()
        ViaPlain.perform_async()
        ViaOwn.set(client=A).perform_async()
        with pillion.via(A):
            ViaPlain.perform_async()
        ViaPlain.perform_async()
    ViaPlain.perform_async()
    standard = routing.default_client()
    assert pushed == [standard, C, B, B, A, A, B, standard]


@pytest.mark.rule("b9.22")
@pytest.mark.parametrize("nothing", [None, "redis://localhost", object()])
def test_via_needs_a_client(nothing: Any) -> None:
    with pytest.raises(pillion.UsageError, match=r"expected a pillion\.Client"), pillion.via(nothing):
        pass


@pytest.mark.rule("b9.22")
def test_an_exception_inside_leaves_the_former_client_in_place() -> None:
    with pillion.via(A):
        with pytest.raises(ValueError, match="inside"), pillion.via(B):
            raise ValueError("inside")
        assert routing.via_client() is A
    assert routing.via_client() is None


def test_another_thread_does_not_see_it() -> None:
    seen: list[object] = []
    with pillion.via(A):
        thread = threading.Thread(target=lambda: seen.append(routing.via_client()))
        thread.start()
        thread.join()
    assert seen == [None]


# --- class options: pool and client_class -----------------------------------------------------------------------------


class Sharded(pillion.Client):
    """A client of a class of its own."""


U, V = "redis://nobody.invalid/8", "redis://user:secret@nobody.invalid/9"
STANDARD = routing.default_client()
ASIDE = pillion.Client(pool=U)

# the definition, the block around, set(...) -> class, address (None: the default's), setup's owner
PLACES: list[tuple[dict[str, Any], pillion.Client | None, dict[str, Any], tuple[type, str | None, pillion.Client]]] = [
    ({}, None, {}, (pillion.Client, None, STANDARD)),
    ({"client": A}, None, {}, (pillion.Client, "0", A)),
    ({"pool": U}, None, {}, (pillion.Client, "8", STANDARD)),
    ({"client_class": Sharded}, None, {}, (Sharded, None, STANDARD)),
    ({"pool": U, "client_class": Sharded}, None, {}, (Sharded, "8", STANDARD)),
    # a block goes before the definition, whatever that says
    ({"client": A}, B, {}, (pillion.Client, "1", B)),
    ({"pool": U}, B, {}, (pillion.Client, "1", B)),
    ({"client_class": Sharded}, B, {}, (pillion.Client, "1", B)),
    # set goes before both
    ({"client": A}, B, {"client": C}, (pillion.Client, "2", C)),
    ({"client": A}, B, {"client": A}, (pillion.Client, "0", A)),
    ({"client": A}, B, {"pool": V}, (pillion.Client, "9", STANDARD)),
    ({"pool": U}, B, {"pool": V}, (pillion.Client, "9", STANDARD)),
    ({"pool": U, "client_class": Sharded}, B, {"pool": V}, (Sharded, "9", STANDARD)),
    ({"pool": U, "client_class": Sharded}, B, {"client": C}, (pillion.Client, "2", C)),
    # what set does not say is still said by the block or the definition
    ({"pool": U}, None, {"client_class": Sharded}, (Sharded, "8", STANDARD)),
    ({"pool": U}, B, {"client_class": Sharded}, (Sharded, "1", B)),
    ({}, ASIDE, {}, (pillion.Client, "8", STANDARD)),
    ({"pool": V}, ASIDE, {"client_class": Sharded}, (Sharded, "8", STANDARD)),
    ({"client_class": Sharded}, None, {"client_class": pillion.Client}, (pillion.Client, None, STANDARD)),
    # of the definition, client and the other two take each other's place
    ({"client": A}, None, {"client_class": Sharded}, (Sharded, None, STANDARD)),
    ({"client": A}, None, {"client": None}, (pillion.Client, None, STANDARD)),
    ({"pool": U, "client_class": Sharded}, None, {"client": None}, (pillion.Client, None, STANDARD)),
    ({"pool": U}, None, {"pool": None}, (pillion.Client, None, STANDARD)),
    ({"pool": U}, B, {"pool": None}, (pillion.Client, "1", B)),
    # a pool may also be a client, of which it is the Redis, or the settings
    ({"pool": A}, None, {}, (pillion.Client, "0", STANDARD)),
    ({"pool": pillion.RedisSettings(url=U, sentinels=[])}, None, {}, (pillion.Client, "8", STANDARD)),  # type: ignore[arg-type]
]


@pytest.mark.rule("client.via", "fields.pool", "b9.22")
@pytest.mark.parametrize("inherited", [False, True])
@pytest.mark.parametrize(("own", "around", "given", "expected"), PLACES)
def test_set_goes_before_via_and_via_before_the_definition_and_that_before_the_default(
    pushed: list[pillion.Client],
    own: dict[str, Any],
    around: pillion.Client | None,
    given: dict[str, Any],
    expected: tuple[type, str | None, pillion.Client],
    inherited: bool,
) -> None:
    class RoutedBase(pillion.Job, **own):
        def perform(self) -> None: ...

    class RoutedHeir(RoutedBase): ...

    job = RoutedHeir if inherited else RoutedBase
    with pillion.via(around) if around else nullcontext():
        job.set(**given).perform_async()
        job.set(queue="low").set(**given).perform_async()
    client, again = pushed
    kind, database, owner = expected
    assert type(client) is kind
    assert client.setup is owner.setup
    assert client.store is (STANDARD.store if database is None else client.store)
    assert database is None or str(client.store.settings.url).endswith(f"/{database}")
    assert again is client  # one client, and so one pool of connections, however often something is pushed


@pytest.mark.rule("fields.pool", "client.inherit")
def test_a_subclass_that_names_another_place_forgets_its_parent_s(pushed: list[pillion.Client]) -> None:
    class RoutedPool(pillion.Job, pool=U, client_class=Sharded):
        def perform(self) -> None: ...

    class RoutedOtherPool(RoutedPool, pool=V): ...

    class RoutedClient(RoutedPool, client=A): ...

    class RoutedPoolAgain(RoutedClient, pool=U): ...

    class RoutedNowhere(RoutedPool, client=None): ...

    for job in (RoutedOtherPool, RoutedClient, RoutedPoolAgain, RoutedNowhere):
        job.perform_async()
    assert [(type(client), client.store.settings.url) for client in pushed[:3]] == [
        (Sharded, V),
        (pillion.Client, A.store.settings.url),
        (pillion.Client, U),
    ]
    assert pushed[3] is STANDARD


@pytest.mark.rule("fields.pool")
def test_where_a_job_goes_is_never_in_its_payload_nor_are_secrets_shown() -> None:
    class RoutedSecret(pillion.Job, pool=V, client_class=Sharded):
        def perform(self) -> None: ...

    with testing.fake() as jobs:
        RoutedSecret.perform_async()
        RoutedSecret.set(pool=U, client_class=pillion.Client).perform_bulk([()])
        RoutedSecret.set(client=A).perform_in(60)
        assert all(set(job) & {"pool", "client", "client_class"} == set() for job in jobs)
    shown = f"{RoutedSecret.job_options} {RoutedSecret.job_options!r} {RoutedSecret.set(pool=V)!r}"
    assert "nobody.invalid/9" in shown
    assert "secret@" not in shown
    with pytest.raises(pillion.ConfigError) as error:
        RoutedSecret.set(client=V)
    assert "secret@" not in str(error.value)


@pytest.mark.rule("fields.pool")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pool": 5}, "pool: expected an address, RedisSettings, a client or a pool"),
        ({"pool": {"url": U}}, "pool: expected an address"),
        ({"pool": pillion.Client}, "pool: expected an address"),
        ({"client": pillion.Client}, "client: expected a pillion.Client"),
        ({"client": U}, 'or pool="redis://'),
        ({"client_class": A}, "client_class: expected a subclass of pillion.Client"),
        ({"client_class": dict}, "client_class: expected a subclass of pillion.Client"),
        ({"client": A, "pool": U}, "expected client, or pool and client_class, got both"),
        ({"client": A, "client_class": Sharded}, "expected client, or pool and client_class, got both"),
    ],
)
def test_what_cannot_be_pushed_through_is_refused_where_it_is_written(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(pillion.ConfigError, match=re.escape(expected)):

        class RoutedWrong(pillion.Job, **options):
            def perform(self) -> None: ...

    class RoutedRight(pillion.Job):
        def perform(self) -> None: ...

    with pytest.raises(pillion.ConfigError, match=re.escape(expected)):
        RoutedRight.set(**options)


@pytest.mark.rule("fields.pool")
def test_a_pool_that_is_no_address_is_told_where_it_stands() -> None:
    with pytest.raises(pillion.ConfigError, match=r"^pool: .*RoutedAstray at .*test_via\.py:\d+\); write redis://"):

        class RoutedAstray(pillion.Job, pool="http://nobody.invalid"):
            def perform(self) -> None: ...


def test_a_client_without_arguments_is_the_default_setup_s_and_takes_a_pool_or_options_of_its_own() -> None:
    assert pillion.Client().setup is STANDARD.setup
    assert pillion.Client().store is STANDARD.store
    other = pillion.Client(pool=U)
    assert other.setup is STANDARD.setup
    assert other.store is not STANDARD.store
    assert pillion.Client(pool=other).store is other.store
    for wrong in ({"setup": STANDARD.setup}, {"pool": U}):
        with pytest.raises(pillion.ConfigError, match="expected a setup or options of its own"):
            pillion.Client(V, **wrong)
