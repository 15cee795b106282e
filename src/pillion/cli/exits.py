"""What the exit codes mean; scripts and process supervisors may rely on them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit code of every command.

    0 done · 1 the thing asked about is unhealthy, or some items failed · 2 the command line or the configuration is
    wrong · 3 Redis cannot be reached · 4 the app could not be imported · 5 refused: this server, this role · 70 a bug
    in Pillion · 130 interrupted
    """

    DONE = 0
    UNHEALTHY = 1
    USAGE = 2
    UNREACHABLE = 3
    IMPORT = 4
    REFUSED = 5
    BUG = 70
    INTERRUPTED = 130
