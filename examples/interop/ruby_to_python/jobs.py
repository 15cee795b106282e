"""What `shop.rb` pushes runs here.

    pillion worker jobs.py -q python     in one terminal
    ruby shop.rb                         in another

The names meet: Ruby's `ResizeImage` is this `ResizeImage`, and Rails's `InvoiceJob` is the class that says so.
"""

from __future__ import annotations

import pillion

pillion.configure(wire="6")  # the oldest Sidekiq in the fleet: "6", "7" or "8"


class ResizeImage(pillion.Job, queue="python"):
    def perform(self, path: str, width: int) -> None:
        self.logger.info("resized %s to %d", path, width)


class Invoice(pillion.Job, name="InvoiceJob", queue="python"):
    """ActiveJob's keywords are keywords here."""

    def perform(self, number: int, *, urgent: bool = False) -> None:
        self.logger.info("sent invoice %d%s", number, ", urgent" if urgent else "")
