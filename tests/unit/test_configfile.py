"""Configuration files: capsules and tables in TOML, a `sidekiq.yml` in Ruby's spelling, and every mistake in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillion.config import Capsule
from pillion.errors import ConfigError
from pillion.resolve import resolve


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- capsules and tables ----------------------------------------------------------------------------------------------


CAPSULES_TOML = """
concurrency = 3
[capsules.serial]
concurrency = 1
queues = ["one"]
[capsules.default]
threads = 2
"""


@pytest.mark.rule("life.capsule")
def test_capsules_by_name_in_toml(tmp_path: Path) -> None:
    file = write(tmp_path / "p.toml", CAPSULES_TOML)
    resolved = resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)
    assert resolved.config.capsules == (
        Capsule(concurrency=3, threads=2),
        Capsule(name="serial", concurrency=1, queues=(("one", 0),)),
    )
    assert resolved.sources["capsules.serial.concurrency"] == "p.toml:4"
    assert resolved.sources["threads"] == "p.toml:7"


def test_capsules_from_code_are_merged_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "p.toml", CAPSULES_TOML)
    mapping = {"capsules": {"serial": {"concurrency": 2}}}
    config = resolve(flags={}, code=mapping, env={}, cwd=tmp_path, file=file).config
    assert config.capsules[1] == Capsule(name="serial", concurrency=2, queues=(("one", 0),))
    whole = {"capsules": [Capsule(name="serial", queues=(("two", 0),))]}
    config = resolve(flags={}, code=whole, env={}, cwd=tmp_path, file=file).config
    assert config.capsules[1] == Capsule(name="serial", concurrency=5, queues=(("two", 0),))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[capsules]]\nname = 'x'\n", r"capsules: expected tables by name.*name each one: \[tool.pillion.capsules"),
        ("[capsules.x]\nconcurrency = 2\n", r"capsules.x: expected queues, got none \(p.toml:2\); write queues = \["),
        (
            "[capsules.x]\nconcurency = 2\n",
            r"`capsules.x.concurency` \(p.toml:2\); did you mean `capsules.x.concurrency`",
        ),
        ("[capsules]\nx = 3\n", r"capsules.x: expected a table, got 3 \(p.toml:2\)"),
        ("[redis]\nulr = 'redis://x'\n", r"`redis.ulr` \(p.toml:2\); did you mean `redis.url`"),
        ("redis = 5\n", r"redis: expected an address or a table, got 5 \(p.toml:1\)"),
        ("default_job_options = 5\n", r"default_job_options: expected a table, got 5 \(p.toml:1\)"),
        ("concurency = 5\n", r"unknown option `concurency` \(p.toml:1\); did you mean `concurrency`"),
        ("zzz = 5\n", r"unknown option `zzz` \(p.toml:1\); known are average_scheduled"),
        ("clock = 5\n", r"unknown option `clock`"),
        ("[redis]\nclient = 5\n", r"unknown option `redis.client`"),
        ("timeout = \n", r"p.toml is not valid TOML: .*line 1"),
        ("[redis]\nmaster = 'm'\n", r"redis.master: expected redis.sentinels beside it, got nothing \(p.toml:2\)"),
        ("[redis]\nkey_file = 'm'\n", r"redis.key_file: expected redis.cert_file beside it"),
        ("timeout = 1\ntimeout = 2\n", r"p.toml is not valid TOML: Cannot .*line 2.*; a name stands there twice: keep"),
        ("[redis]\n[redis]\n", r"p.toml is not valid TOML: Cannot .*line 2.*; a name stands there twice"),
        ("timeout = soon\n", r"p.toml is not valid TOML: .*line 1.*; text wants quotes, lists want"),
        ("timeout = " + "9" * 5000, r"p.toml holds a number of thousands of digits"),
        ("labels = " + "[" * 5000, r"p.toml holds .* endless nesting"),
        ("\n\nconcurrency = 0x" + "f" * 5000, r"concurrency: expected .* got a huge number \(p.toml:3\)"),
        ("timeout = 2020-01-01\n", r"timeout: expected seconds .*, got datetime.date\(2020, 1, 1\) \(p.toml:1\)"),
    ],
)
def test_mistakes_in_a_file(text: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "p.toml", text)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)


# --- sidekiq.yml ------------------------------------------------------------------------------------------------------


SIDEKIQ_YML = """
---
:concurrency: 7
:timeout: 30
:max_retries: 3
:strict: true
:queues:
  - critical
  - [mailers, 2]
  - ["low", 1]
production:
  :concurrency: 20
  queues:
    - :critical
staging:
  :concurrency: 9
:capsules:
  :serial:
    :concurrency: 1
    :queues:
      - only_one
"""


@pytest.mark.rule("config.yaml")
@pytest.mark.rule("b9.58", instead=True)
@pytest.mark.parametrize(
    ("environment", "concurrency", "queues", "line"),
    [
        ("development", 7, (("critical", 1), ("mailers", 2), ("low", 1)), 3),
        ("production", 20, (("critical", 0),), 12),
        ("staging", 9, (("critical", 1), ("mailers", 2), ("low", 1)), 16),
    ],
)
@pytest.mark.parametrize("by", ["flag", "environment"])
def test_a_sidekiq_yml(by: str, environment: str, concurrency: int, queues: object, line: int, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", SIDEKIQ_YML)
    env = {"APP_ENV": environment} if by == "environment" else {}
    flags = {"environment": environment} if by == "flag" else {}
    resolved = resolve(flags=flags, code={}, env=env, cwd=tmp_path, file=file)
    default, serial = resolved.config.capsules
    assert (default.concurrency, default.queues) == (concurrency, queues)
    assert serial == Capsule(name="serial", concurrency=1, queues=(("only_one", 0),))
    assert (resolved.config.timeout, resolved.config.max_retries) == (30, 3)
    assert resolved.sources["concurrency"] == f"sidekiq.yml:{line}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (":queues: [a, a]\n", r"queues: expected every queue once.*\(sidekiq.yml:1\)"),
        ("timeout: 1\n:concurency: 5\n", r"unknown option `concurency` \(sidekiq.yml:2\); did you mean `concurrency`"),
        ("capsuls:\n  a: {concurrency: 1}\n", r"unknown option `capsuls`.*did you mean `capsules`"),
        ("a: [1\nb: 2\n", r"sidekiq.yml:\d is not valid YAML"),
        ("a: !ruby/object:Gem {}\n", r"sidekiq.yml:1 is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", r"sidekiq.yml:1 is not valid YAML"),
        ("- a\n- b\n", r"expected options, got a list \(sidekiq.yml\)"),
        ("just words\n", r"expected options, got a str \(sidekiq.yml\)"),
        ("timeout: 5\n\tlease: 3\n", r"sidekiq.yml:2 is not valid YAML: .*; indent with spaces"),
        ("a: &a\n  b: *a\n", r"sidekiq.yml:1 contains itself; take the alias"),
        ("labels: " + "[" * 5000 + "]" * 5000, r"sidekiq.yml is nested too deep"),
        ("timeout: 5\nconcurrency: " + "9" * 5000, r"concurrency: expected a whole number.*\(sidekiq.yml:2\)"),
        ("concurrency: 99999999999999999999\n", r"concurrency: expected a whole number .*\(sidekiq.yml:1\)"),
        ("concurrency: [1]\n", r"concurrency: expected a whole number from 1 to 10000, got \[1\] \(sidekiq.yml:1\)"),
        ("timeout: 2020-13-45\n", r"timeout: expected seconds .*, got '2020-13-45' \(sidekiq.yml:1\)"),
        ("queues:\n  - [a, {b: 1}]\n", r"weight of queue a: expected a whole number .*\(sidekiq.yml:1\)"),
        ("queues: {a: {b: 1}}\n", r"weight of queue a: expected a whole number .*\(sidekiq.yml:1\)"),
        (
            "capsules:\n  slow:\n    queus: [a]\n",
            r"`capsules.slow.queus` \(sidekiq.yml:3\); did you mean `capsules.slow",
        ),
        ("capsules:\n  slow: {concurrency: 1}\n", r"capsules.slow: expected queues, got none \(sidekiq.yml:2\)"),
        ("production:\n  timeout: 3\ntimeout: x\n", r"timeout: expected seconds .*\(sidekiq.yml:3\)"),
        ("timeout: 3\ncapsules:\n  0x10: {concurrency: 0}\n", r"capsules.16.concurrency: expected .*\(sidekiq.yml:2\)"),
        ("a: 0x_\n", r"sidekiq.yml holds a value that YAML cannot read; quote it"),
        ("timeout: 3\na: \0\n", r"sidekiq.yml:2 is not valid YAML: special characters are not allowed"),
        ("namespace: shop\n", r"unknown option `namespace` \(sidekiq.yml:1\); Sidekiq has no Redis namespaces"),
        ("on_complex_arguments: no way\n", r"strict_args: expected one of .*\(sidekiq.yml:1\)"),
    ],
)
def test_mistakes_in_a_sidekiq_yml(text: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)


@pytest.mark.parametrize("text", ["", "---\n", "# timeout: <%= 5 %>\n", "concurrency:\n"])
def test_an_empty_sidekiq_yml_says_nothing(text: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    resolved = resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)
    assert (resolved.sources, resolved.notes) == ({}, ())


@pytest.mark.parametrize(
    "text",
    [
        "redis:\n  url: *hush\n",
        "redis:\n  url: !hush\n",
        "redis:\n  url: &hush &hush2 x\n",
        "redis: {url: 'redis://:hush@h}\n",
        "redis: {url: redis://:hush@h:x/0}\n",
        "redis:\n  url: hush\n  url: hush\n",
        "redis: [password, 'redis://:hush@h']\n",
        "redis: <%= 'hush' + ENV['HUSH'] %>\n",
        "concurrency: <%= Integer(ENV['HUSH']) %>\n",
        "redis: '<%= ENV[\"HUSH\"] %>'\n",
    ],
)
def test_no_mistake_shows_what_may_be_a_password(text: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    with pytest.raises(ConfigError) as caught:
        resolve(flags={}, code={}, env={"HUSH": "tcp://:hush@h"}, cwd=tmp_path, file=file)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.rule("config.yaml-double", instead=True)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("timeout: 1\nlease: 3\n:timeout: 2\n", r"sidekiq.yml:3 has `timeout` a second time; .* on line 1; keep one"),
        ("redis: {url: a,\n  url: b}\n", r"sidekiq.yml:2 has `url` a second time; the first stands on line 1"),
        ("production:\n  timeout: 1\n  timeout: 2\n", r"sidekiq.yml:3 has `timeout` a second time"),
    ],
)
def test_a_key_that_stands_twice(text: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)


RUBYS_YML = """
:concurrency: 5
:pidfile: tmp/pids/sidekiq.pid
:strict: false
:schedule:
  nightly: {cron: "0 3 * * *", class: Nightly}
production:
  :logfile: log/sidekiq.log
  :timeout: 9
prodution:
  :timeout: 10
reviews:
  :timeout: 11
"""


@pytest.mark.rule("config.yaml-foreign", instead=True)
def test_what_only_ruby_reads_is_passed_over_and_named_once(tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", RUBYS_YML)
    resolved = resolve(flags={"environment": "production"}, code={}, env={}, cwd=tmp_path, file=file)
    assert (resolved.config.timeout, resolved.sources["timeout"]) == (9, "sidekiq.yml:9")
    keys = "pidfile (line 3), strict (line 4), schedule (line 5), logfile (line 8)"
    assert resolved.notes == (
        f"sidekiq.yml: passed over what only Ruby's Sidekiq reads: {keys}; remove it, or leave it for Ruby",
        "sidekiq.yml:10: the section `prodution` is for an environment of that name; did you mean production?",
    )


def test_a_section_of_an_unusual_name_is_no_mistake_where_it_is_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", "prodution:\n  timeout: 3\n")
    resolved = resolve(flags={}, code={}, env={"RAILS_ENV": "prodution"}, cwd=tmp_path, file=file)
    assert (resolved.config.timeout, resolved.notes) == (3, ())


@pytest.mark.rule("config.yaml")
def test_every_option_of_sidekiqs_file_has_its_meaning(tmp_path: Path) -> None:
    text = """
:environment: production
:labels: [eu, ':blue']
:tag: shop
:verbose: true
:max_retries: 4
:poll_interval_average: 15
:average_scheduled_poll_interval: 7
:dead_max_jobs: 9
:dead_timeout_in_seconds: 3600
:on_complex_arguments: :warn
:skip_default_job_logging: true
:logged_job_attributes: [bid, tenant]
:require: ./app.py
:production: {concurrency: 2}
"""
    resolved = resolve(flags={}, code={}, env={}, cwd=tmp_path, file=write(tmp_path / "sidekiq.yml", text))
    config = resolved.config
    assert (config.environment, config.labels, config.tag, config.verbose) == (
        "production",
        ("eu", "blue"),
        "shop",
        True,
    )
    assert (config.max_retries, config.poll_interval_average, config.average_scheduled_poll_interval) == (4, 15, 7)
    assert (config.dead_max_jobs, config.dead_timeout_in_seconds) == (9, 3600)
    assert (config.strict_args, config.skip_default_job_logging) == ("warn", True)
    assert (config.logged_job_attributes, config.require) == (("bid", "tenant"), ("./app.py",))
    assert (config.concurrency, resolved.sources["concurrency"]) == (2, "sidekiq.yml:15")
    assert resolved.sources["strict_args"] == "sidekiq.yml:11"
    assert resolved.notes == ()


def test_shared_settings_by_alias_and_merge_keys(tmp_path: Path) -> None:
    shared = "development: &usual\n  timeout: 3\n  lease: 4\ntest: &more {}\n"
    text = f"{shared}staging:\n  <<: *usual\n  <<: *more\n  lease: 5\n"
    file = write(tmp_path / "sidekiq.yml", text)
    resolved = resolve(flags={"environment": "staging"}, code={}, env={}, cwd=tmp_path, file=file)
    assert (resolved.config.timeout, resolved.config.lease) == (3, 5)
    assert (resolved.sources["timeout"], resolved.sources["lease"]) == ("sidekiq.yml:2", "sidekiq.yml:8")


@pytest.mark.parametrize("name", ["sidekiq.yml", "sidekiq.yml.erb", "p.toml", "pyproject.toml"])
def test_a_file_with_a_byte_order_mark_and_windows_line_ends(name: str, tmp_path: Path) -> None:
    text = {"p.toml": "timeout = 3\r\n", "pyproject.toml": "[tool.pillion]\r\ntimeout = 3\r\n"}.get(
        name, "timeout: 3\r\n"
    )
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    file = None if name == "pyproject.toml" else Path(name)
    resolved = resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)
    assert (resolved.config.timeout, resolved.sources["timeout"]) == (3, f"{name}:{2 if file is None else 1}")


def test_a_missing_yaml_reader_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    file = write(tmp_path / "sidekiq.yml", "timeout: 5\n")
    with pytest.raises(ConfigError, match=r"needs PyYAML; run `pip install 'pillion\[yaml\]'`"):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)


@pytest.mark.rule("config.missing")
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.toml", None, r"cannot read gone.toml \(no such file or directory\); check the path"),
        ("conf.json", b"{}", r"expected one that ends in .toml, .yml, .yaml, .yml.erb, .yaml.erb, got conf.json"),
        ("bad.toml", b"lease = 3\ntag = '\xff'", r"bad.toml \(it is not UTF-8 text, from line 2\); save it as UTF-8"),
        ("wide.yml", "timeout: 3\n".encode("utf-16"), r"wide.yml \(it is not UTF-8 text, from line 1\)"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=Path(name))
