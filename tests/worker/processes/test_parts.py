"""The parts of the supervisor that decide or carry: pauses, cores, channels, forkers."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pillion.worker.forking.channel import MAX_UNSENT, Channel
from pillion.worker.forking.forker import Forker
from pillion.worker.forking.messages import Alive, Exited, Fork, Forked, Kill, Rescue, Running
from pillion.worker.supervisor.cores import usable, wanted
from pillion.worker.supervisor.restarts import Restarts
from tests.waiting import wait_until

# --- pauses -----------------------------------------------------------------------------------------------------------


def test_the_first_death_costs_no_pause_and_each_that_follows_twice_the_last() -> None:
    restarts = Restarts()
    assert restarts.may_start(0)
    assert [restarts.died(lived=1, now=0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_nobody_starts_before_the_pause_is_over() -> None:
    restarts = Restarts()
    restarts.died(lived=1, now=100)
    assert restarts.may_start(100)
    restarts.died(lived=1, now=100)
    assert not restarts.may_start(100.9)
    assert restarts.may_start(101)


def test_a_long_life_makes_up_for_earlier_deaths() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.died(lived=1, now=0)
    assert restarts.died(lived=60, now=500) == 0


# --- cores ------------------------------------------------------------------------------------------------------------


def cgroup(folder: Path, membership: str, **quotas: str) -> tuple[Path, Path]:
    """A tree of cgroups as the kernel shows it: `a__b="200000 100000"` is the quota of /a/b."""
    for name, quota in quotas.items():
        path = folder.joinpath("fs", *name.split("__")) if name != "root" else folder / "fs"
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.max").write_text(f"{quota}\n")
    (folder / "cgroup").write_text(membership)
    return folder / "fs", folder / "cgroup"


MANY = set(range(8))


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 8),
        ({"root": "max 100000"}, 8),
        ({"root": "250000 100000"}, 2),
        ({"root": "50000 100000"}, 1),
        ({"a__b": "300000 100000"}, 3),
        ({"a": "400000 100000", "a__b": "max 100000"}, 4),
        ({"root": "nonsense"}, 8),
    ],
)
def test_quotas_of_this_cgroup_and_those_above_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotas: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: MANY)
    assert usable(*cgroup(tmp_path, "0::/a/b\n", **quotas)) == cores


def test_version_1_of_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: MANY)
    root, membership = cgroup(tmp_path, "4:cpu,cpuacct:/\n")
    (root / "cpu").mkdir(parents=True)
    (root / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (root / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable(root, membership) == 1
    (root / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable(root, membership) == 8


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5})
    assert usable(tmp_path, tmp_path / "none") == 2


def test_what_the_option_means() -> None:
    assert (wanted(3), wanted(None)) == (3, 1)
    assert wanted("auto") == usable()


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    assert other.receive() == []
    assert one.send(Running())
    assert one.send(Alive(1, 2, 3))
    assert other.receive() == [Running(), Alive(1, 2, 3)]


def test_what_was_said_before_the_end_is_heard_before_it(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(Running())
    one.close()
    assert other.receive() == [Running()]
    assert other.receive() is None
    assert not other.send(Running())


def test_a_descriptor_comes_with_its_message(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    reading, writing = os.pipe()
    assert one.send(Fork(1), writing)
    os.close(writing)
    assert other.receive() == [Fork(1)]
    copy = other.take_descriptor()
    os.write(copy, b"here")
    os.close(copy)
    assert os.read(reading, 10) == b"here"
    os.close(reading)


def test_nobody_waits_for_an_end_that_does_not_read(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    long = Rescue("x" * 10_000)
    sent = 0
    while one.send(long):
        sent += 1
        assert sent * 10_000 < 10 * MAX_UNSENT
    heard = other.receive() or []
    while one.send(Running()) and Running() not in heard:
        heard += other.receive() or []
    assert heard[:sent] == [long] * sent


def test_words_of_another_version_are_an_error(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    os.write(one.fileno(), b'{"say":"Dance"}\n')
    with pytest.raises(msgspec.DecodeError):
        other.receive()


# --- forkers ----------------------------------------------------------------------------------------------------------

forking = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")  # an earlier test's


def forker(*, mortal: bool) -> tuple[Channel, int]:
    """A forker in a process of its own; its children sleep until their descriptor's other end is closed."""
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            birth = Forker(theirs, mortal=mortal).run()
            code = 0 if birth is None else os.read(birth.descriptor, 1)[0]
        finally:
            os._exit(code)
    theirs.close()
    return ours, pid


@forking
def test_a_forker_tells_how_its_children_end() -> None:
    channel, pid = forker(mortal=False)
    mine, its = os.pipe()
    reading, writing = os.pipe()
    channel.send(Fork(1), reading)
    channel.send(Fork(2), mine)
    heard: list[object] = []

    def told(count: int) -> bool:
        heard.extend(channel.receive() or ())
        return len(heard) == count

    wait_until(lambda: told(2))
    assert [type(message) for message in heard] == [Forked, Forked]
    os.write(writing, bytes([7]))
    wait_until(lambda: told(3))
    assert heard[-1] == Exited(1, 7)
    channel.send(Kill(1))  # it is gone: nobody else may be hit
    channel.send(Kill(2))
    wait_until(lambda: told(4))
    assert heard[-1] == Exited(2, -signal.SIGKILL)
    channel.close()
    assert os.waitpid(pid, 0)[1] == 0
    for descriptor in (mine, its, reading, writing):
        os.close(descriptor)


@forking
@pytest.mark.parametrize("mortal", [True, False])
def test_children_end_with_a_forker_only_where_they_are_mortal(mortal: bool) -> None:
    channel, pid = forker(mortal=mortal)
    order, writing = os.pipe()
    channel.send(Fork(1), order)
    wait_until(channel.receive)
    channel.close()
    assert os.waitpid(pid, 0)[1] == 0
    os.close(order)
    if mortal:
        wait_until(lambda: is_broken(writing), what="the child to be killed")
    else:
        assert not is_broken(writing)
        os.write(writing, bytes([0]))
    os.close(writing)


def is_broken(writing: int) -> bool:
    """Whether nobody has the other end of a pipe any more."""
    poll = select.poll()
    poll.register(writing, 0)
    return bool(poll.poll(0))
