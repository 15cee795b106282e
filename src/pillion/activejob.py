"""Rails's ActiveJob jobs: whose they are, what they take, and how they are shown.

Rails pushes every ActiveJob under one of two wrapper classes; the real class stands in `wrapped`, its arguments in a
hash that is the wrapper's only argument. A
worker finds the definition of the real class here and runs it with plain arguments; pages and commands that show jobs
ask here what to show. The stored bytes never change, so Ruby can run a job that Pillion has retried.

What becomes of each kind of argument:

    text, number, true, false, nil, array             itself
    hash                                              dict, without `_aj_symbol_keys` and the like
    a hash of keywords (`_aj_ruby2_keywords`), last   keyword arguments
    symbol, date, time, duration, module, decimal     the `value` that stands for it: text, or seconds
    a model (`_aj_globalid`)                          its GlobalID, "gid://app/User/5"; nothing is loaded
    anything else with `_aj_serialized`               a dict, as it was sent

Nothing here imports, looks up or builds what a payload names, and nothing touches Redis.
"""

from __future__ import annotations

from typing import Any, Final

from pillion.errors import PayloadError, UnknownJob
from pillion.payload import is_name
from pillion.plain import MAX_DEPTH
from pillion.registry import Definition, Registry
from pillion.types import Payload

WRAPPERS: Final = frozenset(
    {"Sidekiq::ActiveJob::Wrapper", "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"},
)
MAILERS: Final = frozenset({"ActionMailer::DeliveryJob", "ActionMailer::MailDeliveryJob"})

_MARKS: Final = "_aj_"
_GLOBALID: Final = "_aj_globalid"
_KEYWORDS: Final = "_aj_ruby2_keywords"
_SERIALIZED: Final = "_aj_serialized"


def real_name(name: str, wrapped: object) -> str:
    """The class that a payload is about: `wrapped` where it has one, as every log line and counter of Sidekiq does."""
    return wrapped if is_name(wrapped) else name


def find(registry: Registry, name: str, wrapped: object) -> Definition | None:
    """The definition that runs a payload of this `class` and `wrapped`; None if nobody registered it."""
    found = registry.get(name)
    if found is None and name in WRAPPERS and isinstance(wrapped, str):
        return registry.get(wrapped)
    return found


def unknown(registry: Registry, payload: Payload) -> UnknownJob:
    """The error for a payload whose class nobody registered; it names the real class."""
    return registry.unknown(real_name(payload["class"], payload.get("wrapped")))


def unwrap(payload: Payload) -> Payload:
    """The payload as the real class takes it: its own `args` and `kwargs`, all other fields as they are.

    Raises:
        PayloadError: it does not hold what ActiveJob writes.
    """
    arguments = _arguments(payload["args"])
    if arguments is None:
        raise PayloadError(
            f"{payload.get('wrapped')}: expected ActiveJob's hash with its `arguments` as the only argument of "
            f"{payload['class']}, got something else; push it from Rails, or under its own name with plain arguments"
        )
    keywords: dict[str, Any] = {}
    if arguments and isinstance(arguments[-1], dict) and _KEYWORDS in arguments[-1]:
        keywords = plain(arguments.pop())
    return payload | {"args": [plain(each) for each in arguments], "kwargs": keywords}


def plain(value: Any, levels: int = MAX_DEPTH) -> Any:
    """A value without ActiveJob's marks; see the table above. What stands deeper than Ruby writes stays as it is."""
    if not levels or not isinstance(value, list | dict):
        return value
    if isinstance(value, list):
        return [plain(each, levels - 1) for each in value]
    if _GLOBALID in value:
        return value[_GLOBALID]
    if _SERIALIZED in value:
        return plain(value["value"], levels - 1) if "value" in value else value
    return {key: plain(each, levels - 1) for key, each in value.items() if not key.startswith(_MARKS)}


def shown_class(payload: Payload) -> str:
    """The class as people know it: `display_class`, `Mailer#method` for a mail, the real class."""
    given = payload.get("display_class")
    if isinstance(given, str) and given:
        return given
    name = real_name(payload["class"], payload.get("wrapped"))
    if name in MAILERS and (arguments := _arguments(payload["args"])) and len(arguments) > 1:
        return f"{arguments[0]}#{arguments[1]}"
    return name


def shown_args(payload: Payload) -> list[Any]:
    """The arguments as people know them: the real class's, and of a mail what its method takes."""
    arguments = _arguments(payload["args"]) if payload["class"] in WRAPPERS else None
    if arguments is None:
        return list(payload["args"])
    values = [plain(each) for each in arguments]
    match payload.get("wrapped"):
        case "ActionMailer::DeliveryJob":
            return values[3:]
        case "ActionMailer::MailDeliveryJob":
            return [given for each in values[3:] for given in _mail(each)]
        case _:
            return values


def _mail(options: Any) -> list[Any]:
    """What a mailer's method gets: its parameters, if it has any, then its arguments."""
    if not isinstance(options, dict):
        return [options]
    params, args = options.get("params"), options.get("args")
    return ([params] if params else []) + (args if isinstance(args, list) else [])


def _arguments(args: list[Any]) -> list[Any] | None:
    """The `arguments` of ActiveJob's hash, in a list of its own; None where there is no such hash."""
    found = args[0].get("arguments") if len(args) == 1 and isinstance(args[0], dict) else None
    return list(found) if isinstance(found, list) else None
