"""A worker that runs on while its package is replaced on disk keeps its own scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillion.setup import Setup
from pillion.store import scripts
from pillion.worker import Worker


def test_a_worker_has_every_script_from_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [path.stem for path in (Path(scripts.__file__).parent / "lua").glob("*.lua")]
    scripts.script.cache_clear()
    Worker(Setup("redis://127.0.0.1:1"), embedded=True)
    monkeypatch.setattr(scripts, "_LUA", tmp_path)
    assert {"step", "salvage", "fence", "resync", "leave"} <= {*names, "step"}
    assert all(scripts.script(name).text for name in (*names, "step"))
