"""The pages, README.md and docs/*.md, as the tests read them: blocks, prose, tables, and the program in each.

Every ```python block runs. The blocks of a page are one program, in their order, each on its own lines, so that a
traceback shows the page's line; a block that begins with `# app.py` is that file. The program runs as in a worker
process, and at its end a worker runs what it has pushed. ```toml and ```yaml blocks are configuration; of ```console
blocks the lines after `$` are commands. Everything else is prose.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pillion"

AS_A_WORKER = "__import__('pillion.setup', fromlist='_').be_server()"
RUN_WHAT_WAS_PUSHED = """
def run_what_was_pushed():
    import os, redis, threading, pillion
    from pillion.events import JobSettled
    from pillion.registry import default as known

    server = redis.Redis.from_url(os.environ["REDIS_URL"])
    elsewhere = {each.options["queue"] for each in known if each.kind == "stub"}
    waiting = {name.decode(): server.llen(b"queue:" + name) for name in server.smembers("queues")}
    waiting = {name: count for name, count in waiting.items() if count and name not in elsewhere}
    if not waiting:
        return
    left, done = [True] * sum(waiting.values()), threading.Event()

    def count(event):
        left.pop()
        if not left:
            done.set()

    pillion.subscribe(JobSettled, count)
    worker = pillion.Worker(pillion.configure(capsules={"default": {"queues": sorted(waiting)}}), embedded=True)
    worker.start()
    assert done.wait(15), f"{len(left)} jobs of this page did not end"
    assert worker.stop() == []


if __name__ == "__main__":
    run_what_was_pushed()
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" for none), the line of its fence, and what stands in it."""

    language: str
    line: int
    text: str


class Page:
    """One page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.text = path.read_text()
        self.blocks = list(self._read())

    def _read(self) -> Iterator[Block]:
        opened, language, kept = 0, "", list[str]()
        for number, line in enumerate(self.text.splitlines(), 1):
            if not line.startswith("```"):
                kept.append(line)
            elif opened:
                yield Block(language, opened, "\n".join(kept))
                opened = 0
            else:
                opened, language, kept = number, line[3:].strip(), []
        assert not opened, f"{self.name}:{opened}: this block does not end"

    def of(self, language: str) -> list[Block]:
        """The blocks of one language."""
        return [block for block in self.blocks if block.language == language]

    @property
    def prose(self) -> str:
        """All but the blocks that have a language."""
        return re.sub(r"^```\w+\n.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    def words_as_code(self) -> list[str]:
        """What stands between backquotes, outside of blocks."""
        outside = re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)
        return [words.replace("\n", " ") for words in re.findall(r"`([^`]+)`", outside)]

    def commands(self) -> list[list[str]]:
        """What the page types into a shell, in blocks and in its sentences."""
        typed = [line[2:] for block in self.of("console") for line in block.text.split("\n") if line[:2] == "$ "]
        spoken = [words for words in self.words_as_code() if words.startswith(("make ", "pillion ", "pip "))]
        return [shlex.split(words) for words in (*typed, *spoken)]

    def program(self) -> tuple[str, dict[str, str]]:
        """The page's program, and the files that it asks for."""
        lines, files = [AS_A_WORKER] + [""] * self.text.count("\n"), dict[str, str]()
        for block in self.of("python"):
            if named := re.match(r"# (\w+\.py)\n", block.text):
                files[named[1]] = block.text
            else:
                lines[block.line : block.line + block.text.count("\n") + 1] = block.text.split("\n")
        return "\n".join(lines) + RUN_WHAT_WAS_PUSHED, files

    def table(self, *header: str) -> list[list[str]]:
        """The rows of every table with this header, below each other."""
        text = r"\s*\|\s*".join(re.escape(cell) for cell in header)
        found = re.findall(rf"^\| ?{text} ?\|\n\|[-|]+\|\n((?:\|.*\n?)+)", self.text, re.MULTILINE)
        assert found, f"{self.name} has no table {header}"
        rows = "".join(found).strip().split("\n")
        return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def names(rows: list[list[str]]) -> list[str]:
    """What stands in the first column as code, without arguments."""
    found = [word for row in rows for word in re.findall(r"`([^`]+)`", row[0])]
    return [word.partition("(")[0].removeprefix("testing.") for word in found]


@cache
def anchors(path: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = [Page(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
BY_NAME = {page.name: page for page in PAGES}
