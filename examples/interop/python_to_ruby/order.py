"""Python pushes, Ruby runs.

    sidekiq -r ./report.rb -q ruby     in one terminal
    python order.py                    in another

A class without `perform` is a stub: it has the name, the queue and the options, and is never run here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pillion

pillion.configure(wire="6")  # the oldest Sidekiq in the fleet: "6", "7" or "8"


class MonthlyReport(pillion.Job, queue="ruby", retry=3, tags=["reports"]):
    """In Ruby: perform(month, options)"""


if __name__ == "__main__":
    print(MonthlyReport.perform_async("2026-11", {"format": "pdf"}))
    print(MonthlyReport.perform_at(datetime.now(UTC) + timedelta(seconds=2), "2026-12", {}))
    print(
        pillion.Client().push({"class": "Audit::Entry", "queue": "ruby", "args": ["ordered"]})
    )  # or by its name alone
