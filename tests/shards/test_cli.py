"""The commands with several shards: every one is checked and named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.servers import Server, free_port
from tests.worker.cli import pillion, running, write

APP = """
import pillion

@pillion.job()
def shown(name): print("ran", name, flush=True)
"""


@pytest.fixture
def folder(two_servers: dict[str, Server], tmp_path: Path) -> Path:
    """An app with two shards."""
    urls = [f'{name} = "{server.url}"' for name, server in two_servers.items()]
    return write(tmp_path, {"app.py": APP, "pyproject.toml": "\n".join(["[tool.pillion.shards]", *urls])})


def test_doctor_looks_at_every_shard(folder: Path, two_servers: dict[str, Server]) -> None:
    two_servers["b"].client().sadd("queues", "billing")
    two_servers["b"].client().lpush("queue:billing", "{}")
    code, out, _ = pillion("doctor", cwd=folder)
    assert code == 0
    assert re.search(r"^ok +version +shard a: Valkey", out, re.MULTILINE)
    assert re.search(r"^ok +version +shard b: Redis", out, re.MULTILINE)
    assert "shard b: nobody serves billing (1 job)" in out
    assert "shard a: nobody" not in out
    two_servers["b"].kill()
    code, out, _ = pillion("doctor", cwd=folder)
    assert code == 0
    assert re.search(r"^warn reachable +shard b: cannot reach Redis at .*\n +do: its jobs wait", out, re.MULTILINE)
    assert "shard a: no worker process is alive" in out
    two_servers["a"].kill()
    code, out, _ = pillion("doctor", cwd=folder)
    assert code == 3


def test_a_worker_starts_without_one_of_its_shards_and_says_so(folder: Path, two_servers: dict[str, Server]) -> None:
    two_servers["b"].kill()
    with running("worker", "app", cwd=folder, terminal=True) as worker:
        worker.wait_for("ready in")
        shard = {"a": two_servers["a"].url, "b": two_servers["b"].url}
        assert "shard b: cannot reach Redis at" in worker.heard
        for name, url in shard.items():
            assert f"shard    {name}   {url}" in worker.heard
        two_servers["a"].client().lpush(
            "queue:default", json.dumps({"class": "shown", "args": ["me"], "jid": "a" * 24, "queue": "default"})
        )
        worker.wait_for("done")
        worker.stop()
    two_servers["a"].kill()
    code, _, err = pillion("worker", "app", cwd=folder)
    assert code == 3
    assert "cannot reach Redis" in err


def test_a_worker_refuses_a_shard_that_is_unfit_and_names_it(
    folder: Path, two_servers: dict[str, Server], tmp_path: Path
) -> None:
    two_servers["b"].client().config_set("maxmemory-policy", "allkeys-lru")
    code, _, err = pillion("worker", "app", "-e", "production", cwd=folder)
    assert code == 5
    assert "shard b: expected maxmemory-policy noeviction" in err


def test_push_tells_the_shard(folder: Path, two_servers: dict[str, Server]) -> None:
    for _ in range(2):
        code, out, err = pillion("push", "shown", "1", cwd=folder)
        assert code == 0
        (name,) = re.findall(r"shown -> queue default on shard (\w)", err)
        (raw,) = two_servers[name].client().lrange("queue:default", 0, 0)
        assert json.loads(raw)["jid"] == out.strip()
        assert "no live worker serves the queue default" in err


def test_load_uses_all_shards_and_leaves_them_as_they_were(two_servers: dict[str, Server], tmp_path: Path) -> None:
    for server in two_servers.values():
        server.client().lpush("shop:queue:default", "mine")
    tables = [f'[tool.pillion.shards.{name}]\nurl = "{each.url}"' for name, each in two_servers.items()]
    write(tmp_path, {"pyproject.toml": "\n".join([tables[0], 'prefix = "shop:"', tables[1], 'prefix = "shop:"'])})
    code, out, err = pillion("load", "-n", "500", cwd=tmp_path)
    assert code == 0, err
    assert "drained" in out
    for server in two_servers.values():
        assert server.client().keys() == [b"shop:queue:default"]
        assert server.info("commandstats")["cmdstat_lpush"]["calls"] > 1


def test_config_shows_the_shards_without_their_passwords(tmp_path: Path) -> None:
    address = f"redis://:hush@127.0.0.1:{free_port()}"
    write(tmp_path, {"pyproject.toml": f'[tool.pillion.shards]\na = "{address}/0"\nb = "{address}/1"\n'})
    code, out, _ = pillion("config", cwd=tmp_path)
    assert code == 0
    assert re.search(r"shards\.a\.url +redis://:\*\*\*@127\.0\.0\.1:\d+/0 +.*pyproject\.toml:2", out)
    assert "hush" not in out
