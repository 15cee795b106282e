"""Pushes inside an SQLAlchemy transaction wait for its commit.

    Session = sessionmaker(engine)             # or async_sessionmaker, scoped_session, a class, one session
    push_after_commit(Session)

    with Session.begin() as session:
        session.add(order)
        session.flush()
        Invoice.perform_async(order.id)        # returns the jid; pushed after the commit, dropped at a rollback

A push waits for the open transaction of a registered session that the same thread or task has used, or whoever started
it with its context; of several for the one used last. In a worker's thread, what an earlier job left open does not
count. What is pushed inside a savepoint (`begin_nested`) goes with it when it is rolled back. The bytes stand in
`session.info` and wait in memory; what a process that dies does to them stands in `held.py`.

A session opens a transaction for reading, too, and often is just closed after that. So the end decides:

    commit                                           pushed
    rollback                                         dropped, with a line in the log
    closed, and had written to the database          dropped, with a warning: closing has rolled that back
    closed, and had not, as far as the session knows pushed: there was nothing to undo

An error of the push is raised by `commit()` (or `close()`); the commit stands and the session can be used.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, scoped_session, sessionmaker
from sqlalchemy.util import await_only

from pillion.contrib.held import Held, Holding, apush_all, jids, push_all
from pillion.delivery import Delivery, hold_with
from pillion.running import INLINE, current_job

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

    Plain: TypeAlias = sessionmaker[Any] | scoped_session[Any] | type[Session] | Session
    Sessions: TypeAlias = Plain | async_sessionmaker[Any] | async_scoped_session[Any] | AsyncSession

log = logging.getLogger("pillion")

_Token: TypeAlias = tuple[str, int]

_KEY = "pillion"
_WRITES = "pillion writes"
_used: ContextVar[tuple[_Use, ...]] = ContextVar("pillion_sessions", default=())


def push_after_commit(sessions: Sessions) -> None:
    """Let pushes wait for open transactions of these sessions; call it once, where the sessions are configured.

    Doing it again changes nothing. Of a single session, a transaction that is already open counts from now on.
    """
    target = _sync(sessions)
    for name, listener in _LISTENERS.items():
        event.listen(target, name, listener)
    if isinstance(target, Session) and target.in_transaction() and _KEY not in target.info:
        _note(target)
    hold_with(_holder)


class _Use(NamedTuple):
    """A session that this context has used, and the worker's job that did; a thread of a worker runs one after another.

    What a job has left open is nobody's business any more: a push of the next one must not wait for it.
    """

    session: weakref.ref[Session]
    run: _Token | None

    def counts(self, run: _Token | None) -> bool:
        return self.run in (None, run) or run == INLINE


class _Waiting:
    """What waits for the end of one transaction, by savepoint.

    Attributes:
        wrote: something was written in it, as far as the session knows.
        committed, rolled_back: how the database has ended it.
    """

    def __init__(self, *, wrote: bool) -> None:
        self.wrote = wrote
        self.committed = self.rolled_back = False
        self._levels: dict[SessionTransaction | None, list[Held]] = {}

    def keep(self, session: Session, held: Held) -> None:
        self.wrote = self.wrote or bool(session.new or session.dirty or session.deleted)
        self._levels.setdefault(_level(session), []).append(held)

    def release(self, savepoint: SessionTransaction, session: Session) -> None:
        """The savepoint has ended: what is left of it waits with the one around it."""
        if held := self._levels.pop(savepoint, None):
            self._levels.setdefault(_level(session), []).extend(held)

    def drop(self, level: SessionTransaction | None) -> None:
        if held := self._levels.pop(level, None):
            log.info("rolled back with their transaction, so not pushed: jobs %s", jids(held))

    def take(self) -> list[Held]:
        """Everything that waits; it does not wait any more."""
        taken, self._levels = self._levels, {}
        return [held for level in taken.values() for held in level]

    def __del__(self) -> None:
        if held := self.take():
            log.warning(
                "their session was neither committed, rolled back nor closed, so not pushed: jobs %s", jids(held)
            )


def _holder(ordinary: Delivery) -> Delivery | None:
    run = _run()
    for use in reversed(_used.get()):
        session = use.session() if use.counts(run) else None
        waiting: _Waiting | None = None if session is None else session.info.get(_KEY)
        if session is not None and waiting is not None and not waiting.rolled_back:
            return Holding(ordinary, partial(waiting.keep, session))
    return None


def _created(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        _note(session)


def _note(session: Session) -> None:
    """A transaction of this session is open."""
    session.info[_KEY] = _Waiting(wrote=session.info.pop(_WRITES, False))
    _use(session)


def _use(session: Session) -> None:
    """This context uses the session. It may have been begun in another, as web frameworks do for their handlers."""
    used, run = _used.get(), _run()
    run = None if run == INLINE else run  # it runs inside of whatever pushed it
    if not used or used[-1].session() is not session or used[-1].run != run:
        others = [each for each in used if each.session() not in (None, session)]
        _used.set((*others, _Use(weakref.ref(session), run)))


def _run() -> _Token | None:
    """The run of a job that this is, None outside of jobs."""
    running = current_job()
    return None if running is None else running.token


def _attached(session: Session, instance: object) -> None:
    del instance
    _use(session)


def _flushed(session: Session, context: object) -> None:
    del context
    _use(session)
    _wrote(session)


def _executed(state: ORMExecuteState) -> None:
    _use(state.session)
    if state.is_insert or state.is_update or state.is_delete:
        state.session.info[_WRITES] = True  # heard before the transaction begins that the statement opens by itself
        _wrote(state.session)


def _wrote(session: Session) -> None:
    if (waiting := session.info.get(_KEY)) is not None:
        waiting.wrote = True


def _committed(session: Session) -> None:
    waiting: _Waiting | None = session.info.get(_KEY)
    if waiting is not None and session.get_nested_transaction() is None:
        waiting.committed = True


def _rolled_back(session: Session) -> None:
    waiting: _Waiting | None = session.info.get(_KEY)
    if waiting is not None:
        waiting.drop(_level(session))
        waiting.rolled_back = session.get_nested_transaction() is None


def _ended(session: Session, transaction: SessionTransaction) -> None:
    waiting: _Waiting | None = session.info.get(_KEY)
    if waiting is None:
        return
    if transaction.nested:
        waiting.release(transaction, session)
    elif transaction.parent is None:
        del session.info[_KEY]
        session.info.pop(_WRITES, None)
        _settle(session, waiting)


def _settle(session: Session, waiting: _Waiting) -> None:
    """Push or drop what has waited for a transaction that is over, after the session has let go of it."""
    held = waiting.take()
    if not held:
        return
    if not waiting.committed and (waiting.wrote or waiting.rolled_back):
        log.warning("their session was closed before it committed what it wrote, so not pushed: jobs %s", jids(held))
    elif (asyncio := _asyncio()) and asyncio.async_session(session) is not None:
        await_only(apush_all(held))
    else:
        push_all(held)


def _level(session: Session) -> SessionTransaction | None:
    """The savepoint that is open, or else the transaction."""
    return session.get_nested_transaction() or session.get_transaction()


def _sync(sessions: Any) -> Any:
    """What SQLAlchemy takes listeners for: of asyncio sessions the plain ones inside them."""
    asyncio = _asyncio()
    if asyncio is None:
        return sessions
    if isinstance(sessions, asyncio.async_scoped_session):
        return _sync(sessions.session_factory)
    if isinstance(sessions, asyncio.AsyncSession):
        return sessions.sync_session
    if not isinstance(sessions, asyncio.async_sessionmaker):
        return sessions
    inner: type[Session] = sessions.kw.get("sync_session_class") or sessions.class_.sync_session_class
    if _KEY not in vars(inner):
        inner = type(inner.__name__, (inner,), {_KEY: "listened to"})
        sessions.configure(sync_session_class=inner)
    return inner


def _asyncio() -> Any:
    """SQLAlchemy's asyncio part, where the program uses it. Importing it needs greenlet, which others do without."""
    return sys.modules.get("sqlalchemy.ext.asyncio")


_LISTENERS: dict[str, Callable[..., Any]] = {
    "after_transaction_create": _created,
    "after_transaction_end": _ended,
    "after_attach": _attached,
    "after_flush": _flushed,
    "do_orm_execute": _executed,
    "after_commit": _committed,
    "after_rollback": _rolled_back,
}
