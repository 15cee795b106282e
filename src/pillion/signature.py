"""What `perform` takes, and how a call's arguments become the positional array of the wire.

Sidekiq's payload knows positions only, so keywords are bound to their positions and defaults fill the gaps; what can
only be passed by keyword travels in a separate object. Every enqueue verb binds before anything else happens, so wrong
arguments fail in the caller's line instead of in a worker tonight. Pure: nothing here knows about Redis or payloads.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pillion.errors import ArgumentsError

if sys.version_info >= (3, 14):
    from annotationlib import Format

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

SHOWN_ARGS = 10


class Signature:
    """The parameters of one `perform` (without `self`) or job function; `name` is how errors call it."""

    __slots__ = ("_high", "_low", "_parameters", "name")

    def __init__(self, name: str, parameters: inspect.Signature) -> None:
        self.name = name
        self._parameters = parameters
        self._low, self._high = _positions(parameters)

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters, in their order."""
        return list(self._parameters.parameters.values())

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Sort a call into (the positional array, what can travel by keyword only).

        Raises:
            ArgumentsError: the call does not fit; the message shows the signature.
        """
        if not kwargs and self._low <= len(args) <= self._high:
            return list(args), {}
        try:
            bound = self._parameters.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(self._complaint(args, kwargs, error)) from None
        return self._positional(bound), self._named(bound)

    def takes(self, offered: int) -> int | None:
        """How many of `offered` positional arguments such a function can be given; None if that is too few for it."""
        return int(min(offered, self._high)) if self._low <= offered else None

    def misfit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ArgumentsError | None:
        """The error for a stored job that cannot be called with what it holds; None if it can.

        It shows types, not values: a job's arguments belong in no log.
        """
        try:
            self._parameters.bind(*args, **kwargs)
        except TypeError:
            got = [type(value).__name__ for value in args[:SHOWN_ARGS]]
            got += ["..."] * (len(args) > SHOWN_ARGS)
            got += [f"{name}={type(value).__name__}" for name, value in [*kwargs.items()][:SHOWN_ARGS]]
            return ArgumentsError(
                f"{self.name}: expected {self}, got [{', '.join(got)}]; whoever pushed it does not know this signature"
            )
        return None

    def _positional(self, bound: inspect.BoundArguments) -> list[Any]:
        values: list[Any] = []
        gaps: list[Any] = []
        for name, parameter in self._parameters.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                values += bound.arguments.get(name, ())
            elif parameter.kind not in _POSITIONAL:
                continue
            elif name in bound.arguments:
                values += [*gaps, bound.arguments[name]]
                gaps.clear()
            else:
                gaps.append(parameter.default)
        return values

    def _named(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self._parameters.parameters[name].kind
            if kind is inspect.Parameter.KEYWORD_ONLY:
                named[name] = value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
        return named

    def _complaint(self, args: Sequence[Any], kwargs: Mapping[str, Any], error: TypeError) -> str:
        got = f"{len(args)} positional"
        if kwargs:
            got += f" and {', '.join(kwargs)} by keyword"
        return f"{self.name}: expected {self}, got {got}: {error}; pass what perform takes"

    def __str__(self) -> str:
        """The parameters as they stand in the source: `(name: str, count: int = 1)`."""
        shown = [
            parameter.replace(annotation=_Bare(parameter.annotation))
            if isinstance(parameter.annotation, str)
            else parameter
            for parameter in self._parameters.parameters.values()
        ]
        return str(inspect.Signature(shown))


def signature_of(name: str, function: Callable[..., Any], *, skip_self: bool = False) -> Signature | None:
    """The signature of `function`, or None where it has none (some built-ins): such a job takes anything."""
    try:
        signature = _inspect(function)
    except ValueError:
        return None
    parameters = list(signature.parameters.values())
    takes_self = skip_self and parameters and parameters[0].kind in _POSITIONAL
    return Signature(name, inspect.Signature(parameters[1:] if takes_self else parameters))


def _inspect(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # annotations may name what is imported for type checkers only
        return inspect.signature(function, annotation_format=Format.STRING)
    return inspect.signature(function)


def _positions(signature: inspect.Signature) -> tuple[float, float]:
    """Fewest and most arguments of a call without keywords; a required keyword makes every such call wrong."""
    low, high = 0.0, 0.0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        if parameter.kind in _POSITIONAL:
            low += required
            high += 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            high = math.inf
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            low = math.inf
    return low, high


class _Bare(str):
    """An annotation that prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)
