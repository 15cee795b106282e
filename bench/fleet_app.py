"""The app of the big drain (`bench/fleet_drain.py`): a job that does nothing, with the arguments of one that would."""

from __future__ import annotations

from typing import Any

import pillion

QUEUE = "drain"


@pillion.job(queue=QUEUE)
def welcome(_user: int, _address: str, _options: dict[str, Any]) -> None:
    """Welcomes nobody."""
