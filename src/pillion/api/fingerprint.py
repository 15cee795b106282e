"""The cause of a failed job as a short stable id: what went wrong, without what differs from job to job.

Class, exception, the first line of the app's own code in the backtrace, and the message with its numbers, hex digits
and quoted parts blanked. `causes.py` groups by it and `cause:` in the search language means it. Ids are compared
between processes and releases, so the rules here change only with a good reason. Nothing here raises for what a job
holds."""

from __future__ import annotations

import hashlib
import re

from pillion.api.record import JobRecord

DIGITS = 12
MOST_MESSAGE = 2_000
MOST_SHOWN = 200

_BLANKS = (
    (re.compile(r"'[^'\n]{0,500}'|\"[^\"\n]{0,500}\"|`[^`\n]{0,500}`"), "'…'"),
    (re.compile(r"\b(?:0x)?[0-9a-fA-F]{2,}(?:-[0-9a-fA-F]{2,})+\b"), "#"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]{0,63}\d)[0-9a-fA-F]{8,}\b"), "#"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "#"),
)
_FRAME = re.compile(r"(?P<file>.+?):\d+:in [`']?(?P<name>[^'`]*)")
_FOREIGN = re.compile(r"[/\\](?:site-packages|dist-packages|gems|ruby|lib[/\\]python\d)[/\\.]|^<|[/\\]pillion[/\\]")


def fingerprint(job: JobRecord) -> str:
    """The id of a failed job's cause, 12 hex digits; "" for one that never failed."""
    if not job.is_error:
        return ""
    parts = (job.display_class, job.error_class or "", own_frame(job.error_backtrace), blanked(job.error_message or ""))
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=DIGITS // 2).hexdigest()


def blanked(message: str) -> str:
    """The first line of a message without what differs from job to job, at most 200 characters."""
    line = message[:MOST_MESSAGE].strip().partition("\n")[0]
    for pattern, blank in _BLANKS:
        line = pattern.sub(blank, line)
    return line[:MOST_SHOWN]


def own_frame(backtrace: list[str]) -> str:
    """`file in function` of the raising-most line that is neither a library's nor the language's; "" without one."""
    for line in backtrace:
        found = _FRAME.match(line[:1_000])
        if found and not _FOREIGN.search(found["file"]):
            return f"{found['file']} in {found['name']}"
    return ""
