"""The locale of a push, kept for the run: Sidekiq's middleware for I18n, in its field `locale`.

    locale: ContextVar[str] = ContextVar("locale", default="en")

    @pillion.configure_server
    def configure(setup):
        persist(locale, setup=setup)

A push writes the locale that is set, unless the job has one already: a retry, a promotion and a job of Ruby's keep
theirs. Around the run the variable holds it; where the job has none, or no text, the variable is as it is without a
job. Where both programs are Python and the field does not matter, `setup.carry(locale)` does the same.
"""

from __future__ import annotations

from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from pillion import setup as setups
from pillion.errors import PayloadError
from pillion.running import check_variables
from pillion.setup import Setup
from pillion.types import Payload

KEY = "locale"


def persist(variable: ContextVar[str], *, setup: Setup | None = None) -> None:
    """Carry this variable in the field `locale` of each job; once more, and the latest variable counts.

    Call it where both chains are built: for a worker in `configure_server`, for other programs in `configure_client`.

    Args:
        setup: whose chains it joins; the default setup's if None.

    Raises:
        ConfigError: it is no context variable.
    """
    check_variables("locale", (variable,))
    chains = setup or setups.default
    chains.client_middleware.add(SaveLocale, variable)
    chains.server_middleware.prepend(UseLocale, variable)


class SaveLocale:
    """Client: writes the locale. Raises PayloadError where it is not text."""

    def __init__(self, variable: ContextVar[str]) -> None:
        self._variable = variable

    def __call__(self, job_class: object, job: Payload, queue: str, pool: Any) -> Generator[None]:
        del job_class, queue, pool
        locale: object = self._variable.get(None)
        if locale is not None:
            if not isinstance(locale, str):
                raise PayloadError(
                    f"locale: expected text, got {type(locale).__name__}; set {self._variable.name} to it"
                )
            job.setdefault(KEY, str(locale))
        yield


class UseLocale:
    """Server: the job runs in the locale that it brought."""

    def __init__(self, variable: ContextVar[str]) -> None:
        self._variable = variable

    def __call__(self, job_instance: object, job: Payload, queue: str) -> Generator[None]:
        del job_instance, queue
        locale = job.get(KEY)
        if not isinstance(locale, str) or not locale:
            yield
            return
        token = self._variable.set(locale)
        try:
            yield
        finally:
            self._variable.reset(token)
