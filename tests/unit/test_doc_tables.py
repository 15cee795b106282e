"""The tables of the pages name what the code has, with its defaults: a page that falls behind fails here."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click
import pytest

import pillion
from pillion import config, errors, events, job_options, options, resolve, testing
from pillion.chain import Chain
from pillion.cli.app import COMMANDS
from pillion.cli.exits import Exit
from pillion.retry import NO_RULES, decide
from pillion.setup import LIFECYCLE
from pillion.store import keys
from pillion.testing import plugin
from pillion.types import Retry
from tests.pages import BY_NAME, ROOT, names

KEY_TABLE = ("Key", "Type", "Holds", "Written by", "Lives")


# --- names ------------------------------------------------------------------------------------------------------------


def classes(module: Any, base: type) -> set[str]:
    """The names of a module's own classes below `base`."""
    found = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    return {each.__name__ for each in found if issubclass(each, base)}


def worker_flags() -> set[str]:
    command: click.Command = import_module("pillion.cli.worker").command
    options = [option for option in command.params if isinstance(option, click.Option)]
    return {"APP...", "-h", "--help"}.union(*(option.opts for option in options if not option.hidden))


def keys_of_the_terminal() -> list[str]:
    """The keys of `pillion top` but for 1 to 9, as people call them."""
    from pillion.cli.top.app import Top

    signs = {"slash": "/", "colon": ":", "question_mark": "?", "left_square_bracket": "[", "right_square_bracket": "]"}
    found = [key for binding in Top.BINDINGS for key in binding.key.split(",")]  # type: ignore[union-attr]
    return [*(signs.get(key, key) for key in found if not key.isdecimal()), "enter"]


def looking_and_acting_flags() -> set[str]:
    """The options of the commands of that page."""
    page = BY_NAME["command-line.md"]
    rows = [*page.table("Command", "Shows"), *page.table("Command", "Does"), ["`pillion completion`"]]
    commands = [import_module(f"pillion.cli.{words.split()[1]}").command for words in names(rows)]
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    return {"-h", "--help"}.union(*(option.opts for option in options))


TABLES: dict[tuple[str, ...], Callable[[], set[str]]] = {
    ("jobs.md", "Option", "Value", "Without it", "Meaning"): lambda: (
        {"queue", "retry_queue", *job_options._RULES} - job_options.TRANSPORT - job_options.RUN
    ),
    ("processes.md", "Option", "Value", "Meaning"): lambda: set(job_options.RUN),
    ("jobs.md", "Option", "Value", "Meaning"): lambda: {"jid", *job_options.TIMING, *job_options.TRANSPORT},
    ("errors-and-retries.md", "Class", "Raised when"): lambda: classes(errors, BaseException),
    ("worker.md", "Flag", "Meaning"): worker_flags,
    ("command-line.md", "Option", "Of", "Meaning"): looking_and_acting_flags,
    ("terminal.md", "Key", "Does"): lambda: set(keys_of_the_terminal()),
    ("worker.md", "Moment", "When"): lambda: set(LIFECYCLE),
    ("logging.md", "Event", "Told when"): lambda: classes(events, events.Event) - {"Event"},
    ("testing.md", "Mode", "A push", "For"): lambda: set(testing.Mode.__args__),
    ("testing.md", "Fixture", ""): lambda: {name for name in vars(plugin) if name.startswith("pillion_")},
}


@pytest.mark.parametrize("table", TABLES, ids=" ".join)
def test_a_table_names_what_there_is(table: tuple[str, ...]) -> None:
    page, *header = table
    assert sorted(names(BY_NAME[page].table(*header))) == sorted(TABLES[table]())


def test_every_verb_and_its_twin_stand_there() -> None:
    rows = BY_NAME["jobs.md"].table("Verb", "Twin", "What it does")
    twins = re.findall(r"`(\w+)`", " ".join(row[1] for row in rows))
    ours = {name for name in vars(pillion.Job) if "perform_" in name} - {"perform_later"}  # which is another library's
    assert ours == {*names(rows), *twins} - {"set"}


def test_every_command_and_exit_code_stands_there() -> None:
    page = BY_NAME["worker.md"]
    other = BY_NAME["command-line.md"]
    listed = [*names(page.table("Command", "")), *names(other.table("Command", "Shows"))]
    listed += names(other.table("Command", "Does"))
    assert {words.split()[1] for words in listed} | {"worker", "completion"} == COMMANDS.keys()
    assert [row[0] for row in other.table("Code", "Means")] == [str(int(code)) for code in Exit]
    assert [row[0] for row in page.table("Exit code", "")] == [str(int(code)) for code in Exit]


@pytest.mark.parametrize(
    ("page", "heading", "owner"),
    [
        ("jobs.md", "Of a `RunningJob`", pillion.RunningJob),
        ("middleware.md", "Method of a chain", Chain),
        ("middleware.md", "Of a `Middleware`", pillion.Middleware),
        ("testing.md", "Of the value of `fake()`", testing.Collected),
    ],
)
def test_what_a_page_tells_of_an_object_is_there(page: str, heading: str, owner: type) -> None:
    found = names(BY_NAME[page].table(heading, ""))
    assert [name for name in found if not hasattr(owner, name) and name not in ("in", "len")] == []


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_every_option_stands_with_its_default_and_its_variables() -> None:
    rows = BY_NAME["configuration.md"].table("Option", "Default", "Environment", "Meaning")
    assert sorted(names(rows)) == sorted(all_options())
    variables = {name: [variable] for variable, name in resolve._variables().items()}
    variables["environment"] += ["APP_ENV", "RAILS_ENV", "RACK_ENV"]
    variables["redis.url"].append("REDIS_URL")
    for shown, default, variable, _ in rows:
        name = shown.strip("`")
        assert re.findall(r"\w+", variable) == variables.get(name, []), name
        if name in options.CODE_ONLY:
            assert default == "code only", name
        else:
            assert value_of(name, default) == default_of(name), name


def all_options() -> list[str]:
    """Every field of the configuration; each has an entry in options.py, and the other way round."""
    general = {*config.Config.__struct_fields__} - {"redis", "capsules", "shards"} | {
        *config.Capsule.__struct_fields__
    } - {"name"}
    assert {*options.GENERAL, *options.CAPSULE, "default_job_options"} == general
    assert {*options.REDIS} == {*config.RedisSettings.__struct_fields__}
    return [*general, *(f"redis.{name}" for name in options.REDIS)]


def value_of(name: str, shown: str) -> Any:
    """A default as the page shows it: TOML, or the word none."""
    if shown == "none":
        return None
    value = tomllib.loads(f"it = {shown.strip('`')}")["it"]
    return value if name == "default_job_options" else options.parse(name, value, "the page")


def default_of(name: str) -> Any:
    if name.startswith("redis."):
        return getattr(config.RedisSettings(), name.removeprefix("redis."))
    return getattr(config.Capsule() if name in options.CAPSULE else config.Config(), name)


def test_job_options_stand_with_their_defaults() -> None:
    rows = BY_NAME["jobs.md"].table("Option", "Value", "Without it", "Meaning")
    shown = {row[0].strip("`"): row[2].strip("`") for row in rows}
    assert {name: shown[name] for name in config.DEFAULT_JOB_OPTIONS} == {
        name: str(value) for name, value in config.DEFAULT_JOB_OPTIONS.items()
    }


# --- the retry schedule -----------------------------------------------------------------------------------------------


class Extreme:
    """Chance that always gives the lowest number, or the highest."""

    def __init__(self, highest: bool) -> None:
        self.highest = highest

    def randrange(self, stop: int) -> int:
        return stop - 1 if self.highest else 0


def delay(count: int, *, highest: bool) -> int:
    """Seconds to retry number `count`, as the worker decides them."""
    settings = config.Config(rng=Extreme(highest))  # type: ignore[arg-type]
    job = {"class": "X", "args": [], "jid": "j", "retry": True, **({"retry_count": count - 1} if count else {})}
    before = settings.clock.now()
    outcome = decide(json.dumps(job).encode(), job, "default", ValueError(), NO_RULES, settings).outcome
    assert isinstance(outcome, Retry)
    return round(outcome.at - before)


def test_the_retry_schedule_is_what_the_page_says() -> None:
    rows = BY_NAME["errors-and-retries.md"].table("Retry", "After the failure before, s", "After the first failure")
    for shown, span, after in rows:
        count = int(shown)
        assert span == f"{delay(count, highest=False)} to {delay(count, highest=True)}"
        amount, unit = after.split()
        size = {"s": 1, "h": 3600, "days": 86_400}[unit]
        passed = sum(delay(earlier, highest=False) for earlier in range(count + 1))
        assert float(amount) == round(passed / size, 0 if unit == "s" else 1)


# --- the data model ---------------------------------------------------------------------------------------------------

UNITS = {"s": 1, "h": 3600, "days": 86_400, "years": 365 * 86_400}
LIVES = {
    "pillion:once:<jid>": [keys.ONCE_TTL],
    "pillion:rescued:<jid>": [keys.RESCUED_TTL],
    "pillion:suspects": [keys.RESCUED_TTL],
    "pillion:fenced": [keys.FENCED_TTL],
    "pillion:runs:<state>": [keys.RUNS_TTL],
    "pillion:runs": [keys.RUNS_TTL],
    "pillion:ask:<identity>": [keys.ASK_TTL],
    "pillion:stacks:<number>": [keys.STACKS_TTL],
    "pillion:operations": [keys.OPERATION_TTL],
    "pillion:operation:<id>": [keys.OPERATION_TTL],
    "pillion:parked:<id>": [keys.UNDO_TTL],
    "pillion:parked:<id>:<n>": [keys.UNDO_TTL],
    "<identity>": [keys.PROCESS_TTL],
    "<identity>:work": [keys.PROCESS_TTL],
    "<identity>:workers": [keys.PROCESS_TTL],
    "<identity>-signals": [keys.SIGNALS_TTL],
    "process_cleanup": [keys.CLEANUP_TTL],
    "stat:<counter>:<day>": [keys.STAT_TTL],
    "j|<date>|<hour_minute>": [keys.MINUTE_TTL, keys.TEN_MINUTES_TTL],
    "h|<name>-<day>-<hour>:<minute>": [keys.MINUTE_TTL],
    "<name>-<day>-<hour>:<minute>": [keys.MINUTE_TTL],
    "<day>-marks": [keys.MARKS_TTL],
    "deploylock-<label>": [keys.DEPLOY_LOCK_TTL],
}


def spelled() -> set[str]:
    """Every key that `Keyspace` can spell, with its methods' parameters as placeholders."""
    space: Any = keys.Keyspace("")
    found = {getattr(space, name) for name in space.__slots__ if name != "prefix"} | {space.stat("<counter>")}
    for name, method in inspect.getmembers(space, inspect.ismethod):
        if name == "queue":
            found.add(space.queue("<q>"))
        elif not name.startswith("_"):
            found.add(method(*(f"<{parameter}>" for parameter in inspect.signature(method).parameters)))
    return found


def test_the_data_model_has_every_key_with_its_lifetime() -> None:
    rows = BY_NAME["data-model.md"].table(*KEY_TABLE)
    assert sorted(row[0].strip("`") for row in rows) == sorted(spelled())
    spans = {row[0].strip("`"): re.findall(r"(\d+) (s|h|days|years)\b", row[4]) for row in rows}
    assert {key: [int(n) * UNITS[unit] for n, unit in span] for key, span in spans.items() if span} == LIVES


def test_the_data_model_agrees_with_the_docstring_of_the_file_that_spells_keys() -> None:
    page = {row[0].strip("`"): row[1] for row in BY_NAME["data-model.md"].table(*KEY_TABLE)}
    docstring = dict(re.findall(r"^\| `([^`|]+)` +\| (\w+) ", keys.__doc__ or "", re.MULTILINE))
    assert {key for key in page if key.startswith("pillion:")} == {
        key for key in docstring if key.startswith("pillion:")
    }
    assert {key: kind for key, kind in docstring.items() if page.get(key, kind) != kind} == {}


def test_what_the_readme_installs_restarts_on_save() -> None:
    """The first lines of the page end in `pillion dev`, which must not miss anything there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["reload"]) <= set(extras["dev"])
    assert "'.[dev]'" in BY_NAME["README.md"].text
