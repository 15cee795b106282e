"""A worker on a server that allows it exactly what `pillion acl worker` prints, and a person who may not push."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pillion import acl
from pillion.config import RedisSettings
from pillion.events import StoreDown
from pillion.store import ops, rescue
from tests.servers import Server
from tests.servers_misbehave.conftest import NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Falls, Rests, Sends, Stumbles
from tests.worker.cli import pillion

PASSWORD = "open-sesame"


def admit(server: Server, name: str, *rules: str) -> str:
    """Make a user of a role; its address."""
    client = server.client()
    client.execute_command(*shlex.split(acl.line(acl.roles()[name], name, [RedisSettings()])))
    client.execute_command("ACL", "SETUSER", name, f">{PASSWORD}", *rules)
    return f"unix://{name}:{PASSWORD}@{server.socket_path}"


@pytest.mark.parametrize("wire", ["6", "7", "8"])
def test_a_worker_with_exactly_its_rights_does_all_its_work(
    own_server: Server, new_bed: NewBed, diary: Diary, caplog: pytest.LogCaptureFixture, wire: str
) -> None:
    bed = new_bed(own_server, admit(own_server, "worker"), wire=wire, run_log=True)
    diary.push = bed.client.push
    run_op, keys, gone = bed.setup.store.run, bed.setup.store.keys, ops.Owner("gone:1:x/default.1")
    jids = bed.send(Errand, 30)
    assert run_op(ops.join(keys, gone.name, 60_000, 5))
    want = ops.Want(5, 1, (("default", 5),))
    assert isinstance(run_op(ops.step(keys, gone, 60_000, [], want, dead_max=9, dead_timeout=9)), ops.Stepped)
    run_op(rescue.fence(keys, gone.name, None))
    jids |= bed.send(Stumbles) | bed.send(Rests) | bed.send(Sends)
    dying = bed.send(Falls)
    worker = bed.start()
    bed.until_ended(jids)
    bed.until(lambda: {job["jid"] for job in bed.members("dead")} == dying, "the dead set")
    bed.settled(len(jids) + 3)
    assert worker.stop(timeout=5) == []
    assert bed.times(StoreDown) == 0
    assert [each for each in caplog.messages if "ACL" in each or "NOPERM" in each or "can't run" in each] == []
    log = own_server.client().acl_log()
    assert {entry["object"] for entry in log} <= {"client|setinfo"}


def test_a_push_that_is_not_allowed_names_the_command(own_server: Server, tmp_path: Path) -> None:
    said = pillion(
        "push", "Anything", "confidential", cwd=tmp_path, env={"REDIS_URL": admit(own_server, "producer", "-lpush")}
    )
    assert (said.code, said.out) == (5, "")
    assert "does not allow `lpush` to its user\n  help: print what each kind of user needs: pillion acl" in said.err
    assert "confidential" not in said.err
    assert PASSWORD not in said.err


def test_the_command_prints_lines_that_the_server_takes(own_server: Server, tmp_path: Path) -> None:
    env = {"REDIS_URL": f"redis://:{PASSWORD}@nowhere:1/3", "PILLION_REDIS_PREFIX": "shop:"}
    said = pillion("acl", cwd=tmp_path, env=env)
    lines = said.out.splitlines()
    assert (said.code, said.err, len(lines)) == (0, "", 5)
    assert PASSWORD not in said.out
    for line in lines:
        assert {"+select", "~shop:queue:*"} <= set(line.split())
        assert own_server.client().execute_command(*shlex.split(line)) == b"OK"
    (named,) = pillion("acl", "viewer", "--user", "eve", cwd=tmp_path, env={}).out.splitlines()
    assert named.startswith("ACL SETUSER eve on ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["workr"], "no role `workr`; known are producer, once-producer, worker, viewer, operator"),
        (["--user", "eve"], "--user names the user of one role; name the ROLE"),
    ],
)
def test_a_role_that_there_is_not(words: list[str], sentence: str, tmp_path: Path) -> None:
    said = pillion("acl", *words, cwd=tmp_path, env={})
    assert (said.code, said.out) == (2, "")
    assert f"error: {sentence}" in said.err
