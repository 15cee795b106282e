"""Switching the log off: `pillion.configure(logger=None)`, or the level `silent`.

Called by whoever decides the level or makes a worker. It concerns the logger `pillion` and those below it, which jobs
use, and no other: what an app says on its own loggers is its own affair.
"""

from __future__ import annotations

import logging
from typing import Final

from pillion.config import Config
from pillion.options import SILENT

OFF: Final = logging.CRITICAL + 1


def silence(config: Config) -> bool:
    """Switch the loggers off where the level is `silent`, and on again where it is not; returns whether they are off.

    A level that the app gave the logger stays.
    """
    logger = logging.getLogger("pillion")
    if config.log_level == SILENT:
        logger.setLevel(OFF)
    elif logger.level == OFF:
        logger.setLevel(logging.NOTSET)
    return logger.level == OFF
