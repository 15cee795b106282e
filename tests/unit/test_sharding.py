"""Which shard a job goes to, which slot a prefix is in, and what a configuration of shards may say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pillion
from pillion import delivery
from pillion.errors import ConfigError
from pillion.registry import default
from pillion.resolve import listing, resolve
from pillion.sharding import choose, hash_tag, slot_of

NAMES = ["a", "b", "c"]
GOLDEN = {"jid": "cabbabababcb", "queue": "acbabacbbccb"}
"""Written down once: another answer would send jobs that are waiting and their repetitions to different shards."""


def jid(number: int) -> str:
    return f"{number:024x}"


@pytest.mark.parametrize("by", GOLDEN)
def test_the_choice_never_changes(by: str) -> None:
    assert "".join(choose(NAMES, by, f"q{i}", jid(i)) for i in range(12)) == GOLDEN[by]
    assert "".join(choose(NAMES[::-1], by, f"q{i}", jid(i)) for i in range(12)) == GOLDEN[by]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_jobs_are_spread_evenly(count: int) -> None:
    names = [f"shard-{number}" for number in range(count)]
    found = Counter(choose(names, "jid", "default", jid(number)) for number in range(count * 1000))
    assert all(850 < found[name] < 1150 for name in names)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_shard_that_is_added_takes_its_share_and_moves_nothing_else(count: int) -> None:
    before = [f"s{number}" for number in range(count)]
    moved = []
    for number in range(3000):
        then, now = (choose(names, "jid", "default", jid(number)) for names in (before, [*before, "new"]))
        if then != now:
            moved.append(now)
    assert set(moved) == {"new"}
    assert 0.85 < len(moved) / (3000 / (count + 1)) < 1.15


def test_all_jobs_of_a_queue_go_to_one_shard_where_that_is_asked_for() -> None:
    assert {choose(NAMES, "queue", "mailers", jid(number)) for number in range(50)} == {"a"}
    table = {"mailers": "c"}
    assert {choose(NAMES, table, "mailers", jid(number)) for number in range(50)} == {"c"}
    assert {choose(NAMES, table, "q0", jid(number)) for number in range(50)} == {choose(NAMES, "queue", "q0", "")}


# --- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("{s0}", "s0"),
        ("shop:{s0}:", "s0"),
        ("{user1000}.following", "user1000"),
        ("foo{}{bar}", None),  # the first pair counts, and there is nothing in it
        ("foo{{bar}}zap", "{bar"),
        ("foo{bar}{zap}", "bar"),
        ("", None),
        ("{s0", None),
        ("s0}", None),
    ],
)
def test_hash_tags_are_those_of_the_specification(key: str, tag: str | None) -> None:
    assert hash_tag(key) == tag


def test_slots_are_those_of_a_server() -> None:
    from redis.crc import key_slot

    for prefix in ("{s0}", "a{s1}:", "{{a}}", "{\u00fc}", "{123456789}"):
        assert slot_of(prefix) == key_slot(prefix.encode())
    assert slot_of("{123456789}") == 0x31C3 % 16_384  # the check value of CRC16/XMODEM


# --- configuration ----------------------------------------------------------------------------------------------------


def settled(code: Mapping[str, Any], tmp_path: Path, env: Mapping[str, str] | None = None) -> Any:
    return resolve(flags={}, code=code, env=env or {}, cwd=tmp_path)


def test_each_shard_has_what_redis_says_and_what_it_says_itself(tmp_path: Path) -> None:
    shards = {"a": "redis://one:1/0", "b": {"prefix": "{b}", "timeout": 7}}
    code = {"redis": {"url": "redis://:secret@two", "timeout": 5}, "shards": shards, "shard_by": "queue"}
    resolved = settled(code, tmp_path)
    one, two = (settings for _, settings in resolved.config.shards)
    assert (one.url, one.timeout, one.prefix) == ("redis://one:1/0", 5, "")
    assert (two.url, two.timeout, two.prefix) == ("redis://:secret@two", 7, "{b}")
    assert resolved.config.redis is one
    lines = {line.name: line.value for line in listing(resolved)}
    assert lines["shards.a.url"] == "redis://one:1/0"
    assert lines["shards.b.timeout"] == 7
    assert lines["shard_by"] == "queue"
    assert "secret" not in str(lines)


def test_the_addresses_of_shards_are_masked(tmp_path: Path) -> None:
    resolved = settled({"shards": {"a": "redis://:secret@one", "b": "redis://two"}}, tmp_path)
    assert {line.name: line.value for line in listing(resolved)}["shards.a.url"] == "redis://:***@one"
    assert "secret" not in repr(resolved.config)


C = {"cluster": ["n:1"]}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"shards": {}}, r"shards: expected tables by name, got \{\}"),
    ({"shards": {"a": {}}}, r"shards\.a: expected an address or a table.*give it a url or a prefix"),
    ({"shards": {"a b": "redis://x"}}, "expected names of letters, digits"),
    ({"shards": {"a": {"ulr": "redis://x"}}}, r"unknown option `shards\.a\.ulr`.*did you mean `shards\.a\.url`"),
    ({"shards": {"a": "redis://x", "b": "redis://x"}}, r"shards\.b: expected a place of its own, got that of `a`"),
    ({"shards": {"a": "redis://x", "b": "redis://:secret@x:6379/0"}}, r"shards\.b: expected a place of its own"),
    ({"shards": {"a": {"prefix": "p"}, "b": {"prefix": "p"}}}, r"shards\.b: expected a place of its own"),
    ({"shards": {"a": {**C, "prefix": "{p}"}, "b": {**C, "prefix": "{p}"}}}, r"shards\.b: expected a place of its own"),
    ({"shards": {"a": {**C, "prefix": "p"}}}, r"shards\.a\.prefix: expected a hash tag.*got 'p' \(code: .*\"\{s0\}\""),
    ({"redis": C}, r"redis\.prefix: expected a hash tag.*got '' \(beside redis\.cluster\)"),
    ({"shards": {"a": "redis://x"}, "shard_by": "jit"}, "shard_by: expected jid, queue, or a table.*got 'jit'"),
    (
        {"shards": {"west": "redis://x"}, "shard_by": {"mail": "wset"}},
        r"shard_by\.mail: expected the name of a shard, got 'wset'.*did you mean `west`",
    ),
    ({"shard_by": {"mail": "a"}}, "known are none: name them in shards"),
]


@pytest.mark.parametrize(("code", "words"), MISTAKES, ids=lambda each: str(each)[:50])
def test_first_mistakes_teach(code: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        settled(code, tmp_path)
    assert "secret" not in str(caught.value)


def test_what_only_looks_like_one_place_is_none(tmp_path: Path) -> None:
    shards = {"a": "redis://x/0", "b": "redis://x/1", "c": "redis://x:6380", "d": {"url": "redis://x", "prefix": "d:"}}
    assert len(settled({"shards": shards}, tmp_path).config.shards) == 4


def test_a_setup_that_is_pointed_at_a_test_server_knows_no_shards() -> None:
    setup = pillion.Setup(shards={"a": "redis://live.invalid", "b": "redis://live.invalid/1"}, shard_by={"mail": "b"})
    with setup.pointed_at("redis://test.invalid"):
        assert [shard.settings.url for shard in setup.shards] == ["redis://test.invalid"]
        assert setup.config.redis.url == "redis://test.invalid"
    assert [shard.settings.url for shard in setup.shards] == ["redis://live.invalid", "redis://live.invalid/1"]


def test_a_client_of_no_known_shard(tmp_path: Path) -> None:
    client = pillion.Client(shards={"a": "redis://nobody.invalid", "b": "redis://nobody.invalid/1"}, shard="c")
    with pytest.raises(ConfigError, match="expected the name of a shard, got 'c'; known are a, b"):
        client.push({"class": "ShardNobody", "args": []})


def test_via_a_client_of_one_shard() -> None:
    went: list[str] = []

    class Noting:
        def send(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
            del once, durability
            went.extend(shard.name for shard, _ in client.by_shard(parcels))

        async def asend(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
            raise NotImplementedError

    token = delivery.deliver_here(Noting())
    try:
        with default.restored():

            class ShardVia(pillion.Job):
                def perform(self) -> None: ...

            shards = {name: f"redis://nobody.invalid/{number}" for number, name in enumerate(NAMES)}
            client = pillion.Client(shards=shards)
            only = pillion.Client(setup=client.setup, shard="b")
            with pillion.via(only):
                for _ in range(8):
                    ShardVia.perform_async()
            assert went == ["b"] * 8
            ShardVia.set(pool=only).perform_async()
            assert went[-1] == "b"
            with pillion.via(client):
                ShardVia.perform_bulk([()] * 60)
            assert set(went[9:]) == set(NAMES)
    finally:
        delivery.deliver_as_before(token)
