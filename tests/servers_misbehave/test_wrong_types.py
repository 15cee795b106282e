"""Keys that somebody made something else of: each that Pillion reads or writes, below a worker at its work.

Which keys there are comes from the table in `store/keys.py`, so that none is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from pillion.config import Capsule
from pillion.errors import StoreError
from pillion.events import StoreDown
from pillion.store import keys as keys_module
from pillion.store import ops, rescue
from tests.servers import Server, available_kinds
from tests.servers_misbehave.conftest import Bed, NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Falls, Rests, Stumbles

ROWS = re.findall(r"^\| (`[^\n]*?) *\| (?:set|list|zset|hash|string) *\|", keys_module.__doc__ or "", re.MULTILINE)
FAMILIES = [name for row in ROWS for name in re.findall("`([^`]+)`", row)]

WHERE = {
    "queue:<q>": "queue:default",
    "<identity>": "{identity}",
    "<identity>:work": "{identity}:work",
    "<identity>-signals": "{identity}-signals",
    ":failed": "stat:failed",
    "stat:processed:<day>": "stat:processed:????-??-??",
    "j|<date>|<h:mm>": "j|??????|*:??",
    "j|..|h:m": "j|??????|*:?",
    "h|<class>-<d>-<h:m>": "h|Errand-*",
    "pillion:inf:<owner>": "pillion:inf:{owner}",
    "pillion:inf:<owner>:<tray>": "pillion:inf:gone:1:x/default.1:1",
    "pillion:once:<jid>": "pillion:once:{once}",
    "pillion:rescued:<jid>": "pillion:rescued:{jid}",
}
"""Where a key of a family is found, for those that are not called as the table calls them."""

ELSEWHERE = {
    "<identity>:workers": "of `wire` 6, written as `work` is",
    "j|<yyyymmdd>|<h:m>": "of `wire` 7, written as the others are",
    "<class>-<dd>-<hh:m>": "of `wire` 7, written as the others are",
    "<day>-marks": "no worker's: tests/api/test_trouble.py",
    "...": "and failed",
    "deploylock-<label>": "no worker's: tests/api/test_trouble.py",
}

WAITED_FOR = {"pillion:lease", "pillion:inf:<owner>", "pillion:pulse"}
"""Without these no job is taken. All others must not keep a job waiting."""

NOTICED = {
    *("queues", "queue:<q>", "schedule", "retry", "dead", "paused", "processes", "<identity>", "<identity>-signals"),
    *("stat:processed", ":failed", "stat:processed:<day>", "j|<date>|<h:mm>", "j|..|h:m", "h|<class>-<d>-<h:m>"),
    *("pillion:lease", "pillion:pulse", "pillion:fenced", "pillion:salvage", "pillion:inf:<owner>", "pillion:suspects"),
}
"""What is told of, in the log or as an error. The others are written anew, only asked for, or not a worker's."""


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    """One kind of server is enough for so many: each says WRONGTYPE."""
    server = Server(available_kinds()[-1])
    try:
        yield server.start()
    finally:
        server.close()


class Refusals:
    """Lets them pass. `told` says what was refused."""

    def __init__(self) -> None:
        self.told: list[StoreError] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, StoreError):
            self.told.append(error)
        return isinstance(error, StoreError)


def plant(bed: Bed) -> tuple[str, Callable[[], object]]:
    """A job that is held by a dead owner: its jid, and how to fence the owner."""
    run, keys, gone = bed.setup.store.run, bed.setup.store.keys, "gone:1:x/default.1"
    jid = bed.client.push({"class": Errand, "args": [], "queue": "left"}) or ""
    assert run(ops.join(keys, gone, 60_000, 1))
    want = ops.Want(1, 1, (("left", 1),))
    assert isinstance(run(ops.step(keys, ops.Owner(gone), 60_000, [], want, dead_max=9, dead_timeout=9)), ops.Stepped)
    return jid, lambda: run(rescue.fence(keys, gone, None))


def spoil(bed: Bed, family: str, **known: str) -> list[bytes]:
    """Put something else where the keys of a family are, or would be; gives them."""
    pattern = WHERE.get(family, family).format(**known)
    found = bed.redis.keys(pattern) or [pattern.encode()]
    for key in found:
        with bed.redis.pipeline(transaction=True) as pipe:
            pipe.delete(key).xadd(key, {"a": "surprise"})
            pipe.execute()
    return found


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ELSEWHERE])
def test_a_key_of_another_type_loses_no_job(
    family: str,
    one: Server,
    new_bed: NewBed,
    diary: Diary,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pillion.worker.fetcher.SHUN", 0.2)
    one.reset()
    bed = new_bed(one, capsules=(Capsule(concurrency=3, queues=(("default", 0), ("other", 0), ("left", 0))),))
    left, fence = plant(bed)
    bed.start()
    bed.until_works()
    bed.settled(1)
    (owner,) = (name for name in bed.owners() if not name.startswith("gone"))
    once = bed.setup.config.new_jid()
    keys = spoil(bed, family, identity=owner.partition("/")[0], owner=owner, jid=left, once=once)
    pushed, refusals = {left}, Refusals()
    jobs = ((Stumbles, {}), (Falls, {}), (Rests, {})) if family in ("retry", "dead", "schedule") else ()
    for job, fields in (*jobs, (Errand, {}), (Errand, {"jid": once})):
        with refusals:
            pushed.add(bed.client.push({"class": job, "args": [], "queue": "other", **fields}, once=bool(fields)) or "")
    with refusals:
        fence()
    if family in WAITED_FOR:
        bed.until(lambda: bed.times(StoreDown), "the trouble to be noticed")
    elif family != "queues":
        assert bed.client.push({"class": Errand, "args": [], "queue": "other"}) is not None
    if family in NOTICED:
        bed.until(lambda: refusals.told or bed.heard or "WRONGTYPE" in caplog.text, "it to be told", timeout=2)

    bed.redis.delete(*keys)
    bed.until(lambda: fence() or True, "the dead to be fenced")
    dead = lambda: {job["jid"] for job in bed.members("dead")}  # noqa: E731
    gone = {"pillion:inf:<owner>:<tray>": left, "pillion:lease": left, "pillion:once:<jid>": once}.get(family)
    missing = lambda: pushed - {gone} - diary.count("end").keys() - dead()  # noqa: E731
    bed.until(lambda: not missing(), "every job to come to its end")
    bed.until_works()
    assert "a round of work failed" not in caplog.text
