"""From the places where people put settings to one frozen `Config`, and for every value the place it came from.

    defaults < pyproject.toml [tool.pillion], or the file of -C < environment < code < command line flags

A later place wins option by option. Called by `setup` when the first client or the worker needs its configuration, and
by `pillion config`. It reads the one configuration file and nothing else: the environment, the working directory and
what code and flags gave are parameters. Nothing is stored; a crash leaves nothing.

A TOML file looks like this (outside `pyproject.toml` the tables lose their `tool.pillion` in front):

    [tool.pillion]
    concurrency = 10
    queues = ["critical,3", "default"]      # also [["critical", 3], ["default", 1]] or {critical = 3, default = 1}

    [tool.pillion.redis]
    url = "redis://localhost:6379/0"        # `redis = "redis://..."` one level up says the same
    pool_size = 20

    [tool.pillion.capsules.reports]         # a capsule beside the default one, by its name
    concurrency = 1
    queues = ["reports"]

    [tool.pillion.default_job_options]
    retry = 5

A `sidekiq.yml` is read with the same names, with or without symbols' colons, with `:capsules:` by name, and with a
section per environment that wins over the top of the file. The environment knows `PILLION_<OPTION>` for every option
that is not a table (`PILLION_REDIS_<OPTION>` for those of `redis`), `PILLION_ENV` or else `APP_ENV`, `RAILS_ENV` or
`RACK_ENV`, and for the address `PILLION_REDIS_URL`, or else the variable that `REDIS_PROVIDER` names, or else
`REDIS_URL`. An empty variable counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import msgspec

from pillion import configfile
from pillion.config import Capsule, Config, RedisSettings
from pillion.errors import ConfigError
from pillion.given import shown
from pillion.mask import mask_secrets, mask_url
from pillion.options import CAPSULE, CODE_ONLY, GENERAL, REDIS, SILENT, parse, unknown
from pillion.sharding import check_places, check_shard_by

__all__ = ["Line", "Resolved", "listing", "mask_secrets", "mask_url", "resolve"]

DEFAULT = "default"
CODE = "code: pillion.configure"
TABLES = ("redis", "shards", "capsules", "default_job_options")
IDLE = "redis_idle_timeout"
SHARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
FLAG_NAMES = {"queues": "queue"}
TOP = (*CAPSULE, *GENERAL, *TABLES, IDLE)
ENVIRONMENT_VARIABLES = ("RACK_ENV", "RAILS_ENV", "APP_ENV")
"""What names the environment, besides `PILLION_ENV`; a later one wins."""

_Setting: TypeAlias = tuple[str, Any, str]
"""Dotted name, value not yet checked, where it stands. None as a value takes a lower place's value away."""

_Where: TypeAlias = Callable[..., str]


class Resolved(msgspec.Struct, frozen=True):
    """The configuration, for each option by its dotted name the place its value came from, and what to tell people."""

    config: Config
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True):
    """One option as it is shown to people: dotted name, value without secrets, place it came from."""

    name: str
    value: Any
    source: str


def resolve(
    *,
    flags: Mapping[str, Any],
    code: Mapping[str, Any],
    env: Mapping[str, str],
    cwd: Path,
    file: Path | None = None,
    alone: bool = False,
) -> Resolved:
    """One configuration out of all places.

    Args:
        flags: options from the command line by their names here; None counts as not given.
        code: what the program gave to `pillion.configure`; `redis` may be an address, a mapping, a `RedisSettings` or
            an existing redis-py client, `capsules` a mapping by name or a sequence of `Capsule`s. A finished object
            replaces everything that lower places said about its part, a mapping only what it names.
        env: the environment's variables.
        cwd: where to look for `pyproject.toml`, upwards, and where relative paths begin.
        file: the configuration file of `-C`, instead of `pyproject.toml`.
        alone: pass over what is said about shards: there is one, and that is `redis`.

    Raises:
        ConfigError: an option nobody knows, or a value that cannot be meant; it names the place and what to do.
    """
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    from_code = list(_flatten(code, lambda *path: CODE, code=True))
    from_flags = list(_flatten(flags, _flag, code=True))
    from_env = list(_from_environment(env))
    above = [*from_env, *from_code, *from_flags]
    from_file, notes = _from_file(cwd, file, env, above)
    for name, value, where in (*from_file, *above):
        if alone and name.startswith(("shards.", "shard_by")):
            continue
        chosen[name] = None if value is None else parse(name, value, where)
        sources[name] = where
    config = _build({name: value for name, value in chosen.items() if value is not None}, sources)
    return Resolved(config, sources, notes)


def listing(resolved: Resolved) -> list[Line]:
    """Every option with its value and source in a stable order, without secrets: what `pillion config` prints."""
    config = resolved.config
    values: dict[str, Any] = {name: getattr(config, name) for name in GENERAL if name not in CODE_ONLY}
    values |= {f"default_job_options.{name}": value for name, value in config.default_job_options.items()}
    values |= {f"redis.{name}": value for name, value in msgspec.structs.asdict(config.redis).items()}
    for shard, settings in config.shards:
        own = [option for option in REDIS if f"shards.{shard}.{option}" in resolved.sources]
        values |= {f"shards.{shard}.{option}": getattr(settings, option) for option in own}
    for capsule in config.capsules:
        values |= {_capsule_option(capsule.name, name): getattr(capsule, name) for name in CAPSULE}
    return [Line(name, _shown(name, value), resolved.sources.get(name, DEFAULT)) for name, value in values.items()]


def _shown(name: str, value: Any) -> Any:
    if value is None:
        return None
    part = name.rpartition(".")[2] if name.startswith(("redis.", "shards.")) else ""
    if part == "url":
        return mask_url(value)
    if part == "client" or (part == "adapter" and not isinstance(value, str)):
        return type(value).__name__  # its repr may hold the password
    if name.endswith("queues"):
        return [f"{queue},{weight}" if weight else queue for queue, weight in value]
    return mask_secrets(value) if isinstance(value, str) else value


def _flag(*path: str) -> str:
    return f"flag --{FLAG_NAMES.get(path[0], path[0]).replace('_', '-')}"


# --- places -----------------------------------------------------------------------------------------------------------


def _from_file(
    cwd: Path, file: Path | None, env: Mapping[str, str], above: list[_Setting]
) -> tuple[list[_Setting], tuple[str, ...]]:
    path = file or configfile.find_pyproject(cwd)
    if path is None:
        return [], ()
    found = configfile.read(path, cwd, TOP, env)
    named = [value for name, value, _ in above if name == "environment"]
    section = str(named[-1] if named else found.options.get("environment") or Config().environment)
    below = found.sections.get(section, {})
    settings = [*_flatten(found.options, found.where), *_flatten(below, lambda *path: found.where(section, *path))]
    return settings, tuple(found.notes(section))


def _from_environment(env: Mapping[str, str]) -> Iterator[_Setting]:
    variables = _variables()
    _refuse_typing_mistakes(env, variables)
    if env.get("DEBUG_INVOCATION") == "1":  # systemd starts a unit again, to find out what is wrong with it
        yield "verbose", True, "environment variable DEBUG_INVOCATION"
    for variable in ENVIRONMENT_VARIABLES:
        if env.get(variable):
            yield "environment", env[variable], f"environment variable {variable}"
    yield from _redis_address(env)
    for variable, name in variables.items():
        if env.get(variable):
            yield name, env[variable], f"environment variable {variable}"


def _variables() -> dict[str, str]:
    names = [*GENERAL, *CAPSULE, *(f"redis.{name}" for name in REDIS)]
    spelled = {f"PILLION_{name.upper().replace('.', '_')}": name for name in names if name not in CODE_ONLY}
    spelled["PILLION_ENV"] = spelled.pop("PILLION_ENVIRONMENT")
    return spelled


def _refuse_typing_mistakes(env: Mapping[str, str], variables: Mapping[str, str]) -> None:
    """A `PILLION_` variable of another program is left alone; one that is nearly an option's is a mistake."""
    for variable in env:
        if not variable.startswith("PILLION_") or variable in variables:
            continue
        close = get_close_matches(variable.upper(), variables, n=1, cutoff=0.92)
        meant = "PILLION_ENV" if variable == "PILLION_ENVIRONMENT" else next(iter(close), None)
        if meant:
            raise ConfigError(f"unknown environment variable {variable}; did you mean {meant}?")


def _redis_address(env: Mapping[str, str]) -> Iterator[_Setting]:
    variable, where = "REDIS_URL", "environment variable REDIS_URL"
    provider = env.get("REDIS_PROVIDER")
    if provider:
        variable, where = provider, f"environment variable {provider}, named by REDIS_PROVIDER"
        if ":" in provider:
            raise ConfigError(
                "REDIS_PROVIDER: expected the name of another environment variable, got an address; "
                "write REDIS_PROVIDER=MY_REDIS_URL, or put the address into REDIS_URL"
            )
        if not env.get(provider):
            raise ConfigError(
                f"REDIS_PROVIDER: expected the name of an environment variable that is set, got {provider}, which is "
                f"not; set {provider} to the server's address, or unset REDIS_PROVIDER"
            )
    if env.get(variable):
        yield "redis.url", env[variable], where


def _flatten(options: Mapping[str, Any], where: _Where, *, code: bool = False) -> Iterator[_Setting]:
    for name, value in options.items():
        if name == "logger" and code:
            yield _logger(value, where)
        elif value is None:
            continue
        elif name == "redis":
            yield from _redis(value, where, code=code)
        elif name == IDLE:  # as Sidekiq calls it
            yield "redis.idle_timeout", value, where(name)
        elif name == "shards":
            yield from _shards(value, where, code=code)
        elif name == "capsules":
            yield from _capsules(value, where)
        elif name == "default_job_options":
            yield from _job_options(value, where)
        elif name in TOP and (code or name not in CODE_ONLY):
            yield name, value, where(name)
        else:
            unknown(name, [known for known in TOP if code or known not in CODE_ONLY], where(name))


def _logger(value: Any, where: _Where) -> _Setting:
    """Sidekiq's way to switch its log off, `logger=None`, is a level here."""
    if value is not None:
        cure = 'lines go to logging.getLogger("pillion"): put your handlers there, or on the root logger'
        _expected("logger", "None, which switches the log off", value, where, cure)
    return "log_level", SILENT, f"{where('logger')}(logger=None)"


def _redis(value: Any, where: _Where, *, code: bool, part: str = "redis") -> Iterator[_Setting]:
    path = part.split(".")
    known = [name for name in REDIS if code or f"redis.{name}" not in CODE_ONLY]
    if isinstance(value, RedisSettings):
        for name in REDIS:
            yield f"{part}.{name}", getattr(value, name), where(*path)
    elif isinstance(value, str):
        yield f"{part}.url", value, where(*path)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in known:
                unknown(f"{part}.{name}", [f"{part}.{option}" for option in known], where(*path, name))
            if item is not None:
                yield f"{part}.{name}", item, where(*path, name)
    elif code and (hasattr(value, "connection_pool") or hasattr(value, "connection_kwargs")):
        yield f"{part}.client", value, where(*path)
    else:
        _expected(part, "an address or a table", value, where, f'write {path[-1]} = "redis://localhost:6379/0"')


def _shards(value: Any, where: _Where, *, code: bool) -> Iterator[_Setting]:
    """Each shard is what `redis` may be, and has its options where it names none of its own."""
    if not isinstance(value, Mapping) or not value:
        cure = "name each one: [tool.pillion.shards.NAME] with its url or its prefix"
        _expected("shards", "tables by name", value, where, cure)
    for shard, options in value.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            _expected("shards", "names of letters, digits, _ and -", shard, where, "rename it")
        if isinstance(options, Mapping) and not options:
            _expected(f"shards.{shard}", "an address or a table", options, where, "give it a url or a prefix")
        yield from _redis(options, where, code=code, part=f"shards.{shard}")


def _capsules(value: Any, where: _Where) -> Iterator[_Setting]:
    if isinstance(value, list | tuple) and all(isinstance(item, Capsule) for item in value):
        value = {item.name: item for item in value}
    if not isinstance(value, Mapping):
        cure = "name each one: [tool.pillion.capsules.NAME] in TOML, `NAME:` below `capsules:` in YAML"
        _expected("capsules", "tables by name", value, where, cure)
    for capsule, options in value.items():
        if isinstance(options, Capsule):
            for name in CAPSULE:
                yield _capsule_option(capsule, name), getattr(options, name), where("capsules")
            continue
        if not isinstance(options, Mapping):
            _expected(f"capsules.{capsule}", "a table", options, where, "give it concurrency and queues")
        for name, item in options.items():
            place = where("capsules", capsule, name)
            if name not in CAPSULE:
                unknown(f"capsules.{capsule}.{name}", [f"capsules.{capsule}.{option}" for option in CAPSULE], place)
            if item is not None:
                yield _capsule_option(capsule, name), item, place


def _job_options(value: Any, where: _Where) -> Iterator[_Setting]:
    if not isinstance(value, Mapping):
        _expected("default_job_options", "a table", value, where, "write default_job_options = {retry = 5}")
    for name, item in value.items():
        yield f"default_job_options.{name}", item, where("default_job_options", name)


def _capsule_option(capsule: str, name: str) -> str:
    """The dotted name of one capsule's option; the default capsule's have no prefix."""
    return name if capsule == "default" else f"capsules.{capsule}.{name}"


def _expected(name: str, expected: str, value: Any, where: _Where, cure: str) -> NoReturn:
    raise ConfigError(f"{name}: expected {expected}, got {shown(value)} ({where(*name.split('.'))}); {cure}")


# --- the whole --------------------------------------------------------------------------------------------------------


def _build(chosen: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
    _belong_together(chosen, sources)
    options = {**Config().default_job_options, **_below(chosen, "default_job_options.")}
    redis = RedisSettings(**_below(chosen, "redis."))
    shards = tuple((name, msgspec.structs.replace(redis, **own)) for name, own in _named(chosen, "shards.").items())
    check_places(shards or (("", redis),), sources)
    general = {name: value for name, value in chosen.items() if name in GENERAL}
    if "shard_by" in general:
        general["shard_by"] = check_shard_by(general["shard_by"], [name for name, _ in shards], sources["shard_by"])
    return Config(
        **general,
        redis=shards[0][1] if shards else redis,
        shards=shards,
        capsules=_build_capsules(chosen, sources),
        default_job_options=options,
    )


def _below(chosen: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in chosen.items() if name.startswith(prefix)}


def _named(chosen: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """What tables by name hold: the options of each."""
    named: dict[str, dict[str, Any]] = {}
    for dotted, value in _below(chosen, prefix).items():
        table, _, name = dotted.rpartition(".")
        named.setdefault(table, {})[name] = value
    return named


def _build_capsules(chosen: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[Capsule, ...]:
    default = Capsule(**{name: chosen[name] for name in CAPSULE if name in chosen})
    named = _named(chosen, "capsules.")
    for capsule, options in named.items():
        if "queues" not in options:
            where = next(sources[_capsule_option(capsule, name)] for name in options)
            raise ConfigError(f'capsules.{capsule}: expected queues, got none ({where}); write queues = ["{capsule}"]')
    return (default, *(Capsule(name=name, **options) for name, options in named.items()))


def _belong_together(chosen: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    pairs = (("redis.sentinels", "redis.master"), ("redis.cert_file", "redis.key_file"))
    for one, other in (*pairs, *((second, first) for first, second in pairs)):
        if chosen.get(one) and not chosen.get(other):
            raise ConfigError(f"{one}: expected {other} beside it, got nothing ({sources[one]}); set both or neither")
