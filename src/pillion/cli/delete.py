"""`pillion delete SELECTOR`: delete jobs. Always asks for their number."""

from __future__ import annotations

from pillion.cli.acting import changing

command = changing(
    "delete",
    """Delete queued, failed, scheduled and dead jobs. It can be undone for ten minutes.

    \b
    pillion delete state:dead age:>30d
    """,
)
