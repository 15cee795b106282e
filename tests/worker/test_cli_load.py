"""`pillion load`: it runs its jobs, prints its rates, and leaves the user's Redis as it found it."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from pillion.cli import load
from pillion.errors import UsageError
from pillion.setup import Setup
from tests.servers import Server, free_port
from tests.worker.cli import pillion

RATES = r"filled +[\d,]+ jobs/s +[\d.]+ us of CPU per job\ndrained +[\d,]+ jobs/s +[\d.]+ us of CPU per job\n"


def contents(server: Server) -> dict[bytes, bytes | None]:
    """Every key with its value."""
    client = server.client()
    return {key: client.dump(key) for key in client.scan_iter()}


def test_production_is_refused_and_untouched(server: Server, tmp_path: Path) -> None:
    code, out, err = pillion("load", "-n", "5", "-e", "production", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert (code, out) == (5, "")
    assert "--yes" in err
    assert contents(server) == {}


def test_production_is_possible_with_yes(server: Server, tmp_path: Path) -> None:
    words = ("load", "-n", "5", "-e", "production", "--yes")
    code, out, _ = pillion(*words, cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 0
    assert re.fullmatch(RATES, out)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    code, out, err = pillion("load", cwd=tmp_path, env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}"})
    assert (code, out) == (3, "")
    assert "cannot reach Redis" in err


@pytest.mark.parametrize("words", [("-n", "0"), ("-n", "many"), ("-c", "0")])
def test_impossible_numbers(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = pillion("load", *words, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert words[0] in err


@pytest.mark.leaks_keys
@pytest.mark.parametrize("prefix", ["", "shop:", "s[h]o*p?:"])
def test_it_leaves_what_is_there_as_it_was(prefix: str, server: Server, tmp_path: Path) -> None:
    client = server.client()
    client.lpush(f"{prefix}queue:default", b'{"class":"Yours","args":[],"jid":"a"}')
    client.zadd(f"{prefix}schedule", {b'{"class":"Yours","args":[],"jid":"b","queue":"default"}': 1})
    client.zadd(f"{prefix}retry", {b'{"class":"Yours","args":[],"jid":"c","queue":"default"}': 1})
    client.set("shop:pillion-load", "not ours")
    client.set("shopX:pillion-load:x", "nor this, whatever the prefix means as a pattern")
    before = contents(server)
    client.lpush(f"{prefix}pillion-load:queue:load", "what a killed run left behind")
    env = {"REDIS_URL": server.url, "PILLION_REDIS_PREFIX": prefix}
    code, out, err = pillion("load", "-n", "2500", "-c", "3", cwd=tmp_path, env={k: v for k, v in env.items() if v})
    assert code == 0, err
    assert re.fullmatch(RATES, out)
    assert "2,500 jobs, 3 at once" in err
    assert contents(server) == before


@pytest.mark.leaks_keys
def test_capsules_of_the_configuration_do_not_matter(server: Server, tmp_path: Path) -> None:
    server.client().lpush("pillion-load:queue:other", "what is read as a left-over")
    server.client().lpush("queue:other", "not ours")
    before = {b"queue:other": contents(server)[b"queue:other"]}
    config = '[tool.pillion]\nqueues = ["mine"]\n[tool.pillion.capsules.other]\nqueues = ["other"]\n'
    (tmp_path / "pyproject.toml").write_text(config)
    code, out, err = pillion("load", "-n", "20", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 0, err
    assert re.fullmatch(RATES, out)
    assert contents(server) == before


def test_jobs_that_vanish_are_told(server: Server) -> None:
    setup = load.apart(Setup(), None, None).configure(server.url)
    with closing(setup.store):
        assert load.fill(setup, 3).jobs == 3
        with pytest.raises(UsageError, match="one load test at a time"):
            load.drain(setup, 4, 2)
        load.clear(setup)
    assert contents(server) == {}


def test_a_course_in_words() -> None:
    assert load.Course(1000, 0.5, 0.0125).line("drained") == "drained        2,000 jobs/s     12.5 us of CPU per job"
