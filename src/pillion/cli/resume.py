"""`pillion resume QUEUE`: let workers take from it again."""

from __future__ import annotations

from pillion.cli.pause import pausing

command = pausing("resume", "Let workers take from the queues again; those that idle wake up.")
