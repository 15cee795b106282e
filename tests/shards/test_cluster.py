"""Connections to a Redis Cluster: the owner of a prefix is found, and found again after it has moved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillion import adapters
from pillion.config import RedisSettings
from pillion.errors import ConfigError, Refused, Unavailable
from pillion.store.connection import Session
from pillion.store.guides import Nodes, nodes_of
from pillion.store.op import command
from tests.servers import Server, free_port
from tests.shards.clusters import TAGS, Cluster
from tests.store.conftest import Colour, Face
from tests.store.test_addresses import CANARY, QUOTED, ca, certificates
from tests.store.test_connection import JOB
from tests.store.third_adapter import BareSockets
from tests.waiting import wait_until

__all__ = ["ca", "certificates"]  # fixtures

adapters.register("bare-sockets-of-a-cluster", BareSockets)


@pytest.fixture(params=["redis-py", "valkey-py", "bare-sockets-of-a-cluster"])
def adapter(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Colour:
    chosen: Colour = request.param
    return chosen


@pytest.fixture
def faces() -> Iterator[list[Face]]:
    """Closed at the end."""
    made: list[Face] = []
    yield made
    for face in made:
        face.close()


def at(node: Server) -> str:
    return f"127.0.0.1:{node.port}"


def queued(cluster: Cluster, tag: str) -> int:
    return int(cluster.ask(cluster.owner(tag), "LLEN", f"{tag}queue:default"))


def test_any_node_leads_to_the_owner_of_each_shard(
    adapter: str, colour: Colour, cluster: Cluster, faces: list[Face]
) -> None:
    assert len({cluster.owner(tag).port for tag in TAGS}) == 3
    for node in cluster.nodes:
        for tag in TAGS:
            faces.append(Face(colour, {"cluster": [at(node)], "prefix": tag, "adapter": adapter}))
            assert faces[-1].push(JOB)
    assert [queued(cluster, tag) for tag in TAGS] == [6, 6, 6]


def test_a_shard_that_has_moved_is_followed(adapter: str, colour: Colour, cluster: Cluster, faces: list[Face]) -> None:
    settings = {"cluster": [at(cluster.nodes[0])], "prefix": "{s1}", "adapter": adapter}
    faces.append(Face(colour, settings))
    face = faces[0]
    assert face.push(JOB, durability="replicated")
    session = Session(RedisSettings(**{**settings, "cluster": tuple(settings["cluster"])}))
    session.open()
    assert session.call(command("LLEN", "{s1}queue:default")) == 1
    replica = cluster.replica("{s1}")
    cluster.ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")  # by vote, two in a row would have to wait
    wait_until(lambda: cluster.ask(replica, "ROLE")[0] == "master", what="the replica to take over")
    cluster.wait()
    assert face.push(JOB)
    assert face.run(command("ROLE"))[0] == b"master"
    with pytest.raises(Refused, match=r"MOVED .*redis\.cluster"):
        session.call(command("LLEN", "{s1}queue:default"))
    session.open()
    assert session.call(command("LLEN", "{s1}queue:default")) == 2
    session.close()
    assert cluster.owner("{s1}") is replica


def test_nodes_that_were_seen_lead_there_when_those_that_were_named_are_gone(
    cluster: Cluster, faces: list[Face]
) -> None:
    named = cluster.owner("{s0}")
    faces += [Face("sync", {"cluster": [at(named)], "prefix": "{s1}"}) for _ in range(2)]
    assert faces[0].push(JOB)
    named.kill()
    assert faces[1].push(JOB)  # a store of its own: what one has learnt, the process knows
    wait_until(lambda: "{s0}" and cluster.owner("{s0}") is not named, what="a replica to take over")


def test_a_node_that_does_not_own_the_shard_says_so(cluster: Cluster, faces: list[Face]) -> None:
    wrong = cluster.owner("{s0}")
    faces.append(Face("sync", {"url": wrong.tcp_url, "prefix": "{s1}"}))
    with pytest.raises(Refused, match=r"MOVED .* name some of its nodes in redis\.cluster"):
        faces[0].push(JOB)
    assert queued(cluster, "{s1}") == 0


def test_what_cannot_be_a_cluster_is_told(kind: str, cluster: Cluster, faces: list[Face]) -> None:
    seed = at(cluster.nodes[0])
    wrong = [
        ({"cluster": [seed]}, r"redis\.prefix: expected a hash tag.*got ''.*write prefix = \"\{s0\}\""),
        ({"cluster": [seed], "prefix": "{}{s0}"}, "expected a hash tag"),
        ({"cluster": [seed], "prefix": "{s0}", "url": "redis://localhost/3"}, "expected database 0"),
        ({"cluster": [seed], "prefix": "{s0}", "url": "unix:///tmp/x"}, "got a socket"),
        ({"cluster": [seed], "prefix": "{s0}", "sentinels": [seed], "master": "x"}, "got both"),
    ]
    for given, words in wrong:
        with pytest.raises(ConfigError, match=words):
            face_of(faces, given).push(JOB)
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=rf"prefix '\{{s0\}}' of the cluster of {dead}: no node tells .*111"):
        face_of(faces, {"cluster": [dead], "prefix": "{s0}"}).push(JOB)
    alone = Server("redis" if kind == "redis" else "valkey").start()
    try:
        with pytest.raises(Unavailable, match=r"cluster support disabled.*write its address as redis\.url"):
            face_of(faces, {"cluster": [at(alone)], "prefix": "{s0}"}).push(JOB)
    finally:
        alone.close()


def face_of(faces: list[Face], given: dict[str, object]) -> Face:
    faces.append(Face("sync", given))
    return faces[-1]


def test_passwords_and_tls(adapter: str, colour: Colour, secured: Cluster, ca: str, faces: list[Face]) -> None:
    port = secured.ask(secured.nodes[0], "CONFIG", "GET", "tls-port")[1]
    seeds = {"cluster": [f"127.0.0.1:{port}"], "prefix": "{s0}", "adapter": adapter}
    faces.append(Face(colour, {**seeds, "url": f"rediss://:{QUOTED}@", "ca_file": ca}))
    assert faces[-1].push(JOB)
    faces.append(Face(colour, {**seeds, "url": "rediss://:wrong@", "ca_file": ca}))
    with pytest.raises(Refused, match=r"refused the credentials"):
        faces[-1].push(JOB)
    faces.append(Face(colour, {**seeds, "url": f"rediss://:{QUOTED}@"}))
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file") as caught:
        faces[-1].push(JOB)
    assert CANARY not in str(caught.value)


@pytest.fixture(scope="module")
def secured(certificates: object) -> Iterator[Cluster]:
    """One node that speaks TLS, wants a password and holds every slot."""
    options = certificates.server_options(certificates.both, free_port())  # type: ignore[attr-defined]
    cluster = Cluster("redis", *options, "--tls-cluster", "yes")
    try:
        cluster.start(1).guard(CANARY)
        yield cluster
    finally:
        cluster.close()


def test_each_question_begins_with_another_node() -> None:
    nodes = Nodes((("a", 1), ("b", 2)))
    assert [nodes.in_turn()[0] for _ in range(4)] == [("a", 1), ("b", 2)] * 2
    nodes.saw([("c", 3), ("b", 2)])
    assert {nodes.in_turn()[0][0] for _ in range(3)} == {"a", "b", "c"}
    assert sorted(nodes.in_turn()) == [("a", 1), ("b", 2), ("c", 3)]
    assert nodes_of((("x", 1),)) is nodes_of((("x", 1),))
