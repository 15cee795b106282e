"""The new home of HardWorker; `app.rb` says which commands in which order.

pillion worker app.py -q python
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pillion

pillion.configure(wire="6")  # the oldest Sidekiq in the fleet: "6", "7" or "8"


class HardWorker(pillion.Job, queue="python"):
    def perform(self, name: str, count: int) -> None:
        self.logger.info("HardWorker in Python: %s %d", name, count)


def send_home(job_class: object, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:  # noqa: ARG001
    """The schedule and the retry set are shared: this worker's poller may find a job that Ruby put there."""
    if job["class"] == "HardWorker":
        job["queue"] = "python"
    yield


@pillion.configure_server
def configure(setup: pillion.Setup) -> None:
    setup.client_middleware.add(send_home)
