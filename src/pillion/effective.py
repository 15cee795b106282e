"""What applies to a job's pushes, and where each option was given: `HardWorker.job_options`.

For people: `print(HardWorker.job_options)` answers why a job went to that queue. The client merges the same layers
again at each push; nothing here is on its way."""

from __future__ import annotations

from typing import Any, NamedTuple

from pillion import setup as setups
from pillion.define import option_sources
from pillion.mask import mask_url
from pillion.registry import Definition, definition_of


class Option(NamedTuple):
    """An option's value and where it was given."""

    value: Any
    source: str


class EffectiveOptions(dict[str, Option]):
    """Options by name. Its text is a table."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}}  {option.value!r}  ({option.source})" for name, option in self.items())


class JobOptions:
    """The attribute `job_options` of job classes and function jobs."""

    def __get__(self, instance: object, owner: type[Any]) -> EffectiveOptions:
        definition = definition_of(instance) or definition_of(owner)
        if definition is None:
            raise AttributeError("pillion.Job itself has no options; ask a job class")
        return effective_options(definition)


def effective_options(definition: Definition) -> EffectiveOptions:
    """The configuration's defaults with the definition's own options over them."""
    defaults, given = setups.default.resolved, option_sources(definition)
    options = EffectiveOptions()
    for name, value in defaults.config.default_job_options.items():
        options[name] = Option(value, defaults.sources.get(f"default_job_options.{name}", "default"))
    for name, value in (definition.options | definition.transport).items():
        source = "changed after the definition" if name in definition.changed else given[name]
        options[name] = Option(mask_url(value) if name == "pool" and isinstance(value, str) else value, source)
    return options
