"""Running `pillion` as a person does: a process of its own, in a folder of its own, with a clean environment."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.waiting import wait_until

PILLION = (sys.executable, "-P", "-m", "pillion")
"""As the installed script starts: without the working directory in front of the standard library."""

OURS = ("PILLION_", "REDIS_", "APP_ENV", "RAILS_", "RACK_ENV", "DEBUG_INVOCATION", "DYNO", "NO_COLOR")


class Said(NamedTuple):
    """What a finished command said, and its exit code."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that configures Pillion, and with `variables`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**clean, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def pillion(*words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 30) -> Said:
    """Run `pillion` with these words to its end."""
    done = subprocess.run(
        [*PILLION, *words],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that goes on until it is stopped. With `terminal` its stderr is one, and we are at the other end."""

    def __init__(self, words: tuple[str, ...], cwd: Path, env: Mapping[str, str], terminal: bool) -> None:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        try:
            self.process = subprocess.Popen(
                [*PILLION, *words],
                cwd=cwd,
                env=environment(**env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._heard = bytearray()
        self._reader = threading.Thread(target=self._listen, args=(ours,), daemon=True)
        self._reader.start()

    @property
    def heard(self) -> str:
        """What it wrote to stderr so far."""
        return self._heard.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until it wrote `words` so often; fails with all it said if it ends before."""
        wait_until(
            lambda: self.heard.count(words) >= times or self._is_over(), timeout=30, what=f"{words!r} in {self.heard!r}"
        )
        assert self.heard.count(words) >= times, f"it ended with {self.process.returncode} and said\n{self.heard}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join(10)
        return code

    def end(self) -> None:
        """End it after a test that failed: in order, so that it ends its own children, else by force."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=30)

    def _is_over(self) -> bool:
        return self.process.poll() is not None and not self._reader.is_alive()

    def _listen(self, ours: int) -> None:
        with open(ours, "rb", buffering=0) as stream:
            try:
                while data := stream.read(4096):
                    self._heard += data
            except OSError:
                return  # how Linux says that a terminal's other end has closed


@contextmanager
def running(*words: str, cwd: Path, env: Mapping[str, str] | None = None, terminal: bool = False) -> Iterator[Running]:
    """Start `pillion` with these words; whatever happens, it is gone at the end."""
    command = Running(words, cwd, env or {}, terminal)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.end()


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files, by their path below `folder`, and return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
