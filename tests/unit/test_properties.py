"""What holds for every input: arguments keep their bytes for a whole life, delays, weights, and no secret is told."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pillion.config import Capsule, Config
from pillion.errors import PillionError
from pillion.log_format import JsonFormatter, PrettyFormatter
from pillion.mask import mask_secrets, mask_url
from pillion.payload import decode, encode, normalise, splice, stamp, verify
from pillion.resolve import listing
from pillion.retry import NO_RULES, Verdict, decide
from pillion.setup import Setup
from pillion.store import ops
from pillion.types import Dead, Retry
from pillion.worker.queues import QueueOrder
from tests.unit.test_payload import json_values, raw_values

NOW = 1_795_347_718.276
COURSE = 25
SECRET_HEAD, SECRET_TAIL = "Zq7canary", "yranac9xW"

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = NOW) -> None:
        self.seconds = now

    def now(self) -> float:
        return self.seconds

    def steady(self) -> float:
        return self.seconds


def field(raw: bytes, name: str) -> bytes:
    return bytes(_FIELDS.decode(raw)[name])


def fail(raw: bytes, config: Config, error: BaseException | None = None) -> Verdict:
    return decide(raw, decode(raw), "default", error or ValueError("again"), NO_RULES, config)


def promoted(raw: bytes, config: Config) -> bytes:
    """What the poller pushes for a due member."""
    return splice(raw, {"enqueued_at": stamp(config.clock.now(), config.wire)})


# -- codec and retries -------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(raw_values(), max_size=4), raw_values(), st.text(), st.integers())
def test_arguments_and_unknown_fields_survive_a_whole_course_of_retries_to_the_byte(
    args: list[str], extra: str, message: str, seed: int
) -> None:
    clock = Clock()
    config = Config(clock=clock, rng=random.Random(seed))
    stored = "[" + " ,".join(args) + "]"
    raw = f'{{"retry":true, "args":{stored},"class":"A","tenant":{extra},"jid":"j"}}'.encode()
    begun, least = clock.seconds, 0
    for count in range(COURSE):
        outcome = fail(raw, config, ValueError(message)).outcome
        assert isinstance(outcome, Retry)
        least += count**4 + 15
        assert count**4 + 15 <= outcome.at - clock.seconds < count**4 + 15 + 10 * (count + 1)
        assert field(outcome.payload, "retry_count") == str(count).encode()
        clock.seconds = outcome.at
        raw = promoted(outcome.payload, config)
        assert field(raw, "args") == stored.encode()
        assert field(raw, "tenant") == extra.encode()
    assert least <= clock.seconds - begun < least + 10 * sum(range(1, COURSE + 1))
    last = fail(raw, config)
    assert isinstance(last.outcome, Dead)
    assert last.died
    assert field(last.outcome.payload, "args") == stored.encode()


@settings(max_examples=60)
@given(st.lists(json_values, max_size=4), st.dictionaries(st.text(min_size=1, max_size=8), json_values, max_size=3))
def test_what_was_pushed_is_what_runs_and_is_pushed_again_as_it_was(args: list[Any], extra: dict[str, Any]) -> None:
    config = Config(clock=Clock(), new_jid=lambda: "j")
    item = {f"x{name}": value for name, value in extra.items()} | {"class": "A", "args": args}
    payload = normalise(item, options={}, config=config)
    verify(payload, config)
    raw = encode(payload)
    assert repr(decode(raw)) == repr(payload)
    assert encode(decode(raw)) == raw
    assert splice(raw, {}) == raw


@given(
    st.lists(st.tuples(st.floats(0, 4e9), st.binary(min_size=1)), min_size=1, max_size=5),
    st.sampled_from(["retry", "schedule"]),
)
def test_a_score_is_sent_as_the_number_it_is(members: list[tuple[float, bytes]], source: str) -> None:
    """The script compares scores: one digit less, and no due job would ever move."""
    moves = [ops.Move(raw, score, "push", score, raw, "q") for score, raw in members]
    op = ops.promote(Setup("redis://h").store.keys, source, moves, dead_max=9, dead_timeout=9.0, now=1.0)
    words = list(op.commands[0])
    sent = words[len(words) - 6 * len(moves) :]
    assert [(float(sent[6 * i + 1]), sent[6 * i]) for i in range(len(moves))] == members


# -- weights -----------------------------------------------------------------------------------------------------------

queues = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(1, 20)), min_size=2, max_size=5, unique_by=lambda q: q[0]
)


def order_of(wanted: list[tuple[str, int]], seed: int = 1) -> QueueOrder:
    return QueueOrder(Capsule(queues=tuple(wanted)), Config(rng=random.Random(seed)))


@given(queues, st.integers(1, 200), st.integers())
def test_every_step_may_look_at_every_queue_and_bring_all_it_wants(
    wanted: list[tuple[str, int]], want: int, seed: int
) -> None:
    pairs = order_of(wanted, seed).next(want)
    assert sorted(name for name, _ in pairs) == sorted(name for name, _ in wanted)
    assert all(1 <= share <= want for _, share in pairs)
    assert sum(share for _, share in pairs) >= want
    weights = dict(wanted)
    for name, share in pairs:
        assert share == math.ceil(want * weights[name] / sum(weights.values()))


@settings(max_examples=15)
@given(queues, st.integers())
def test_the_chance_to_be_first_is_the_weights_share(wanted: list[tuple[str, int]], seed: int) -> None:
    order, trials, total = order_of(wanted, seed), 3_000, sum(weight for _, weight in wanted)
    first = Counter(order.next(10)[0][0] for _ in range(trials))
    for name, weight in wanted:
        chance = weight / total
        spread = math.sqrt(trials * chance * (1 - chance))
        assert abs(first[name] - trials * chance) < 6 * spread + 1


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True), st.integers(1, 200))
def test_strict_queues_stand_in_their_order_and_each_may_give_all(names: list[str], want: int) -> None:
    assert order_of([(name, 0) for name in names]).next(want) == tuple((name, want) for name in names)


# -- secrets -----------------------------------------------------------------------------------------------------------

passwords = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12).map(
    lambda middle: SECRET_HEAD + middle + SECRET_TAIL
)
users = st.sampled_from(["", "app", "app.user-1", "a b"])


def tells(text: str) -> bool:
    return SECRET_HEAD in text or SECRET_TAIL in text


@given(users, passwords, st.booleans(), st.sampled_from(["redis", "rediss", "http", "unix", ""]))
@example("", f"{SECRET_HEAD} {SECRET_TAIL}", False, "redis")
@example("app", f"{SECRET_HEAD}@h/#?{SECRET_TAIL}", False, "redis")
def test_no_address_tells_its_password_however_it_is_written(
    user: str, password: str, quoted: bool, scheme: str
) -> None:
    words = quote(password, safe="") if quoted else password
    address = f"{scheme}://{user}:{words}@127.0.0.1:1/0" if scheme else f"{user}:{words}@127.0.0.1:1"
    assert not tells(mask_url(address))


@given(passwords)
def test_no_query_or_assignment_tells_a_secret(password: str) -> None:
    quoted = quote(password, safe="")
    for words in (
        f"unix:///run/s?db=0&password={quoted}",
        f"redis://h?Api-Key={quoted}&x=1",
        f"connecting with password={quoted}, again",
        f"{{'redis_password': '{quoted}'}}",
        f'"client_secret": "{quoted}"',
        f"see redis://app:{quoted}@h:1/0 for more",
    ):
        assert not tells(mask_secrets(words)), words


@settings(max_examples=25)
@given(users, passwords, st.booleans())
@example("", f"{SECRET_HEAD}@[::{SECRET_TAIL}", False)
@example("", f"{SECRET_HEAD}%ZZ/{SECRET_TAIL}", False)
def test_nothing_that_people_read_tells_the_password_of_an_address(user: str, password: str, quoted: bool) -> None:
    """The address is one where nobody listens, or one that cannot be understood."""
    words = quote(password, safe="") if quoted else password
    url = f"redis://{quote(user)}:{words}@127.0.0.1:1/0"
    shown: list[str] = []
    try:
        setup = Setup({"url": url, "connect_timeout": 1.0})
        shown += [repr(setup.config), str(setup.config), *(f"{line}" for line in listing(setup.resolved))]
        setup.store.run(ops.command("PING"))
    except PillionError as error:
        shown += [str(error), repr(error), *logged(error)]
    else:
        pytest.fail("somebody answered")
    assert [text for text in shown if tells(text)] == []


def logged(error: BaseException) -> list[str]:
    """The error with its traceback, as both kinds of log line show it."""
    exc_info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("pillion", logging.ERROR, __file__, 1, "trouble: %s", (error,), exc_info)
    return [PrettyFormatter().format(record), JsonFormatter().format(record)]


@given(st.sampled_from(["app", ""]), passwords)
def test_no_log_line_about_a_failed_job_tells_an_address_in_its_error(user: str, password: str) -> None:
    url = f"redis://{user}:{quote(password, safe='')}@h:1/0"
    for error in (ValueError(f"cannot reach {url} now"), ValueError(url), KeyError(url), ConnectionError(url, 5)):
        assert [line for line in logged(error) if tells(line)] == []
