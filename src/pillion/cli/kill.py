"""`pillion kill SELECTOR`: put jobs into the dead set, where they stay until somebody retries or deletes them."""

from __future__ import annotations

from pillion.cli.acting import changing

command = changing(
    "kill",
    """Put queued, failed and scheduled jobs into the dead set. It can be undone for ten minutes.

    \b
    pillion kill state:retry class:Report
    """,
)
