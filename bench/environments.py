"""An environment per peer, so that no peer's requirements hold back another's: `build/bench/<peer>`.

Made from `bench/requirements/<peer>.txt` when it is first needed and again when that file changes. A peer that cannot
be installed (no network, no wheel) is left out of the run with its reason; nothing fails for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import ROOT
from bench.catalog import Peer, ruby_version

FOLDER = ROOT / "build" / "bench"
PATIENCE = 300
VERSIONS = (
    "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
)


class Missing(Exception):
    """A peer cannot take part, and why."""


def ready(peer: Peer) -> str:
    """Make the peer's environment and return its exact versions in one line. Raises Missing."""
    if peer.is_ruby:
        found = ruby_version(peer)
        if found is None:
            raise Missing("no Ruby here that has Sidekiq" + (" and YJIT" if "yjit" in peer.name else ""))
        return found
    if peer.name != "pillion":
        _install(peer)
    versions = json.loads(_run(interpreter(peer), "-c", VERSIONS, *peer.distributions))
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def interpreter(peer: Peer) -> str:
    return sys.executable if peer.is_ours else str(FOLDER / peer.name / "bin" / "python")


def command(peer: Peer, *words: str) -> list[str]:
    """The command line of a verb of the peer's file (see `peers/driver.py`)."""
    if not peer.is_ruby:
        return [interpreter(peer), "-m", "bench.peers.driver", peer.app, *words]
    app = str(ROOT / "bench" / "peers" / peer.app)
    if words[0] != "worker":
        return ["ruby", app, *words]
    _, kind, concurrency, _ = words
    return ["sidekiq", "-r", app, "-q", "elsewhere" if kind == "promote" else "bench", "-c", concurrency]


def environment(peer: Peer, url: str, marks: Path) -> dict[str, str]:
    """This process's environment without what configures Pillion, and with what the peer's file reads."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PILLION_", "REDIS_", "RUBY"))}
    ours = {"BENCH_URL": url, "BENCH_MARKS": str(marks), "PYTHONPATH": str(ROOT), "APP_ENV": "production"}
    return {**clean, **ours, **peer.environment}


def _install(peer: Peer) -> None:
    folder, wanted = FOLDER / peer.name, ROOT / "bench" / "requirements" / f"{peer.name}.txt"
    stamp = folder / "installed.txt"
    if stamp.is_file() and stamp.read_text() == wanted.read_text():
        return
    print(f"setting up {peer.name} in {folder.relative_to(ROOT)} ...", file=sys.stderr)
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", interpreter(peer), "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--requirement", str(wanted))
    stamp.write_text(wanted.read_text())


def _run(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "ERROR" in line or "Error" in line]
        raise Missing(said[-1] if said else str(error)) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from None
