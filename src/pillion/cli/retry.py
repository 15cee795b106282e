"""`pillion retry SELECTOR`: put dead, failed and scheduled jobs into their queues now."""

from __future__ import annotations

from pillion.cli.acting import changing

command = changing(
    "retry",
    """Put dead, failed and scheduled jobs into their queues now, without using up a retry.

    \b
    pillion retry state:dead class:SendDigest 'error:"timed out"' --dry-run
    """,
)
