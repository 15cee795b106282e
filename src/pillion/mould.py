"""Plain pushes of one definition, one at a time, each encoded once but for its arguments, its jid and its times.

Called by `Client` for what `HardWorker.perform_async("bob", 5)` describes where nothing has a say in the single job: no
client middleware, no carried variables, no options of its own. A push costs half of the ordinary way, which takes
whatever is not plain at first sight and knows the words to refuse it. Nothing is kept but what can be made anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from pillion.config import Config, random_jid
from pillion.errors import PayloadError
from pillion.payload import normalise, stamp
from pillion.registry import Definition
from pillion.setup import Setup
from pillion.stencil import Stencil, cut
from pillion.store.ops import Parcel

_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Moulds:
    """The moulds of the definitions that one client has pushed, by name."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._known: dict[str, _Mould] = {}

    def parcel(self, item: Mapping[str, Any]) -> Parcel | None:
        """A job for now, from its definition and its arguments alone; None where the item says more, or others do."""
        if type(item) is not dict or len(item) != 2 or type(definition := item.get("class")) is not Definition:
            return None
        setup = self._setup
        config = setup.config
        if setup.client_middleware or setup.carrier or config.new_jid is not random_jid:
            return None
        mould = self._known.get(definition.name)
        if mould is None or not mould.fits(definition, config):
            mould = self._known[definition.name] = _Mould(definition, config)
        return mould.parcel(item.get("args"))


class _Mould:
    """What the jobs of one definition share. It holds as long as nothing that went into it has changed."""

    __slots__ = ("_config", "_definition", "_options", "_queue", "_stencil")

    def __init__(self, definition: Definition, config: Config) -> None:
        self._definition, self._config, self._options = definition, config, definition.shared_options
        self._queue = ""
        self._stencil: Stencil | None = None
        with suppress(PayloadError):  # the ordinary way says it
            job = normalise({"class": definition.name, "args": []}, options=definition.options, config=config)
            if [*job][-2:] != ["jid", "created_at"] or "enqueued_at" in job or "at" in job:
                return
            del job["created_at"]
            self._stencil, self._queue = cut(job, config), job["queue"]

    def fits(self, definition: Definition, config: Config) -> bool:
        """Whether it is the mould of this definition as it is now."""
        same = self._definition is definition and self._config is config
        return same and self._options is definition.shared_options

    def parcel(self, args: object) -> Parcel | None:
        """One job with these arguments, or None where it is to go the ordinary way."""
        if self._stencil is None:
            return None
        config, jid = self._config, random_jid()
        now = _encode(stamp(config.clock.now(), config.wire))
        raw = self._stencil.fill(args, jid, b',"created_at":%b,"enqueued_at":%b' % (now, now))
        return None if raw is None else Parcel(jid, self._queue, raw)
