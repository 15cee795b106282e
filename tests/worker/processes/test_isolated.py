"""Jobs with `isolation="process"`: what they see, what limits them, and that a crash costs nobody else anything."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pillion import Client, ConfigError, Job, job
from pillion.registry import default as registry
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import Running, running, write
from tests.worker.processes.swarm import children_of, end, is_gone, sockets_of

APP = """
import asyncio
import contextvars
import json
import os
import pathlib
import signal
import threading
import pillion

tenant = contextvars.ContextVar("tenant")
pillion.configure().carry(tenant)


class Refused(Exception):
    def __init__(self, code):
        super().__init__(f"refused with {code}")
        self.code = code

    def __reduce__(self):
        return (Refused, (self.code,))


def retry_in(count, error, job):
    return 1000 + error.code if isinstance(error, Refused) else None


class Apart(pillion.Job, isolation="process", retry_in=retry_in, retry=1, backtrace=True):
    def perform(self, what, *args):
        return getattr(self, what)(*args)

    def tell(self, name):
        run = pillion.current_job()
        self.logger.info("telling")
        found = {"pid": os.getpid(), "jid": run.jid, "attempt": run.attempt, "tenant": tenant.get("none")}
        pathlib.Path(name).write_text(json.dumps(found))

    def refuse(self):
        raise Refused(7)

    def unpicklable(self):
        class Local(Exception):
            pass
        raise Local("from inside")

    def die(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def leave(self):
        os._exit(3)

    def snooze(self):
        return pillion.snooze(5000)

    def wait(self, name):
        pathlib.Path(name).write_text(str(os.getpid()))
        while not self.interrupted():
            threading.Event().wait(0.01)
        pathlib.Path(name + ".interrupted").touch()


class Small(pillion.Job, isolation="process", max_memory="300M"):
    def perform(self, megabytes):
        kept = b"x" * (megabytes << 20)


class Brief(pillion.Job, isolation="process", timeout=0.3):
    def perform(self, name):
        pathlib.Path(name).write_text(str(os.getpid()))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        while True:
            pass


@pillion.job(isolation="process")
async def apart_async(name, *, also="nothing"):
    await asyncio.sleep(0)
    pathlib.Path(name).write_text(f"{os.getpid()} {also}")


class Beside(pillion.Job):
    def perform(self, name):
        pathlib.Path(name).write_text(str(os.getpid()))


class Around:
    def __call__(self, instance, job, queue):
        if job["class"] == "Apart" and job["args"][0] == "replaced":
            job["args"][:] = ["tell", job["args"][1]]
        seen = yield
        with open("middleware", "a") as file:
            file.write(f"{os.getpid()} {job['class']} {seen!r}\\n")


@pillion.configure_server
def configure(setup):
    setup.server_middleware.add(Around)
"""


ENDLESS = APP.replace("timeout=0.3", "timeout=300")
"""`Brief` hears nothing and ends only if it is killed."""


class Bed:
    """A worker with isolated jobs, and what a test wants to know of it."""

    def __init__(self, worker: Running, folder: Path, server: Server) -> None:
        self.worker = worker
        self.folder = folder
        self.redis = server.client()
        self.client = Client(server.url)
        self.pid = worker.process.pid

    def push(self, name: str, *args: Any, **fields: Any) -> str:
        jid = self.client.push({"class": name, "args": list(args), **fields})
        assert jid is not None
        return jid

    def read(self, name: str) -> str:
        path = self.folder / name
        return wait_until(lambda: path.exists() and path.read_text(), what=f"{name}\n{self.worker.heard}") or ""

    def failed(self) -> dict[str, Any]:
        """The only job in the retry set, and its score."""
        [(raw, score)] = wait_until(lambda: self.redis.zrange("retry", 0, -1, withscores=True), what="a failed job")
        return {**json.loads(raw), "score": score}

    def still_works(self) -> None:
        self.push("Beside", "beside")
        assert self.read("beside") == str(self.worker_pid)

    @property
    def worker_pid(self) -> int:
        [name] = self.redis.smembers("processes")
        return int(name.split(b":")[1])


@contextmanager
def apart(server: Server, folder: Path, *words: str, app: str = APP, **env: str) -> Iterator[Bed]:
    """A worker with the jobs of `app`; whatever happens, its processes are gone at the end."""
    write(folder, {"app.py": app})
    full = {"REDIS_URL": server.url, "PILLION_LOG_FORMAT": "pretty", **env}
    with running("worker", "app", "-c", "3", *words, cwd=folder, env=full) as worker:
        worker.wait_for("pillion is running")
        bed = Bed(worker, folder, server)
        family = children_of(bed.pid)
        try:
            yield bed
        finally:
            if worker.process.poll() is None:
                worker.end()
            for pid in family:
                end(pid, folder)
            bed.client.setup.store.close()


def test_it_runs_elsewhere_and_finds_what_it_finds_in_a_worker(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path) as bed:
        jid = bed.push("Apart", "replaced", "told", ctx={"tenant": "acme"})
        told = json.loads(bed.read("told"))
        assert told.pop("pid") != bed.pid
        assert told == {"jid": jid, "attempt": 1, "tenant": "acme"}
        bed.push("apart_async", "async", kwargs={"also": "more"})
        assert bed.read("async").endswith(" more")
        wait_until(lambda: len(bed.read("middleware").splitlines()) == 2)
        assert set(bed.read("middleware").splitlines()) == {f"{bed.pid} Apart None", f"{bed.pid} apart_async None"}
        [line] = [line for line in bed.worker.heard.splitlines() if "telling" in line]
        assert f"jid={jid}" in line
        assert bed.worker.stop() == 0


def test_what_it_raises_is_what_decides(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path) as bed:
        bed.push("Apart", "refuse")
        failed = bed.failed()
        assert (failed["error_class"], failed["error_message"]) == ("Refused", "refused with 7")
        assert failed["score"] - failed["failed_at"] / 1000 >= 1000  # what its retry_in made of the error
        bed.redis.delete("retry")
        bed.push("Apart", "unpicklable")
        failed = bed.failed()
        assert failed["error_class"] == "ProcessCrashed"
        assert "Local('from inside')" in failed["error_message"]
        bed.redis.delete("retry")
        bed.push("Apart", "snooze")
        wait_until(lambda: bed.redis.zcard("schedule") == 1)


@pytest.mark.parametrize(("how", "words"), [("die", "was killed by SIGSEGV"), ("leave", "ended with exit code 3")])
def test_a_crash_fails_that_job_and_nothing_else(one_server: Server, tmp_path: Path, how: str, words: str) -> None:
    with apart(one_server, tmp_path) as bed:
        bed.push("Apart", "wait", "neighbour")
        neighbour = int(bed.read("neighbour"))
        bed.push("Apart", how)
        failed = bed.failed()
        assert failed["error_class"] == "ProcessCrashed"
        assert words in failed["error_message"]
        assert not is_gone(neighbour)
        bed.still_works()
        assert bed.worker.process.poll() is None


def test_a_job_that_takes_too_long_is_killed(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path) as bed:
        bed.push("Brief", "pid")
        assert bed.failed()["error_class"] == "ProcessTimeout"
        assert is_gone(int(bed.read("pid")))
        bed.still_works()


def test_a_job_that_wants_too_much_memory_fails(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path) as bed:
        bed.push("Small", 20)
        wait_until(lambda: "Small" in bed.read("middleware"))
        bed.push("Small", 400)
        assert bed.failed()["error_class"] == "MemoryError"


def test_it_hears_that_the_worker_stops(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path) as bed:
        bed.push("Apart", "wait", "polite")
        bed.read("polite")
        assert bed.worker.stop() == 0
        assert (tmp_path / "polite.interrupted").exists()


def test_a_job_that_does_not_listen_is_back_in_its_queue_when_the_worker_stops(
    one_server: Server, tmp_path: Path
) -> None:
    with apart(one_server, tmp_path, "-t", "0.3", app=ENDLESS) as bed:
        jid = bed.push("Brief", "rude")
        pid = int(bed.read("rude"))
        assert bed.worker.stop() == 0
        assert is_gone(pid)
        [raw] = bed.redis.lrange("queue:default", 0, -1)
        assert json.loads(raw)["jid"] == jid
        assert bed.redis.zcard("retry") == 0


def test_no_process_outlives_a_killed_worker(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path, app=ENDLESS, PILLION_LEASE="1") as bed:
        bed.push("Brief", "pid")
        pid, [helper] = int(bed.read("pid")), children_of(bed.pid)
        bed.worker.process.send_signal(signal.SIGKILL)
        wait_until(lambda: is_gone(pid) and is_gone(helper), what="cell and helper to end")
        one_server.reset()


def test_a_worker_that_lost_its_helper_leaves(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path, app=ENDLESS) as bed:
        bed.push("Brief", "pid")
        pid, [helper] = int(bed.read("pid")), children_of(bed.pid)
        os.kill(helper, signal.SIGKILL)
        assert bed.worker.process.wait(20) == 70
        assert is_gone(pid)
        assert bed.failed()["error_class"] == "ProcessCrashed"


def test_a_supervised_process_has_a_helper_of_its_own(one_server: Server, tmp_path: Path) -> None:
    with apart(one_server, tmp_path, "--processes", "1", PILLION_LEASE="3600") as bed:
        bed.push("Apart", "wait", "pid")
        pid, worker = int(bed.read("pid")), bed.worker_pid
        [helper] = children_of(worker)
        assert sockets_of(helper) == 1  # to its worker; one to the supervisor would hide the worker's end
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), what="the cell to end")
        bed.worker.wait_for("pillion is running", times=2)
        wait_until(lambda: int(bed.read("pid")) != pid, what="the job to start again")
        assert bed.worker.stop() == 0


def test_limits_want_a_process() -> None:
    with registry.restored():
        with pytest.raises(ConfigError, match='timeout needs isolation="process"'):

            class IsolatedNot(Job, timeout=5):
                def perform(self) -> None: ...

        with pytest.raises(ConfigError, match=r"max_memory: expected an amount of memory with its unit, got 512"):

            @job(isolation="process", max_memory=512)
            def isolated_vague() -> None: ...

        class IsolatedWell(Job, isolation="process", timeout=5):
            def perform(self) -> None: ...

        with pytest.raises(ConfigError, match="'timeout' belongs to the definition"):
            IsolatedWell.set(timeout=6)
