"""Middleware on both sides of a job: which customer it is for, and what went wrong.

    pillion worker middleware.py      in one terminal
    python middleware.py              in another: pushes for two customers

A middleware is a generator with one `yield`, around a push (client) or around `perform` (server).

        push ──> CustomerAttribute ──> Redis ──> CustomerContext ──> ErrorLogger ──> perform

The customer is a context variable: set once where a request comes in, visible to everything that the request calls, and
in the worker to everything that the job calls. (For this alone `setup.carry(customer)` would do.)
"""

# ruff: noqa: ARG002 - the arguments of a middleware are given

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pillion

log = logging.getLogger("customers")
customer: ContextVar[int | None] = ContextVar("customer", default=None)


class CustomerAttribute:
    """Client: writes the current customer into each job, and lets no job into another queue than the default one."""

    def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
        if queue != "default":
            return  # no yield: the job is not pushed
        job.setdefault("customer", customer.get())  # runs again before a retry: what stands there stays
        yield


class CustomerContext:
    """Server: the job runs as the customer it was pushed for."""

    def __call__(self, job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        token = customer.set(job.get("customer"))
        try:
            yield
        finally:
            customer.reset(token)


class ErrorLogger:
    """Server: logs what a job raised, with the customer and with the options it was added with."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __call__(self, job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.error("%s of customer %s: %s %s", job["class"], customer.get(), error, self.options)
            raise  # without this line the job would count as done


@pillion.configure_client
def pushes(setup: pillion.Setup) -> None:
    setup.client_middleware.add(CustomerAttribute)


@pillion.configure_server
def runs(setup: pillion.Setup) -> None:
    setup.client_middleware.add(CustomerAttribute)  # a worker pushes too, at the latest when it retries
    setup.server_middleware.add(CustomerContext)
    setup.server_middleware.add(ErrorLogger, foo=1, bar=2)


class Invoice(pillion.Job, retry=1):
    def perform(self, amount: int) -> None:
        if amount < 0:
            raise ValueError(f"{amount} is no amount")
        self.logger.info("customer %s pays %s", customer.get(), amount)


def main() -> None:
    for number, amount in ((1, 250), (2, -1)):
        customer.set(number)
        print(f"customer {number}, {amount}: pushed {Invoice.perform_async(amount)}")
    print(f"in another queue: {Invoice.set(queue='elsewhere').perform_async(1)}, stopped by the middleware")


if __name__ == "__main__":
    main()
