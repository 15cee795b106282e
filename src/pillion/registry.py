"""The one table from names on the wire to what runs them.

Job classes and functions enter when they are defined; the client asks a definition for its name and options, the
worker asks the registry for the payload's `class`. A payload's `class` is only ever a key into this table: nothing is
imported, looked up or built because a payload says so.

Two different definitions under one name are an error that shows both places. The same file and qualified name again (a
reload, a prompt, a notebook cell, a file that is `__main__` and a module, a class in a request handler) replaces the
entry, and nothing here keeps the old one alive. A *stub* (a class without `perform`, for jobs that run elsewhere) gives
way to a real definition in any order.

The table lives in memory and is filled again by the next process's imports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from pillion.errors import ArgumentsError, DefinitionError, UnknownJob
from pillion.job_options import Isolation, fresh

if TYPE_CHECKING:
    from pillion.running import RunningJob
    from pillion.signature import Signature

MAX_NAME = 256
SHOWN_NAMES = 5

Kind: TypeAlias = Literal["class", "function", "stub"]


class Place(msgspec.Struct, frozen=True):
    """Where a definition stands in the source.

    Attributes:
        file: the real path, or `<module>` where code came from a prompt, a notebook or a string.
        qualname: the qualified name inside it.
        shown: `file:line`, for people.
    """

    file: str
    qualname: str
    shown: str


class Definition:
    """A job as it is defined in this process.

    Attributes:
        name: its name on the wire.
        aliases: older names that it still answers to.
        changed: names of options that were changed after the definition.
        transport: what only steers the push (`once`, `durability`, `after_commit`, and where it goes).
        target: the class, or the plain function.
        handle: what client middleware is given: the class, or the `FunctionJob`.
        kind: `class`, `function`, or `stub` for a class without `perform`.
        is_async: it is a coroutine function.
        isolation: it runs in a process of its own; None where it does not.
        place: where it stands in the source.
        signature: what it takes; None if that cannot be known.
        retry_in, retries_exhausted: its retry blocks, or None.
    """

    __slots__ = (
        "_options",
        "aliases",
        "changed",
        "handle",
        "is_async",
        "isolation",
        "kind",
        "name",
        "place",
        "retries_exhausted",
        "retry_in",
        "signature",
        "target",
        "transport",
    )

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        *,
        kind: Kind,
        place: Place,
        handle: object = None,
        aliases: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        transport: Mapping[str, Any] | None = None,
        is_async: bool = False,
        isolation: Isolation | None = None,
        signature: Signature | None = None,
        retry_in: Callable[..., Any] | None = None,
        retries_exhausted: Callable[..., Any] | None = None,
    ) -> None:
        self.name = _checked_name(name, place)
        self.aliases = _checked_aliases(aliases, place)
        self.target = target
        self.handle = target if handle is None else handle
        self.kind = kind
        self.place = place
        self._options = dict(options or {})
        self.changed: frozenset[str] = frozenset()
        self.transport = dict(transport or {})
        self.is_async = is_async
        self.isolation = isolation
        self.signature = signature
        self.retry_in = retry_in
        self.retries_exhausted = retries_exhausted

    @property
    def options(self) -> dict[str, Any]:
        """What goes into each payload (`queue`, `retry`, `tags`, free keys, ...), inherited ones included.

        A copy, so that middleware which changes a job in place changes this one job.
        """
        return fresh(self._options)

    @property
    def shared_options(self) -> Mapping[str, Any]:
        """The same, only to read: another object whenever an option has changed."""
        return self._options

    @property
    def runs_on_loop(self) -> bool:
        """Whether a worker runs it on its event loop; else a thread runs it, or waits for its process."""
        return self.is_async and self.isolation is None

    @property
    def where(self) -> str:
        """`file:line` of the definition."""
        return self.place.shown

    @property
    def key(self) -> tuple[str, str]:
        """(file, qualified name): defining the same key again replaces this definition."""
        return (self.place.file, self.place.qualname)

    def change_options(self, options: Mapping[str, Any]) -> None:
        """Replace some of the options that go into each payload, for the pushes from now on."""
        self._options = {**self._options, **options}
        self.changed = self.changed | options.keys()

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Sort a call into (the positional array, what can travel by keyword only).

        Raises:
            ArgumentsError: the call does not fit `perform`; the message shows its signature.
        """
        if self.signature is not None:
            return self.signature.bind(args, kwargs)
        if kwargs:
            raise ArgumentsError(
                f"{self.name}: expected positional arguments, got {', '.join(kwargs)} by keyword; this definition "
                f"({self.where}) has no `perform` that could give keywords their positions"
            )
        return list(args), {}

    def start(self, running: RunningJob) -> tuple[Any, Callable[..., Any]]:
        """What one run needs: (the job instance that server middleware is given, what to call with the arguments).

        A class gets a new instance per run, with `context` set; a function's instance is `running` itself.

        Raises:
            UnknownJob: this is a stub.
        """
        if self.kind == "function":
            return running, self.target
        if self.kind == "stub":
            raise UnknownJob(
                f"{self.name} is a client-only stub here ({self.where}): it has no `perform`; import the module that "
                "defines one, or take its queue from this worker"
            )
        instance = self.target()
        instance.context = running
        return instance, instance.perform

    def __repr__(self) -> str:
        return f"<Definition {self.name} ({self.kind}) at {self.where}>"


def definition_of(handle: object) -> Definition | None:
    """The definition behind a job class, a `FunctionJob` or a `Definition`; None for anything else."""
    if isinstance(handle, Definition):
        return handle
    found = getattr(handle, "__pillion__", None)
    return found if isinstance(found, Definition) else None


class Registry:
    """Names and aliases to definitions. Safe to fill from several threads; reading takes no lock."""

    def __init__(self) -> None:
        self._entries: dict[str, Definition] = {}
        self._lock = threading.Lock()
        self.has_async = False
        """Whether an async job was ever registered; if not, nobody needs to ask a payload for its class."""

    def register(self, definition: Definition) -> None:
        """Enter a definition under its name and aliases, or leave the table as it was.

        Raises:
            DefinitionError: one of the names belongs to a different definition; the message shows both places.
        """
        with self._lock:
            names = {definition.name, *definition.aliases}
            held = {name: self._entries[name] for name in names if name in self._entries}
            won = {name for name in names if name not in held or _wins(definition, held[name], name)}
            displaced = {held[name] for name in won if name in held} - {definition}
            self._entries |= dict.fromkeys(won, definition)
            self.has_async = self.has_async or definition.is_async
            self._drop(displaced)

    def _drop(self, displaced: set[Definition]) -> None:
        """Remove the other names of replaced definitions, so that nothing keeps them alive."""
        if not displaced:
            return
        for name in [name for name, entry in self._entries.items() if entry in displaced]:
            del self._entries[name]

    def get(self, name: str) -> Definition | None:
        """The definition that answers to `name`, a stub included; None if there is none."""
        return self._entries.get(name)

    def names(self) -> list[str]:
        """Every name and alias, sorted."""
        return sorted(self._entries)

    def suggest(self, name: str) -> list[str]:
        """Up to three registered names close to `name`, the closest first."""
        return get_close_matches(name, list(self._entries), n=3, cutoff=0.6)

    def unknown(self, name: str) -> UnknownJob:
        """The error for a name that nobody registered: what there is, what is close, and what to do."""
        shown = repr(name[:MAX_NAME])
        close = self.suggest(name)
        meant = f"did you mean {' or '.join(map(repr, close))}? If" if close else "if"
        cure = f'{meant} one of these replaced it, give it aliases=["{shown[1:-1]}"], else import'
        return UnknownJob(
            f"no job is registered as {shown} in this process (it has {self._some_names()}); "
            f"{cure if self._entries else 'import'} the module that defines it"
        )

    def _some_names(self) -> str:
        names = self.names()
        more = len(names) - SHOWN_NAMES
        return ", ".join(names[:SHOWN_NAMES] or ["none"]) + (f" and {more} more" if more > 0 else "")

    @contextmanager
    def restored(self, *, empty: bool = False) -> Generator[None]:
        """Forget at the end of the block what was registered inside it, which begins `empty` if asked to.

        For tests; not while other threads register.
        """
        before = dict(self._entries)
        if empty:
            self._entries = {}
        try:
            yield
        finally:
            self._entries = before

    def __iter__(self) -> Iterator[Definition]:
        """Each definition once, in order of its first name's registration."""
        return iter(dict.fromkeys(list(self._entries.values())))

    def __len__(self) -> int:
        return len(set(self._entries.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def _wins(new: Definition, old: Definition, name: str) -> bool:
    """Whether `new` takes `name` from `old`."""
    if new.key == old.key or old.kind == "stub":
        return True
    if new.kind == "stub":
        return False
    raise DefinitionError(
        f"expected one job under the name {name!r}, got two different ones:\n"
        f"  {old.place.qualname} at {old.where}\n"
        f"  {new.place.qualname} at {new.where}\n"
        'rename one, or give it a name of its own with name="..."'
    )


def _checked_name(name: object, place: Place) -> str:
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable() and "|" not in name:
        return str.__str__(name)
    raise DefinitionError(
        f"{place.qualname} at {place.shown}: expected a name of 1 to {MAX_NAME} printable characters "
        f"without |, which separates names in Sidekiq's metrics, got {name!r:.80}; "
        'write for example name="Billing::InvoiceJob"'
    )


def _checked_aliases(aliases: object, place: Place) -> tuple[str, ...]:
    if isinstance(aliases, list | tuple):
        return tuple(_checked_name(alias, place) for alias in aliases)
    raise DefinitionError(
        f"{place.qualname} at {place.shown}: expected aliases to be a list of names, got {aliases!r:.80}; "
        'write aliases=["OldName"]'
    )


default = Registry()
"""The registry that `pillion.Job` and `@pillion.job` fill and that workers read."""
