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


@pytest.mark.rule("config.erb", instead=True)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("concurrency: 1\ntimeout: <%= ENV['X'] %>\n", r"sidekiq.yml:2 holds ERB, which only Ruby can run; write the"),
        (":queues: [a, a]\n", r"queues: expected every queue once.*\(sidekiq.yml:1\)"),
        ("timeout: 1\n:concurency: 5\n", r"unknown option `concurency` \(sidekiq.yml:2\); did you mean `concurrency`"),
        ("capsuls:\n  a: {concurrency: 1}\n", r"unknown option `capsuls`.*did you mean `capsules`"),
        ("a: [1\nb: 2\n", r"sidekiq.yml:\d is not valid YAML"),
        ("a: !ruby/object:Gem {}\n", r"sidekiq.yml:1 is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", r"sidekiq.yml:1 is not valid YAML"),
        ("- a\n- b\n", r"expected options, got a list \(sidekiq.yml\)"),
    ],
)
def test_mistakes_in_a_sidekiq_yml(text: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file)


@pytest.mark.parametrize("text", ["", "---\n", "# timeout: <%= 5 %>\n", "concurrency:\n"])
def test_an_empty_sidekiq_yml_says_nothing(text: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sidekiq.yml", text)
    assert resolve(flags={}, code={}, env={}, cwd=tmp_path, file=file).sources == {}


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
        ("conf.json", b"{}", r"expected one that ends in .toml, .yml, .yaml, got conf.json"),
        ("bad.toml", b"tag = '\xff'", r"cannot read bad.toml \(it is not UTF-8 text\)"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=Path(name))
