"""The test servers themselves: what the fault tests rely on must be true of them."""

from __future__ import annotations

import hashlib

import pytest
import redis

from tests import leaks
from tests.conftest import NewServer
from tests.servers import Kind, Server
from tests.waiting import wait_until


def test_a_server_answers_on_both_addresses(server: Server, kind: Kind) -> None:
    server.client().set("greeting", "hello")
    with redis.Redis.from_url(server.url) as by_socket, redis.Redis.from_url(server.tcp_url) as by_port:
        assert by_socket.get("greeting") == by_port.get("greeting") == b"hello"
    assert server.info("server").get("server_name", "redis") == kind


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_begins_empty(server: Server, turn: int) -> None:
    client = server.client()
    script = "return redis.status_reply('seen')"
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(hashlib.sha1(script.encode()).hexdigest(), 0)
    assert client.dbsize() == 0
    client.script_load(script)
    client.set("left", f"by turn {turn}")


def test_a_kill_loses_nothing_that_was_acknowledged(own_server: Server) -> None:
    client = own_server.client()
    client.rpush("queue:default", *range(100))
    url, port, pid = own_server.url, own_server.port, own_server.pid

    own_server.kill()
    assert not own_server.alive()
    with pytest.raises(redis.ConnectionError):
        client.ping()

    own_server.restart()
    assert (own_server.url, own_server.port) == (url, port)
    assert own_server.pid != pid
    assert client.llen("queue:default") == 100


def test_without_a_file_it_comes_back_empty(new_server: NewServer) -> None:
    fresh = new_server()
    fresh.client().set("a", 1)
    fresh.stop()
    fresh.restart()
    assert fresh.client().dbsize() == 0


def test_a_paused_server_answers_nothing_until_it_resumes(own_server: Server) -> None:
    own_server.client().ping()
    own_server.pause()
    assert own_server.alive()
    with pytest.raises(redis.TimeoutError):
        own_server.client(socket_timeout=0.2).ping()
    own_server.resume()
    assert own_server.client().ping()


def test_a_paused_server_can_be_ended(new_server: NewServer) -> None:
    for end in (Server.stop, Server.kill):
        frozen = new_server()
        frozen.pause()
        end(frozen)
        assert not frozen.alive()


def test_options_hold_over_a_restart(new_server: NewServer) -> None:
    small = new_server("--maxmemory", "8mb", aof="everysec")
    small.restart()
    assert small.info("memory")["maxmemory"] == 8 * 1024 * 1024
    assert small.info("persistence")["aof_enabled"] == 1


def test_a_server_that_cannot_start_says_why(new_server: NewServer) -> None:
    with pytest.raises(AssertionError, match="no-such-option"):
        new_server("--no-such-option", "1")


def test_closing_leaves_neither_process_nor_folder(kind: Kind) -> None:
    passing = Server(kind).start()
    passing.close()
    passing.close()
    assert not passing.alive()
    assert not passing.folder.exists()


@pytest.mark.leaks_keys
def test_leaked_keys_are_named(server: Server) -> None:
    client = server.client()
    client.zadd("pillion:lease", {"here": 1})
    client.hset("pillion:inf:here", "1", "1 default")
    client.rpush("pillion:inf:here:1", "{}")
    client.set("pillion:once:abc", "1", ex=600)
    client.set("outside", "is none of our business")
    assert list(leaks.leaked(client)) == []

    client.rpush("pillion:inf:here:2", "{}")
    client.hset("{s0}pillion:inf:gone", "g", "1")
    client.set("pillion:once:def", "1")
    client.set("pillion:rescued:ghi", "1", ex=80 * 3600)
    client.expire("pillion:lease", 10)
    with pytest.raises(AssertionError) as caught:
        leaks.check(server)
    assert [line.split(": ")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "pillion:inf:here:2",
        "pillion:lease",
        "pillion:once:def",
        "pillion:rescued:ghi",
        "{s0}pillion:inf:gone",
    ]


def test_waiting_ends_with_the_answer_or_says_what_it_waited_for() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match=r"waited 0\.01 s for the cows to come home; the last answer was 0"):
        wait_until(lambda: 0, timeout=0.01, what="the cows to come home")
