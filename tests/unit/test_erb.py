"""The ERB that a `sidekiq.yml` may hold: what it means, that it cannot change the file's shape, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pillion.erb import Erb
from pillion.errors import ConfigError
from pillion.resolve import Resolved, resolve
from tests.servers import missing


def read(text: str, env: dict[str, str], tmp_path: Path, **flags: Any) -> Resolved:
    (tmp_path / "sidekiq.yml").write_text(text)
    return resolve(flags=flags, code={}, env=env, cwd=tmp_path, file=Path("sidekiq.yml"))


@pytest.mark.rule("config.erb", instead=True)
@pytest.mark.parametrize(
    ("code", "value", "meant"),
    [
        ('ENV["X"]', "7", 7),
        ("ENV['X']", "7", 7),
        ('ENV["X"]', None, 5),
        ('ENV["X"]', "", 5),
        ('ENV.fetch("X")', "7", 7),
        ('ENV.fetch("X", 3)', None, 3),
        ('ENV.fetch("X", 3)', "7", 7),
        ('ENV.fetch("X", "3")', None, 3),
        ('ENV.fetch("X", "")', None, 5),
        ('ENV.fetch("X") { 3 }', None, 3),
        ('ENV.fetch("X"){3}', "7", 7),
        ('ENV["X"] || 3', None, 3),
        ('ENV["X"] || 3', "7", 7),
        ('ENV["X"] || ENV["Y"] || 3', None, 3),
        ('ENV["X"] || ENV.fetch("Y")', "7", 7),
        ('ENV.fetch("X", ENV.fetch("Y", 3))', None, 3),
        ('ENV.fetch("X", ENV["Y"] || 3)', None, 3),
        ('ENV.fetch("X", 3).to_i', "7 threads", 7),
        ('(ENV["X"] || 3).to_i', None, 3),
        ('ENV.fetch("X", 3.9).to_i', None, 3),
        ('Integer(ENV.fetch("X", 3))', " 7 ", 7),
        ('Integer(ENV["X"] || "3")', None, 3),
        ('ENV["X"].to_s', "7", 7),
        ("8", None, 8),
        ("nil", None, 5),
        ("", None, None),
    ],
)
def test_what_is_understood(code: str, value: str | None, meant: int | None, tmp_path: Path) -> None:
    env = {} if value is None else {"X": value}
    if meant is None:
        with pytest.raises(ConfigError, match=r"sidekiq.yml:1 holds ERB"):
            read(f"concurrency: <%= {code} %>\n", env, tmp_path)
        return
    for spelled in (f"<%= {code} %>", f"<%={code}%>", f"'<%= {code} %>'", f"<%= {code} -%>"):
        if meant == 5 and spelled.startswith("'"):
            continue  # an empty text between quotes is no number, for Ruby neither
        assert read(f":concurrency: {spelled}\n", env, tmp_path).config.concurrency == meant


def test_a_value_has_the_type_that_yaml_gives_it(tmp_path: Path) -> None:
    text = (
        "default_job_options: {a: <%= ENV['A'] %>, b: '<%= ENV[\"A\"] %>', c: <%= ENV['C'] %>, d: x<%= ENV['A'] %>y}\n"
    )
    options = read(text, {"A": "7", "C": "true"}, tmp_path).config.default_job_options
    assert {name: options[name] for name in "abcd"} == {"a": 7, "b": "7", "c": True, "d": "x7y"}


def test_in_names_sections_lists_and_comments(tmp_path: Path) -> None:
    text = """# <%= anything.goes { here } %> <% and this %>
<%# and here %>
:timeout: 9 # <%= or.here! %>
queues:
  - <%= ENV["Q"] %>
  - [<%= ENV.fetch("R", "low") %>, <%= ENV.fetch("W", 2) %>]
<%= ENV["E"] %>:
  timeout: 3
"""
    resolved = read(text, {"Q": "shop", "E": "staging"}, tmp_path, environment="staging")
    assert resolved.config.timeout == 3
    assert resolved.config.capsules[0].queues == (("shop", 1), ("low", 2))
    assert resolved.sources["timeout"] == "sidekiq.yml:8", "tags shift no line"


INJECTED = [
    "x\n:redis: {url: redis://evil}",
    "x, redis: {url: redis://evil}}",
    "[a, b]",
    "{a: b}",
    "*tag",
    "&tag x",
    "!!python/object/apply:os.getcwd []",
    "x # y",
    "'",
    '"',
    "x: y",
    "<<",
    "=",
    "- x",
    "<%= ENV['SECRET'] %>",
    "\ue0000\ue001",
    "\ue0009\ue001",
]


@pytest.mark.rule("config.yaml-types", instead=True)
@pytest.mark.parametrize("spelled", ["<%= ENV['X'] %>", "'<%= ENV[\"X\"] %>'", "\"<%= ENV['X'] %>\""])
@pytest.mark.parametrize("value", INJECTED)
def test_a_variable_changes_a_value_and_nothing_else(value: str, spelled: str, tmp_path: Path) -> None:
    resolved = read(f"default_job_options: {{tenant: {spelled}, other: 1}}\n", {"X": value, "SECRET": "s"}, tmp_path)
    assert resolved.config.default_job_options == {"queue": "default", "retry": True, "tenant": value, "other": 1}
    assert resolved.sources.keys() == {"default_job_options.tenant", "default_job_options.other"}


def test_signs_of_our_own_in_a_file_are_no_tag(tmp_path: Path) -> None:
    text = "default_job_options: {tenant: x\ue0001\ue001, other: <%= ENV['X'] %>}\n"
    options = read(text, {"X": "7"}, tmp_path).config.default_job_options
    assert (options["tenant"], options["other"]) == ("x", 7)


@pytest.mark.rule("config.erb", instead=True)
@pytest.mark.parametrize(
    "line",
    [
        "x: <% if true %>",
        "x: <% ENV['X'] %>",
        "x: <%= Rails.env %>",
        "x: <%= `hostname` %>",
        "x: <%= system('x') %>",
        "x: <%= ENV['X'].to_i * 2 %>",
        "x: <%= ENV['X'].upcase %>",
        "x: <%= ENV['X'] ? 1 : 2 %>",
        'x: <%= "a#{1}" %>',
        r'x: <%= "a\n" %>',
        "x: <%= ENV %>",
        "x: <%= ENV[X] %>",
        "x: <%= ENV['X' %>",
        "x: <%= ENV.fetch %>",
        "x: <%= ENV.fetch('X', %>",
        "x: <%= ENV.fetch('X') { } %>",
        "x: <%= ENV.delete('X') %>",
        "x: <%= 5; 6 %>",
        "x: <%= 5 5 %>",
        "x: <%= true.to_i %>",
        "x: <%= || %>",
        "x: <%= 1 || %>",
        "x: <%= @x %>",
        f"x: <%= {'(' * 300}1{')' * 300} %>",
        f"x: <%= {'1' * 600} %>",
        "<% x %>",
        "timeout: <%= ENV[",
        "x: <%% y",
    ],
)
def test_everything_else_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    sentence = r"sidekiq.yml:2 holds ERB that only Ruby can run; understood are ENV\[.*write the value itself, or leave"
    with pytest.raises(ConfigError, match=sentence):
        read(f"timeout: 1\n{line}\n", {"X": "1"}, tmp_path)


@pytest.mark.parametrize(
    "code", ['ENV.fetch("X")', 'ENV.fetch("X").to_i', 'Integer(ENV.fetch("X"))', 'ENV["Y"] || ENV.fetch("X")']
)
def test_a_variable_that_must_be_set_is_named(code: str, tmp_path: Path) -> None:
    sentence = r"sidekiq.yml:1 expected the environment variable X to be set, got nothing; .* ENV.fetch\(\"X\", 5\)"
    with pytest.raises(ConfigError, match=sentence):
        read(f"timeout: <%= {code} %>\n", {}, tmp_path)


@pytest.mark.parametrize("value", ["many", "7 threads", "", "1.5", "9" * 101, "010", "0x1f"])
def test_integer_is_strict_as_in_ruby(value: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"sidekiq.yml:1 expected a whole number in Integer\(...\), got something else"
    ):
        read("timeout: <%= Integer(ENV['X']) %>\n", {"X": value}, tmp_path)


@pytest.mark.parametrize(
    ("code", "meant"), [('ENV["X"].to_f', 2.5), ('Float(ENV["X"])', 2.5), ("2.5", 2.5), ("nil.to_f", 0)]
)
def test_fractions(code: str, meant: float, tmp_path: Path) -> None:
    assert read(f"timeout: <%= {code} %>\n", {"X": "2.5"}, tmp_path).config.timeout == meant


RUBY = """
require "erb"
require "json"
codes, values = JSON.parse($stdin.read)
said = codes.map do |code|
  values.map do |value|
    value.nil? ? ENV.delete("X") : ENV["X"] = value
    ERB.new("<%= #{code} %>").result
  rescue ArgumentError, KeyError, TypeError
    nil
  end
end
puts JSON.dump(said)
"""
CODES = [
    'ENV["X"]',
    'ENV.fetch("X")',
    'ENV.fetch("X", 3)',
    'ENV.fetch("X") { 3 }',
    'ENV["X"] || 3',
    'ENV["X"] || nil || "a b"',
    'ENV["X"].to_i',
    'ENV["X"].to_s',
    'ENV["X"].to_f',
    'ENV["X"].to_f.to_i.to_s',
    '(ENV["X"] || 3).to_i',
    'Integer(ENV["X"])',
    'Integer(ENV.fetch("X", 3))',
    'Float(ENV["X"])',
    "String(ENV['X'])",
    "false || nil",
    "1.5 || 2",
    "true",
    "false.to_s",
]
SPELLED = [None, "", " ", "7", " 7 ", "-3", "+4", "7 threads", "many", "1_000", "2.50", "100", "a\nb", "true"]


@pytest.mark.ruby
@pytest.mark.rule("config.erb", instead=True)
def test_what_is_understood_means_what_it_means_in_ruby() -> None:
    ruby = shutil.which("ruby") or missing("no ruby on PATH (Debian: apt-get install ruby).")
    done = subprocess.run(
        [ruby, "-e", RUBY], input=json.dumps([CODES, SPELLED]), capture_output=True, text=True, check=True, timeout=60
    )
    ours = [[filled(code, value) for value in SPELLED] for code in CODES]
    assert dict(zip(CODES, ours, strict=True)) == dict(zip(CODES, json.loads(done.stdout), strict=True))


def filled(code: str, value: str | None) -> str | None:
    """What we make of an expression; None where it is an error."""
    erb = Erb("sidekiq.yml", {} if value is None else {"X": value})
    try:
        return erb.fill(erb.hide(f"<%= {code} %>"))
    except ConfigError:
        return None
