"""Which client a job's verbs push through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import pillion
from pillion import client as clients
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

    token = clients.deliver_here(Noting())
    yield seen
    clients.deliver_as_before(token)


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
    standard = clients.default_client()
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
        assert clients.via_client() is A
    assert clients.via_client() is None


def test_another_thread_does_not_see_it() -> None:
    seen: list[object] = []
    with pillion.via(A):
        thread = threading.Thread(target=lambda: seen.append(clients.via_client()))
        thread.start()
        thread.join()
    assert seen == [None]
