"""Every verb in both colours, from one plan: the faces, the runners, and what the package promises as a whole."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillion import Client, api, via
from pillion.api.faces import Call, Face, Plan, arun, ask, run
from pillion.api.record import JobRecord
from pillion.errors import Refused
from pillion.store.op import command
from tests.api.conftest import NewClient, Say
from tests.pages import BY_NAME, names
from tests.servers import Server

PUBLIC = [getattr(api, name) for name in api.__all__]
CLASSES = [each for each in PUBLIC if isinstance(each, type) and issubclass(each, Face | JobRecord)]
PLANS = [
    (owner, name.removeprefix("plan_"))
    for owner in CLASSES
    for name, _ in inspect.getmembers(owner, inspect.isfunction)
    if name.startswith("plan_")
]
every_verb = pytest.mark.parametrize(("owner", "name"), PLANS, ids=lambda part: getattr(part, "__name__", part))


def test_the_verbs_are_found() -> None:
    assert {owner.__name__ for owner, _ in PLANS} >= {
        "Queue",
        "RetrySet",
        "SortedEntry",
        "ProcessSet",
        "Stats",
        "Metrics",
    }
    assert len(PLANS) > 60


@every_verb
def test_each_plan_has_a_verb_in_both_colours_with_one_signature(owner: type, name: str) -> None:
    sync, twin = getattr(owner, name), getattr(owner, f"a{name}")
    assert sync.__name__ == name
    assert twin.__name__ == f"a{name}"
    assert not inspect.iscoroutinefunction(sync)
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(sync) == inspect.signature(twin)
    plan = inspect.signature(getattr(owner, f"plan_{name}"))
    assert inspect.signature(sync).parameters == plan.parameters
    assert f"Plan[{inspect.signature(sync).return_annotation}]" == plan.return_annotation


@every_verb
def test_each_verb_says_what_it_costs(owner: type, name: str) -> None:
    assert "O(" in (getattr(owner, name).__doc__ or "")


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: owner.__name__)
def test_there_is_no_verb_in_one_colour_only(owner: type) -> None:
    """What is neither a verb nor its twin does not talk to Redis: properties, and walks, which have both colours."""
    verbs = {f"{prefix}{name}" for kind, name in PLANS if kind is owner for prefix in ("", "a", "plan_")}
    public = {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}
    assert public - verbs <= {"scan", "touched_at", "total_rss_in_kb", "atotal_rss_in_kb"}
    assert hasattr(owner, "__iter__") == hasattr(owner, "__aiter__")
    assert not any(inspect.iscoroutinefunction(getattr(owner, name)) for name in public - verbs - {"atotal_rss_in_kb"})


def loaded_by(code: str) -> set[str]:
    """What stands in `sys.modules` of a fresh interpreter after `code`."""
    words = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split())


def test_each_name_loads_its_own_module_and_none_loads_redis_or_the_worker() -> None:
    alone = loaded_by("import pillion.api")
    assert {name for name in alone if name.startswith("pillion.api.")} == set()
    assert {"pillion.api.query", "pillion.api.terms"} <= loaded_by("from pillion.api import Query") - alone
    every = loaded_by("from pillion.api import *")
    assert "pillion.api.operations" in every
    assert every & {"redis", "asyncio", "pillion.worker"} == set()


def test_its_names_are_the_same_for_readers_type_checkers_and_the_interpreter() -> None:
    """`__all__` and the imports for type checkers say what its table of names says."""
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    written = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert written == {name: f"pillion.api.{module}" for name, module in api._HOMES.items()}
    assert sorted(written) == sorted(api.__all__)
    assert set(api.__all__) <= set(dir(api))
    assert api.queue is sys.modules["pillion.api.queue"]
    with pytest.raises(AttributeError, match=r"module 'pillion\.api' has no attribute 'Quueue'"):
        api.Quueue  # noqa: B018


@pytest.mark.parametrize(
    ("heading", "owner"),
    [
        ("Verb of a `Queue`", api.Queue),
        ("Verb of a set", api.RetrySet),
        ("Verb of an entry", api.SortedEntry),
        ("Verb of `Runs`", api.Runs),
        ("Verb of `Operations`", api.Operations),
    ],
)
def test_the_page_names_every_verb(heading: str, owner: type) -> None:
    told = names(BY_NAME["api.md"].table(heading, ""))
    assert sorted(told) == sorted({name for kind, name in PLANS if kind is owner} | ({"scan"} & {*dir(owner)}))


# --- the runners ------------------------------------------------------------------------------------------------------


@pytest.fixture
def carry(say: Say, client: Client) -> Callable[[Plan[Any]], Any]:
    """Carries out a plan in one colour."""
    if say.colour == "sync":
        return lambda plan: run(client.store, plan)
    return lambda plan: say.runner.run(arun(client.astore, plan))


def test_what_redis_refuses_is_raised_in_the_plan_which_may_go_on(carry: Callable[[Plan[Any]], Any]) -> None:
    def plan() -> Plan[str]:
        yield from ask(command("SET", "name", "text"))
        try:
            yield from ask(command("LPUSH", "name", "job"))
        except Refused as error:
            return f"{error}"[:50] + (yield from ask(command("GET", "name"))).decode()
        return "taken"

    assert carry(plan()).endswith("text")


def test_what_a_plan_does_not_catch_reaches_the_caller_and_the_plan_is_closed(
    carry: Callable[[Plan[Any]], Any],
) -> None:
    closed = []

    def plan() -> Plan[None]:
        try:
            yield from ask(command("NOSUCH"))
        finally:
            closed.append(True)

    with pytest.raises(Refused, match="NOSUCH"):
        carry(plan())
    assert closed == [True]


@pytest.mark.parametrize("waits", [False, True])
def test_a_call_may_be_a_coroutine_in_either_colour(carry: Callable[[Plan[Any]], Any], waits: bool) -> None:
    async def later(word: str) -> str:
        await asyncio.sleep(0)
        return word

    def plan() -> Plan[Any]:
        return (yield Call(later if waits else str, ("answer",)))

    assert carry(plan()) == "answer"


def test_a_coroutine_is_waited_for_although_the_caller_stands_on_an_event_loop(client: Client) -> None:
    """A blocking call there is a mistake, but no reason to lose a handler."""

    async def later() -> str:
        return "answer"

    def plan() -> Plan[Any]:
        return (yield Call(later))

    async def main() -> Any:
        return run(client.store, plan())

    assert asyncio.run(main()) == "answer"


def test_a_cancelled_verb_closes_its_plan(client: Client) -> None:
    closed = []

    async def forever() -> None:
        await asyncio.Event().wait()

    def plan() -> Plan[None]:
        try:
            yield Call(forever)
        finally:
            closed.append(True)

    async def main() -> None:
        task = asyncio.create_task(arun(client.astore, plan()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert closed == [True]


def test_it_looks_where_the_client_of_the_block_pushes(client: Client, new_client: NewClient, server: Server) -> None:
    other = new_client(redis={"url": server.url, "prefix": "other:"})
    other.push({"class": "Elsewhere", "args": [], "queue": "q"})
    with via(other):
        assert api.Queue("q").size() == 1
    assert api.Queue("q", client).size() == 0
