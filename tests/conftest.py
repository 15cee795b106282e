"""What every test may ask for: a flushed server, a server of its own, Ruby. See `servers.py` for what a server can do.

    server        a running, empty server, shared by the session; never kill or reconfigure it
    own_server    a fresh one for this test alone, append-only file on: kill it, freeze it, restart it
    new_server    a factory for more of them, with options
    ruby          the Ruby interpreter with its Sidekiq
    figures       shows what a test has measured, at the end of the run

Tests that ask for a server run once on each kind there is: Valkey always, Redis where `redis-server` is installed
(`-k valkey` picks one). With PILLION_TEST_ALL=1 what is missing fails instead of being left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis
import pytest

from tests import leaks
from tests.servers import Kind, Server, available_kinds, missing

hypothesis.settings.register_profile("pillion", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("pillion")

NewServer: TypeAlias = Callable[..., Server]
"""`new_server(*args, aof="always")`: the arguments of `Server.start`."""

WATCHED = {Path(__file__).parent / name for name in ("store", "worker")}
SETTINGS = {"APP_ENV", "REDIS_PROVIDER", "REDIS_URL"}
MARKED_BY = {"kind": "redis", "ruby": "ruby"}
FAILED = pytest.StashKey[bool]()


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Show a text at the end of the run, also where tests run in several processes."""
    return lambda text: record_property("figures", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests have measured."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    shown = [
        f"{report.nodeid}\n{text}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, text in report.user_properties
        if name == "figures"
    ]
    if shown:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(shown))


@pytest.fixture(scope="session", params=available_kinds())
def kind(request: pytest.FixtureRequest) -> Kind:
    """Which server this test runs against."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="session")
def session_server(kind: Kind) -> Iterator[Server]:
    """One server of this kind for the whole session. Tests ask for `server` instead."""
    server = Server(kind)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def server(session_server: Server) -> Iterator[Server]:
    """A running, empty server: no keys, no scripts."""
    session_server.reset()
    yield session_server
    session_server.close_clients()
    if session_server.alive():
        session_server.resume()
    else:
        session_server.restart()
        pytest.fail("this test ended the session's server; use own_server for that", pytrace=False)


@pytest.fixture
def new_server(kind: Kind) -> Iterator[NewServer]:
    """Makes servers of this kind that live as long as the test."""
    made: list[Server] = []

    def make(*args: str, **options: Any) -> Server:
        made.append(Server(kind))
        return made[-1].start(*args, **options)

    try:
        yield make
    finally:
        for each in made:
            each.close()


@pytest.fixture
def own_server(new_server: NewServer) -> Server:
    """A server that this test may kill: every acknowledged write is in its append-only file."""
    return new_server(aof="always")


@dataclass(frozen=True)
class Ruby:
    """The system's Ruby, with Sidekiq. `version` is Sidekiq's."""

    path: str
    version: tuple[int, ...]

    def run(self, code: str, *args: str, timeout: float = 60) -> str:
        """Run `code` with `args` in ARGV and give what it printed; raises with its words where it failed."""
        done = subprocess.run(
            [self.path, "-rsidekiq", "-e", code, "--", *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"ruby said: {done.stderr.strip()[-2000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def ruby() -> Ruby:
    """Ruby with the sidekiq gem; skips where there is none, fails under PILLION_TEST_ALL."""
    cure = "(Debian: apt-get install ruby-sidekiq)."
    path = shutil.which("ruby") or missing(f"no ruby on PATH {cure}")
    asked = subprocess.run(
        [path, "-rsidekiq", "-e", "print Sidekiq::VERSION"], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode != 0:
        missing(f"{path} has no sidekiq {cure}")
    return Ruby(path, tuple(int(part) for part in asked.stdout.split(".")[:3]))


def pytest_configure() -> None:
    """Forget the settings of whoever runs the tests: neither they nor the programs they start may see them."""
    for name in [name for name in os.environ if name.startswith("PILLION_") or name in SETTINGS]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a system by the fixtures it asks for, so that `-m "not ruby"` means what it says."""
    for item in items:
        for fixture, marker in MARKED_BY.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed, so that the leak check does not add noise to it."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test of the store or a worker: no key of ours outlives its rule (`leaks_keys` opts out)."""
    node = request.node
    watched = WATCHED.intersection(node.path.parents) and not node.get_closest_marker("leaks_keys")
    names = [name for name in ("server", "own_server") if watched and name in request.fixturenames]
    servers = [request.getfixturevalue(name) for name in names]
    yield
    if node.stash.get(FAILED, False):
        return
    for each in servers:
        leaks.check(each)
