"""Pushes inside a Django transaction wait for its commit.

    class ShopConfig(AppConfig):
        def ready(self):
            push_after_commit()

From then on what is pushed inside `transaction.atomic()` (or a request, with ATOMIC_REQUESTS) is handed to Django's
`transaction.on_commit`: pushed after the outermost commit, dropped with the transaction or savepoint that is rolled
back. Outside of a transaction nothing changes. An error of the push reaches whoever commits; the commit stands, and
Django does not call what else waited for it. What a process that dies does to waiting jobs stands in `held.py`.
"""

from __future__ import annotations

from functools import partial

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from pillion.contrib.held import Held, Holding, push_all
from pillion.delivery import Delivery, hold_with

_aliases: list[str] = []


def push_after_commit(using: str = DEFAULT_DB_ALIAS) -> None:
    """Let pushes wait for open transactions of this database, in every thread of the process.

    Call it again for further databases; where several have a transaction open, a push waits for the first so named.
    """
    if using not in _aliases:
        _aliases.append(using)
    hold_with(_holder)


def _holder(ordinary: Delivery) -> Delivery | None:
    for alias in _aliases:
        if connections[alias].in_atomic_block:
            return Holding(ordinary, partial(_keep, alias))
    return None


def _keep(alias: str, held: Held) -> None:
    transaction.on_commit(lambda: push_all([held]), using=alias)
