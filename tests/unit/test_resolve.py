"""The configuration as a table: every place x every kind of value x unset, then every mistake with its sentence."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from pillion.clock import SystemClock
from pillion.config import Config, RedisSettings
from pillion.errors import ConfigError
from pillion.resolve import Resolved, listing, resolve

PLACES = ("pyproject", "toml", "yaml", "environment", "code", "flag")
"""From the weakest to the strongest; the first three exclude each other."""

ORDER = ("pyproject", "environment", "code", "flag")

VALUES: dict[str, tuple[object, object]] = {
    # option: what somebody writes, what it means
    "environment": ("production", "production"),
    "timeout": (8, 8.0),
    "lease": (1.5, 1.5),
    "heartbeat": (5, 5.0),
    "tag": ("shop front", "shop front"),
    "labels": (["eu", "blue"], ("eu", "blue")),
    "poll_interval_average": (15, 15.0),
    "average_scheduled_poll_interval": (2.5, 2.5),
    "max_retries": (0, 0),
    "dead_max_jobs": (50, 50),
    "dead_timeout_in_seconds": (3600, 3600.0),
    "strict_args": (False, False),
    "max_payload": (2048, 2048),
    "wire": ("7", "7"),
    "log_level": ("WARN", "warning"),
    "log_format": ("json", "json"),
    "verbose": (True, True),
    "require": (["app", "lib/jobs.py"], ("app", "lib/jobs.py")),
    "concurrency": (12, 12),
    "queues": (["critical,3", "default"], (("critical", 3), ("default", 1))),
    "threads": (4, 4),
    "redis.url": ("rediss://:pw@db.example:6380/2", "rediss://:pw@db.example:6380/2"),
    "redis.sentinels": (["a:26379", "b:26379"], ("a:26379", "b:26379")),
    "redis.cluster": (["a:6379", "b:6379"], ("a:6379", "b:6379")),
    "redis.master": ("mymaster", "mymaster"),
    "redis.prefix": ("shop:", "shop:"),
    "redis.pool_size": (3, 3),
    "redis.checkout_timeout": (0.5, 0.5),
    "redis.connect_timeout": (2, 2.0),
    "redis.timeout": (9, 9.0),
    "redis.ca_file": ("/etc/ca.pem", "/etc/ca.pem"),
    "redis.cert_file": ("/etc/cert.pem", "/etc/cert.pem"),
    "redis.key_file": ("/etc/key.pem", "/etc/key.pem"),
    "redis.insecure_skip_verify": (True, True),
}
PARTNERS: dict[str, dict[str, object]] = {
    "redis.sentinels": {"redis.master": "mymaster"},
    "redis.master": {"redis.sentinels": ["a:26379"]},
    "redis.cluster": {"redis.prefix": "{s0}"},
    "redis.cert_file": {"redis.key_file": "k"},
    "redis.key_file": {"redis.cert_file": "c"},
}
WRONG: list[tuple[str, object, str]] = [
    ("concurrency", 0, "concurrency: expected a whole number from 1 to 10000, got 0"),
    ("concurrency", -1, "concurrency: expected a whole number from 1 to 10000, got -1"),
    ("concurrency", 10**6, "concurrency: expected a whole number from 1 to 10000, got 1000000"),
    ("concurrency", "ten", "concurrency: expected a whole number from 1 to 10000, got 'ten'"),
    ("concurrency", 2.5, "concurrency: expected a whole number from 1 to 10000, got 2.5"),
    ("threads", 0, "threads: expected a whole number"),
    ("timeout", -1, "timeout: expected seconds from 0 to 604800, got -1"),
    ("timeout", "soon", "timeout: expected seconds from 0 to 604800, got 'soon'"),
    ("timeout", "nan", "timeout: expected seconds"),
    ("timeout", "1e999", "timeout: expected seconds"),
    ("heartbeat", 60, "heartbeat: expected seconds from 0.05 to 30, got 60"),
    ("verbose", "perhaps", "verbose: expected true or false, got 'perhaps'"),
    (
        "log_level",
        "wrning",
        "log_level: expected one of debug, info, warning, error, critical, silent, warn, fatal, got 'wrning'",
    ),
    ("wire", "9", "wire: expected one of 8, 7, 6, got '9'"),
    ("environment", "two words", "environment: expected a name without spaces"),
    ("tag", "x" * 99 + "\u200b", f"tag: expected one line of text, got '{'x' * 76}..."),
    ("queues", ["a", "a"], "queues: expected every queue once"),
    ("queues", ["a,0", "b,2"], "queues: expected weights of 1 and more, or none"),
    ("queues", ["a,-1"], "weight of queue a: expected a whole number from 0 to 1000, got '-1'"),
    ("queues", ["a,many"], "weight of queue a: expected a whole number"),
    ("queues", ["a,1,2"], "queues: expected queues by name, or name,weight"),
    ("redis.url", "localhost:6379", "redis.url: expected an address that begins with redis://"),
    ("redis.url", "http://localhost", "write redis:// instead of http://"),
    ("redis.url", "redsi://localhost", "write redis:// instead of redsi://"),
    ("redis.url", "redis://localhost:0/0", "redis.url: expected a port from 1 to 65535"),
    ("redis.url", "redis://localhost:99999/0", "redis.url: expected a port from 1 to 65535"),
    ("redis.url", "redis://localhost:port/0", "redis.url: expected a port from 1 to 65535"),
    ("redis.url", "redis://localhost/zero", "redis.url: expected a database number"),
    ("redis.url", "redis://localhost/-1", "redis.url: expected a database number"),
    ("redis.url", "unix://", "redis.url: expected the path of a socket"),
    ("redis.sentinels", ["no-port"], "redis.sentinels: expected host:port for each"),
    ("redis.cluster", ["no-port"], "redis.cluster: expected host:port for each"),
    ("redis.pool_size", 0, "redis.pool_size: expected a whole number"),
]


def settle(place: str, options: Mapping[str, object], tmp_path: Path, **more: Any) -> Resolved:
    """Resolve with `options` standing in one place; `more` adds other places."""
    arguments: dict[str, Any] = {"flags": {}, "code": {}, "env": {}, "cwd": tmp_path} | more
    if place == "pyproject":
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n" + toml(options, "tool.pillion"))
    elif place == "toml":
        arguments["file"] = write(tmp_path / "pillion.toml", toml(options))
    elif place == "yaml":
        arguments["file"] = write(tmp_path / "sidekiq.yml", yaml.safe_dump(nest(options)))
    elif place == "environment":
        arguments["env"] = {variable(name): spelled(value) for name, value in options.items()}
    else:
        arguments["code" if place == "code" else "flags"] = nest(options)
    return resolve(**arguments)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def nest(options: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in options.items():
        table, _, key = name.rpartition(".")
        (nested.setdefault(table, {}) if table else nested)[key] = value
    return nested


def toml(options: Mapping[str, object], table: str = "") -> str:
    lines = [f"[{table}]"] if table else []
    nested = nest(options)
    lines += [
        f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in nested.items()
        if not isinstance(value, dict)
    ]
    for name, value in nested.items():
        if isinstance(value, dict):
            lines += [
                f"[{table + '.' if table else ''}{name}]",
                *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in value.items()),
            ]
    return "\n".join(lines) + "\n"


def variable(name: str) -> str:
    return "PILLION_ENV" if name == "environment" else f"PILLION_{name.upper().replace('.', '_')}"


def spelled(value: object) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value).lower()


def found(config: Config, name: str) -> Any:
    if name.startswith("redis."):
        return getattr(config.redis, name.removeprefix("redis."))
    return getattr(config.capsules[0] if name in ("concurrency", "queues", "threads") else config, name)


def expected_source(place: str, name: str) -> str:
    flag = {"queues": "queue", "redis.url": "redis"}.get(name, name).replace("_", "-")
    return {
        "pyproject": r"pyproject\.toml:\d+",
        "toml": r"pillion\.toml:\d+",
        "yaml": r"sidekiq\.yml:\d+",
        "environment": f"environment variable {variable(name)}",
        "code": "code: pillion.configure",
        "flag": f"flag --{'redis' if name.startswith('redis.') else flag}",
    }[place]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", VALUES)
def test_every_option_can_be_set_in_every_place(place: str, name: str, tmp_path: Path) -> None:
    written, meant = VALUES[name]
    if place == "environment" and isinstance(written, str):
        written = written.replace(" ", "-")
        meant = written if name == "tag" else meant
    resolved = settle(place, {name: written, **PARTNERS.get(name, {})}, tmp_path)
    assert found(resolved.config, name) == meant
    assert type(found(resolved.config, name)) is type(meant)
    assert re.fullmatch(expected_source(place, name), resolved.sources[name])


@pytest.mark.parametrize("name", VALUES)
def test_unset_means_the_default(name: str, tmp_path: Path) -> None:
    resolved = resolve(flags={}, code={}, env={}, cwd=tmp_path)
    assert found(resolved.config, name) == found(Config(), name)
    assert {line.name: line.source for line in listing(resolved)}[name] == "default"


@pytest.mark.parametrize("place", ["yaml", "environment", "code", "flag"])
@pytest.mark.parametrize("name", ["timeout", "queues", "redis.url", "labels"])
def test_none_and_empty_variables_count_as_unset(place: str, name: str, tmp_path: Path) -> None:
    if place == "environment":
        resolved = resolve(flags={}, code={}, env={variable(name): ""}, cwd=tmp_path)
    else:
        resolved = settle(place, {name: None}, tmp_path)
    assert found(resolved.config, name) == found(Config(), name)


@pytest.mark.rule("config.zero", "b9.58", instead=True)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "value", "sentence"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_every_mistake_is_named_with_its_place(
    place: str, name: str, value: object, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(place, {name: value, **PARTNERS.get(name, {})}, tmp_path)
    said = str(caught.value)
    assert "; " in said
    if not (place == "environment" and isinstance(value, int | float)):
        assert sentence in said
    assert re.search(rf"\({expected_source(place, name)}\); ", said)


@pytest.mark.rule("fetch.empty", "b9.53", instead=True)
def test_an_empty_list_of_queues_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected at least one queue"):
        settle("code", {"queues": []}, tmp_path)


# --- which place wins -------------------------------------------------------------------------------------------------


@pytest.mark.rule("config.order")
@pytest.mark.rule("b9.58", instead=True)
@pytest.mark.parametrize(("weaker", "stronger"), list(itertools.combinations(ORDER, 2)))
def test_the_stronger_place_wins(weaker: str, stronger: str, tmp_path: Path) -> None:
    above: dict[str, dict[str, Any]] = {
        "environment": {"env": {"PILLION_TIMEOUT": "2"}},
        "code": {"code": {"timeout": 2}},
        "flag": {"flags": {"timeout": 2}},
    }
    resolved = settle(weaker, {"timeout": 1, "lease": 7}, tmp_path, **above[stronger])
    assert resolved.config.timeout == 2
    assert re.fullmatch(expected_source(stronger, "timeout"), resolved.sources["timeout"])
    assert resolved.config.lease == 7, "what only the weaker place says stays"


def test_a_file_given_by_flag_replaces_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.pillion]\ntimeout = 1\nlease = 9\n")
    resolved = settle("toml", {"timeout": 2}, tmp_path)
    assert (resolved.config.timeout, resolved.config.lease) == (2, 60)


@pytest.mark.rule("config.found", instead=True)
def test_the_nearest_pyproject_with_our_table_is_read(tmp_path: Path) -> None:
    inner = tmp_path / "service" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.pillion]\ntimeout = 1\n")
    (tmp_path / "service" / "pyproject.toml").write_text("[project]\nname = 'no table of ours'\n")
    resolved = resolve(flags={}, code={}, env={}, cwd=inner)
    assert resolved.config.timeout == 1
    assert resolved.sources["timeout"] == f"{tmp_path}/pyproject.toml:2"


# --- the environment's own names --------------------------------------------------------------------------------------


@pytest.mark.rule("client.url", "config.provider")
@pytest.mark.parametrize(
    ("env", "meant", "source"),
    [
        ({"REDIS_URL": "redis://a"}, "redis://a", "REDIS_URL"),
        ({"REDIS_URL": "redis://a", "REDIS_PROVIDER": "X_URL", "X_URL": "redis://b"}, "redis://b", "X_URL, named by"),
        ({"REDIS_URL": "redis://a", "PILLION_REDIS_URL": "redis://c"}, "redis://c", "PILLION_REDIS_URL"),
        ({"REDIS_URL": ""}, None, None),
        ({"REDIS_URL": "redis://a", "REDIS_PROVIDER": ""}, "redis://a", "REDIS_URL"),
        ({"REDIS_URL": "redis://user:p%40ss@a:1/3?x=y"}, "redis://user:p%40ss@a:1/3?x=y", "REDIS_URL"),
        ({"REDIS_URL": "rediss://[::1]:6379"}, "rediss://[::1]:6379", "REDIS_URL"),
        ({"REDIS_URL": "unix:///run/r.sock?db=1"}, "unix:///run/r.sock?db=1", "REDIS_URL"),
    ],
)
def test_where_the_address_comes_from(
    env: dict[str, str], meant: str | None, source: str | None, tmp_path: Path
) -> None:
    resolved = resolve(flags={}, code={}, env=env, cwd=tmp_path)
    assert resolved.config.redis.url == meant
    assert (source or "default") in resolved.sources.get("redis.url", "default")


@pytest.mark.rule("client.url", "config.provider")
@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"REDIS_PROVIDER": "redis://:hush@a"}, "expected the name of another environment variable, got an address"),
        ({"REDIS_PROVIDER": "GONE_URL"}, "expected the name of an environment variable that is set, got GONE_URL"),
        ({"REDIS_URL": "tcp://:hush@a"}, r"got tcp://:\*\*\*@a \(environment variable REDIS_URL\); write redis://"),
        ({"REDIS_URL": "redis://:hu/sh@a:6379/0"}, "%2F for /"),
        ({"REDIS_URL": "redis://u:hu#sh@a:6379/0"}, "in the password, write"),
        ({"REDIS_URL": "redis://:6379:hush@a:x/0"}, "expected a port"),
        ({"PILLION_CONCURENCY": "5"}, "PILLION_CONCURENCY; did you mean PILLION_CONCURRENCY"),
        ({"PILLION_ENVIRONMENT": "x"}, "did you mean PILLION_ENV"),
        ({"PILLION_REDIS_ULR": "redis://:hush@x"}, "did you mean PILLION_REDIS_URL"),
    ],
)
def test_mistakes_in_the_environment(env: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        resolve(flags={}, code={}, env=env, cwd=tmp_path)
    assert not re.search("hu.?sh", str(caught.value))


def test_other_programs_variables_are_left_alone(tmp_path: Path) -> None:
    env = {"PILLION_TEST_SERVER": "x", "PILLIONAIRE": "y", "PILLION_SADDLE": "z"}
    assert resolve(flags={}, code={}, env=env, cwd=tmp_path).sources == {}


@pytest.mark.rule("config.environment")
@pytest.mark.parametrize(
    ("env", "flags", "meant"),
    [
        ({}, {}, "development"),
        ({"APP_ENV": "", "RAILS_ENV": "", "RACK_ENV": ""}, {}, "development"),
        ({"RACK_ENV": "deployment"}, {}, "deployment"),
        ({"RACK_ENV": "deployment", "RAILS_ENV": "review"}, {}, "review"),
        ({"RACK_ENV": "deployment", "RAILS_ENV": "review", "APP_ENV": "staging"}, {}, "staging"),
        ({"APP_ENV": "staging", "PILLION_ENV": "test"}, {}, "test"),
        ({"APP_ENV": "staging"}, {"environment": "production"}, "production"),
    ],
)
def test_which_environment_it_is(env: dict[str, str], flags: dict[str, str], meant: str, tmp_path: Path) -> None:
    assert resolve(flags=flags, code={}, env=env, cwd=tmp_path).config.environment == meant


@pytest.mark.rule("log.off", instead=True)
def test_logger_none_switches_the_log_off(tmp_path: Path) -> None:
    resolved = resolve(flags={}, code={"logger": None}, env={}, cwd=tmp_path)
    assert resolved.config.log_level == "silent"
    assert resolved.sources["log_level"] == "code: pillion.configure(logger=None)"


@pytest.mark.rule("log.own", instead=True)
def test_a_logger_of_ones_own_is_refused_with_the_cure(tmp_path: Path) -> None:
    sentence = r"logger: expected None, which switches the log off, got <.*>.*; lines go to logging.getLogger\("
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={"logger": object()}, env={}, cwd=tmp_path)


@pytest.mark.parametrize("name", ["concurrency", "timeout", "verbose", "wire", "tag", "labels", "redis", "max_memory"])
def test_numbers_too_long_to_print_are_refused_as_anything_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected .*, got a huge number"):
        settle("code", {name: 16**5000}, tmp_path)


def test_switches_and_lists_in_the_environment(tmp_path: Path) -> None:
    env = {"PILLION_VERBOSE": "off", "PILLION_LABELS": "a, b,c", "PILLION_STRICT_ARGS": "warn"}
    config = resolve(flags={}, code={"verbose": False}, env=env, cwd=tmp_path).config
    assert (config.verbose, config.labels, config.strict_args) == (False, ("a", "b", "c"), "warn")


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("fetch.mode")
@pytest.mark.rule("b9.58", instead=True)
@pytest.mark.parametrize(
    ("written", "meant", "mode"),
    [
        (["a", "b"], (("a", 0), ("b", 0)), "strict"),
        (["a,0", "b"], (("a", 0), ("b", 0)), "strict"),
        (["a,1", "b,1"], (("a", 1), ("b", 1)), "random"),
        (["a,3", "b"], (("a", 3), ("b", 1)), "weighted"),
        ([["a", 3], ["b", 1]], (("a", 3), ("b", 1)), "weighted"),
        ([["a"], "b"], (("a", 0), ("b", 0)), "strict"),
        ([["a", "3"], "b, 1"], (("a", 3), ("b", 1)), "weighted"),
        ({"a": 3, "b": 1}, (("a", 3), ("b", 1)), "weighted"),
        (["a:b", "émoji🎉"], (("a:b", 0), ("émoji🎉", 0)), "strict"),
    ],
)
@pytest.mark.parametrize("place", ["toml", "yaml", "code", "flag"])
def test_the_forms_of_queues(
    place: str, written: Any, meant: tuple[tuple[str, int], ...], mode: str, tmp_path: Path
) -> None:
    if place == "toml" and isinstance(written, dict):
        file = write(tmp_path / "p.toml", "queues = {a = 3, b = 1}\n")
        capsule = resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file).config.capsules[0]
    else:
        capsule = settle(place, {"queues": written}, tmp_path).config.capsules[0]
    assert (capsule.queues, capsule.mode) == (meant, mode)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 129, "nul\0"])
def test_impossible_queue_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="queues"):
        settle("code", {"queues": [name]}, tmp_path)


# --- job options and code ---------------------------------------------------------------------------------------------


@pytest.mark.rule("client.defaults")
@pytest.mark.parametrize("place", ["toml", "yaml", "code"])
def test_default_job_options_are_merged(place: str, tmp_path: Path) -> None:
    resolved = settle(place, {"default_job_options.retry": 3, "default_job_options.tenant": "x"}, tmp_path)
    assert resolved.config.default_job_options == {"queue": "default", "retry": 3, "tenant": "x"}


def test_no_default_is_shared_between_two_results(tmp_path: Path) -> None:
    one, two = (resolve(flags={}, code={}, env={}, cwd=tmp_path).config for _ in range(2))
    assert one.default_job_options is not two.default_job_options
    assert one.rng is not two.rng


class Pool:
    """Looks as an existing redis-py pool does to us."""

    connection_kwargs: ClassVar[dict[str, object]] = {}

    def __repr__(self) -> str:
        return "Pool(password=hush)"


def test_objects_only_code_can_give(tmp_path: Path) -> None:
    clock, rng, pool = SystemClock(), random.Random(1), Pool()
    code = {"clock": clock, "rng": rng, "new_jid": lambda: "j", "redis": pool}
    resolved = resolve(flags={}, code=code, env={}, cwd=tmp_path)
    assert resolved.config.clock is clock
    assert resolved.config.rng is rng
    assert resolved.config.new_jid() == "j"
    assert resolved.config.redis.client is pool
    assert {line.name: line.value for line in listing(resolved)}["redis.client"] == "Pool"


def test_finished_redis_settings_replace_the_whole_part(tmp_path: Path) -> None:
    env = {"REDIS_URL": "redis://a", "PILLION_REDIS_POOL_SIZE": "3"}
    finished = RedisSettings(url="redis://b")
    assert resolve(flags={}, code={"redis": finished}, env=env, cwd=tmp_path).config.redis == finished
    assert resolve(flags={}, code={"redis": RedisSettings()}, env=env, cwd=tmp_path).config.redis == RedisSettings()
    named = resolve(flags={}, code={"redis": "redis://b"}, env=env, cwd=tmp_path).config.redis
    assert (named.url, named.pool_size) == ("redis://b", 3)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_listing_hides_passwords_and_names_every_place(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pillion]\ntimeout = 5\n[tool.pillion.default_job_options]\nretry=1\n"
    )
    env = {"REDIS_URL": "redis://:hush@h:1/0"}
    lines = listing(resolve(flags={"queues": ["a,2", "b"]}, code={}, env=env, cwd=tmp_path))
    table = {line.name: (line.value, line.source) for line in lines}
    assert table["redis.url"] == ("redis://:***@h:1/0", "environment variable REDIS_URL")
    assert table["timeout"] == (5.0, "pyproject.toml:2")
    assert table["queues"] == (["a,2", "b,1"], "flag --queue")
    assert table["default_job_options.retry"] == (1, "pyproject.toml:4")
    assert table["lease"] == (60.0, "default")
    assert "hush" not in repr(lines)
    assert not {"clock", "rng", "new_jid"} & set(table)
