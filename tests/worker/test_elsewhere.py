"""Where there is no Unix: what programs import, push and test with needs none of it, and what does says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.servers import Server

PROGRAM = Path(__file__).with_name("elsewhere.py")


def test_importing_pushing_over_tcp_and_testing_need_nothing_of_unix(server: Server, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "error", str(PROGRAM), server.tcp_url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr[-4000:]
    redis = server.client()
    assert redis.llen("queue:default") == 5
    assert redis.zcard("schedule") == 1
