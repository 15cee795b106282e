"""The search language: what a text means, where it is wrong, and that matching agrees with a plain model of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pillion import UsageError
from pillion.api import Query, QuerySyntax, Term
from pillion.api.matching import like
from pillion.api.query import FIELDS, STATES, parse
from pillion.api.record import JobRecord
from pillion.api.work import Work
from pillion.retry import pack_backtrace
from tests.api.conftest import NOW, job


def record(raw: bytes, queue: str | None = None) -> JobRecord:
    return JobRecord(raw, queue)


def says(text: str, raw: bytes, state: str = "dead", queue: str | None = None) -> bool:
    """Whether a job is meant, asked both ways: a minus in front of a term must turn the answer round."""
    query = parse(text)
    found = query.matches(state, record(raw, queue), NOW)
    if len(query.terms) == 1:
        assert parse(f"-{text}").matches(state, record(raw, queue), NOW) is not found
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_term_is_read() -> None:
    query = parse(
        'state:dead queue:mailers class:Send*,Post error:"timed out" args.user_id:42 tag:eu wait:>30s -class:Report '
        'id:a1 args:"free text" since:2h age:<1h30m cause:7f3a bare "two words"'
    )
    assert query.terms == (
        Term("state", ("dead",)),
        Term("queue", ("mailers",)),
        Term("class", ("Send*", "Post")),
        Term("error", ("timed out",)),
        Term("args", ("42",), ("user_id",)),
        Term("tag", ("eu",)),
        Term("wait", (">30s",)),
        Term("class", ("Report",), (), True),
        Term("jid", ("a1",)),
        Term("args", ("free text",)),
        Term("since", ("2h",)),
        Term("age", ("<90m",)),
        Term("cause", ("7f3a",)),
        Term("text", ("bare",)),
        Term("text", ("two words",)),
    )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("  a\tb\n", "a b"),
        ("id:x", "jid:x"),
        ("type:X", "class:X"),
        ("state:Schedule,DEAD,dead", "state:scheduled,dead"),
        ("wait:90s", "wait:>=90s"),
        ("wait:>0s", "wait:>0s"),
        ("age:2w", "age:>=14d"),
        ("age:1.5s", "age:>=1.5s"),
        ("since:120m", "since:2h"),
        ("since:2026-11-22T10:00Z", 'since:"2026-11-22T10:00Z"'),
        ('"plain"', "plain"),
        ('"-a"', '"-a"'),
        ("a-b*", "a-b*"),
        ("http", "http"),
        ("12:30", '"12:30"'),
        (r'"a\"b\\c\d"', r'"a\"b\\c\\d"'),
        ('args."a.b".0:x', 'args."a.b".0:x'),
        ("a,b", '"a,b"'),
        ('class:"a,b",c', 'class:"a,b",c'),
    ],
)
def test_one_text_for_one_meaning(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        ("stat:dead", "stat:", "`state:`"),
        ("x http://a", "http:", "put a text into quotes"),
        ("a state:deed b", "deed", "running, queued, retry, scheduled, dead"),
        ('x error:"timed out', '"timed out', "closing quote"),
        ("queue:", ":", "a value for `queue:`"),
        ("queue:a, b", " ", "a value for `queue:`"),
        ("a -", "-", "a word"),
        ('x ""', '""', "empty"),
        ("wait:soon", "soon", ">30s"),
        ("wait:>1000000d", ">1000000d", ">30s"),
        ("since:yesterday", "yesterday", "2026-11-22"),
        ("since:2026-13-01", "2026-13-01", "2026-11-22"),
        ("cause:xyz", "xyz", "4 to 12 hex digits"),
        ("class.name:A", ".name:", "only `args`"),
        ('"a"b', '"', "a blank after a closing quote"),
        ("wait:>1s,>2s", "s", "one value"),
        ("args:a,b", "b", "one value"),
    ],
)
def test_a_fault_is_shown_where_it_is(text: str, part: str, words: str) -> None:
    with pytest.raises(QuerySyntax) as caught:
        parse(text)
    fault = caught.value
    assert words in fault.reason
    assert fault.text[fault.position : fault.position + fault.length] == part
    line, carets = fault.pointer().splitlines()
    assert (line, carets) == (text, " " * fault.position + "^" * fault.length)
    assert isinstance(fault, UsageError)


def test_what_is_too_much_is_refused() -> None:
    with pytest.raises(QuerySyntax, match="2,000 characters"):
        parse("a" * 2_001)
    with pytest.raises(QuerySyntax, match="50 terms"):
        parse("a " * 51)
    with pytest.raises(QuerySyntax, match="UTF-8") as caught:
        parse("abc \udc80")
    assert caught.value.position == 4


WORDS = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() or text.isspace())
NAMES = st.text(st.sampled_from('ab-_*.:, "\\é'), min_size=1, max_size=6)
SPANS = st.tuples(st.sampled_from(["", ">", "<", ">=", "<="]), st.integers(0, 5_000), st.sampled_from("wdhms"))


@st.composite
def terms(draw: st.DrawFn) -> str:
    """A term as somebody may type it, with everything that can be quoted in quotes."""
    field = draw(st.sampled_from([*FIELDS, "text"]))
    values = draw(st.lists(WORDS | NAMES, min_size=1, max_size=3))
    path: list[str] = []
    match field:
        case "state":
            values = draw(st.lists(st.sampled_from(STATES), min_size=1, max_size=3))
        case "wait" | "age":
            values = ["".join(map(str, draw(SPANS)))]
        case "since":
            values = [draw(st.sampled_from(["0s", "90m", "2026-11-22", "2026-11-22T10:00:00+01:00"]))]
        case "cause":
            values = draw(st.lists(st.from_regex(r"\A[0-9a-f]{4,12}\Z"), min_size=1, max_size=2))
        case "args":
            path = draw(st.lists(WORDS | NAMES, max_size=3))
    shown = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in [*values, *path]]
    minus = draw(st.sampled_from(["", "-"]))
    if field == "text" or (field == "args" and not path):
        shown = shown[:1]
        return minus + (shown[0] if field == "text" else f"args:{shown[0]}")
    steps = "".join(f".{step}" for step in shown[len(values) :])
    return f"{minus}{field}{steps}:{','.join(shown[: len(values)])}"


@given(st.lists(terms(), max_size=5))
def test_the_canonical_text_says_the_same(texts: list[str]) -> None:
    query = parse(" ".join(texts))
    assert len(query.terms) == len(texts)
    assert parse(str(query)) == query
    assert str(parse(str(query))) == str(query)


@given(st.text(st.sampled_from('ab:-,."\\* éargsstte<>1h\n\udc80'), max_size=40))
@example('args."')
@example("-")
def test_any_text_is_read_or_its_fault_shown(text: str) -> None:
    fault: QuerySyntax | None = None
    query = Query()
    try:
        query = parse(text)
    except QuerySyntax as caught:
        fault = caught
    assert parse(str(query)) == query
    assert fault is None or 0 <= fault.position <= len(text)
    assert fault is None or len(fault.pointer().splitlines()) == 2


# --- meaning ----------------------------------------------------------------------------------------------------------

MAIL = job(
    "m1",
    {"user": {"id": 42, "name": "Bob"}, "ids": [7, 8]},
    "plain",
    1.5,
    None,
    True,
    **{"class": "SendDigest", "tags": ["eu", "slow lane"], "kwargs": {"user_id": "u-9"}},
    error_class="SMTPServerDisconnected",
    error_message="Connection to 10.0.0.5 timed out",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("state:dead", True),
        ("state:queued,retry", False),
        ("queue:default", True),
        ("queue:def*,x", True),
        ("queue:other", False),
        ("class:SendDigest", True),
        ("class:Send*", True),
        ("class:*Digest", True),
        ("class:send*", False),  # names are exact
        ("class:Send", False),
        ("jid:m1", True),
        ("jid:m", False),
        ("jid:x,m1", True),
        ('error:"timed out"', True),
        ("error:smtpserver", True),  # texts are not
        ('error:"10.0.0.5 TIMED"', True),
        ("error:refused", False),
        ("tag:eu", True),
        ('tag:"slow *"', True),
        ("tag:e", False),
        ("args:bob", True),
        ("args:name", True),
        ("args:u-9", True),
        ("args:null", True),
        ("args:SendDigest", False),
        ("args.0.user.id:42", True),
        ("args.user.id:42", True),
        ("args.user.id:4*", True),
        ("args.user.id:43,42", True),
        ("args.user.id:4", False),
        ("args.id:42", False),
        ("args.user_id:u-9", True),
        ("args.ids:8", True),
        ("args.0.ids.1:8", True),
        ("args.0.ids.0:8", False),
        ("args.1:plain", True),
        ("args.2:1.5", True),
        ("args.3:null", True),
        ("args.4:true", True),
        ("args.9:plain", False),
        ("SENDDIGEST", True),
        ("digest bob", True),
        ("digest -bob", False),
        ('"\\"user\\""', True),
    ],
)
def test_what_a_term_means(text: str, found: bool) -> None:
    assert says(text, MAIL) is found


def test_a_job_of_rails_goes_by_both_names() -> None:
    raw = job("r", **{"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": "GreetJob"})
    assert says("class:GreetJob", raw)
    assert says("class:Sidekiq::ActiveJob::Wrapper".replace("::", "*"), raw)
    assert says('class:"Sidekiq::ActiveJob::Wrapper"', raw)
    mail = {
        "class": "Sidekiq::ActiveJob::Wrapper",
        "wrapped": "ActionMailer::MailDeliveryJob",
        "args": [{"arguments": ["UserMailer", "welcome", "deliver_now", {"args": [1]}]}],
    }
    assert says("class:UserMailer#welcome", json.dumps({**mail, "jid": "r", "queue": "q"}).encode())


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [
        ("wait:>30s", "queued", True),
        ("wait:>90s", "queued", False),
        ("wait:90s", "queued", True),
        ("wait:<2m", "queued", True),
        ("wait:>1s", "dead", False),  # which does not wait
        ("age:>1h", "queued", True),
        ("age:<=2h", "queued", True),
        ("age:>2h", "queued", False),
        ("since:2m", "queued", True),
        ("since:1m", "queued", False),
        ("since:2026-11-22", "queued", True),
        ("since:2026-11-22T11:42Z", "queued", False),
        ("since:2026-11-22T11:41+00:00", "queued", True),
    ],
)
def test_times_are_reckoned_from_now(text: str, state: str, found: bool) -> None:
    text = f'{text[:6]}"{text[6:]}"' if "T" in text else text
    raw = job("t", created_at=int((NOW - 7_200) * 1000), enqueued_at=int((NOW - 90) * 1000))
    assert says(text, raw, state, "default") is found


def test_what_runs_has_waited_until_it_began() -> None:
    row = {"queue": "q", "payload": job("w", enqueued_at=NOW - 100).decode(), "run_at": int(NOW - 60)}
    work = Work("host:1:abc", "t1", row)
    assert parse("wait:>39s wait:<41s").matches("running", work, NOW)
    assert parse("state:running jid:w queue:q since:60s").matches("running", work, NOW)
    assert not parse("since:59s").matches("running", work, NOW)


def test_a_job_without_times_has_no_age() -> None:
    assert not parse("age:>0s").matches("dead", record(job("j")), NOW)
    assert not parse("wait:>0s").matches("queued", record(job("j")), NOW)


@pytest.mark.parametrize(
    "raw", [b"not \xff json", b"[1]", b"{}", b"", b'{"args":' + b"[" * 9_000, b'{"class":5,"args":3}']
)
def test_nothing_raises_for_what_a_job_holds(raw: bytes) -> None:
    for text in ("class:a", "queue:a", "jid:a", "error:a", "args:zz", "args.a.0:a", "tag:a", "wait:>1s", "age:>1s"):
        assert parse(text).matches("queued", record(raw), NOW) is False
    assert parse("cause:7f3a").matches("dead", record(raw), NOW) is False
    assert parse("-since:1s -a*b").matches("queued", record(raw), NOW) is True


def test_a_huge_number_is_no_trouble() -> None:
    raw = b'{"class":"A","args":[' + b"9" * 6_000 + b"]}"
    assert parse("args:77").matches("dead", record(raw), NOW) is False


def test_a_cause_is_named_by_its_first_digits() -> None:
    trace = pack_backtrace(["/srv/app/jobs.py:12:in charge"])
    one = record(job("a", error_class="KeyError", error_message="no 17", error_backtrace=trace))
    other = record(job("b", error_class="KeyError", error_message="no 18", error_backtrace=trace))
    from pillion.api.causes import fingerprint

    assert fingerprint(one) == fingerprint(other)
    assert parse(f"cause:{fingerprint(one)[:4]}").matches("dead", other, NOW)
    assert not parse("cause:0000000000").matches("dead", other, NOW)


# --- where to look ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("", STATES),
        ("state:dead", ("dead",)),
        ("state:dead,queued", ("queued", "dead")),
        ("-state:dead,running", ("queued", "retry", "scheduled")),
        ("state:dead state:queued", ()),
        ("wait:>1s", ("running", "queued")),
        ("-wait:>1s", STATES),
    ],
)
def test_where_its_jobs_can_be(text: str, states: tuple[str, ...]) -> None:
    assert parse(text).states == states


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("state:dead", True),
        ("", True),
        ("state:queued queue:a*", True),
        ("queue:a", False),  # entries of sets that are meant for it, too
        ("state:dead queue:a", False),
        ("state:dead class:A", False),
    ],
)
def test_whether_it_means_whole_places(text: str, whole: bool) -> None:
    assert parse(text).is_whole is whole


def test_queues_by_pattern() -> None:
    query = parse("queue:mail*,low -queue:mail_x")
    assert [name for name in ("mailers", "low", "mail_x", "high") if query.has_queue(name)] == ["mailers", "low"]


def test_whether_an_answer_tells_of_arguments() -> None:
    assert [parse(text).reads_arguments for text in ("args:a", "args.a:1", "word", "class:A error:b")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("", b""),
        ("state:dead class:*", b""),
        ("class:Send*Digest", b"digest"),
        ("class:Mailer#welcome", b"welcome"),
        ('error:"Timed Out" jid:a', b"timed out"),
        ('error:"a/b"', b""),  # some programs escape a slash
        ("-error:timed", b""),
        ("class:A,B", b""),
        ('"é/\\"x"', 'é/"x'.encode()),
        ("args.user.0:42", b"user"),
        ("args.0:42", b"42"),
    ],
)
def test_what_the_server_may_look_for(text: str, needle: bytes) -> None:
    assert parse(text).needle == needle


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from(["a", "Ab", "b/c", "é", "42", 'q"q', ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "c d"]), inner, max_size=2)
    ),
    max_leaves=6,
)
JOBS = st.fixed_dictionaries(
    {
        "class": st.sampled_from(["A", "Ab", "Other"]),
        "args": st.lists(VALUES, max_size=3),
        "jid": st.sampled_from(["j1", "j2"]),
        "queue": st.sampled_from(["low", "high"]),
    },
    optional={
        "kwargs": st.dictionaries(st.sampled_from(["a", "k"]), VALUES, max_size=2),
        "tags": st.lists(st.sampled_from(["eu", "us"]), max_size=2),
        "error_class": st.sampled_from(["KeyError", "Timeout"]),
        "error_message": st.sampled_from(["Key a", "timed out", "a/b", "né"]),
    },
)
ASKED = st.sampled_from(
    """class:A class:A* class:*b jid:j1 jid:j1,j2 queue:l* tag:eu tag:* error:KEY error:a/b error:out error:né
    args:a args:A args:42 args:"q\\"q" args:null args.a:* args.0:42 args.a.b:a args.0.a:Ab args.k:true
    state:dead state:queued,dead jid é args:é \"c\"""".split()
)


@given(JOBS, st.lists(ASKED, max_size=3), st.booleans(), st.sampled_from(["dead", "queued"]))
def test_matching_agrees_with_a_plain_model(
    item: dict[str, Any], asked: list[str], ascii_only: bool, state: str
) -> None:
    raw = json.dumps(item, ensure_ascii=ascii_only).encode()
    query = parse(" ".join(asked))
    found = query.matches(state, record(raw), NOW)
    assert found is all(model(term, item, raw, state) for term in query.terms)
    assert not found or query.needle in raw.lower()


def model(term: Term, item: dict[str, Any], raw: bytes, state: str) -> bool:
    """A term, looked at as simply as can be."""
    low = lambda text: text.encode().lower().decode()  # noqa: E731
    match term.field:
        case "text":
            return low(term.values[0]).encode() in raw.lower()
        case "state":
            return state in term.values
        case "class" | "jid" | "queue":
            return any(fits(value, item[term.field]) for value in term.values)
        case "tag":
            return any(fits(value, tag) for value in term.values for tag in item.get("tags", []))
        case "error":
            texts = [item["error_class"], item.get("error_message", "")] if "error_class" in item else []
            texts = texts or [item.get("error_message", "")]
            return any(low(value) in low(text) for value in term.values for text in texts)
    roots = [item[name] for name in ("args", "kwargs") if name in item]
    if not term.path:
        return any(low(term.values[0]) in low(text) for text in flat(roots) if text is not None)
    return any(fits(value, text) for root in roots for text in reach(root, term.path) for value in term.values)


def fits(pattern: str, text: str) -> bool:
    import fnmatch

    return fnmatch.fnmatchcase(text, pattern)


def flat(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for each in value.values() for text in flat(each))]
    if isinstance(value, list):
        return [text for each in value for text in flat(each)]
    return [value if isinstance(value, str) else json.dumps(value)]


def reach(value: Any, path: tuple[str, ...]) -> list[str]:
    """The scalars at the end of a path."""
    if not path:
        ends = value if isinstance(value, list) else [value]
        return [text for each in ends if not isinstance(each, dict | list) for text in flat(each)]
    step, *rest = path
    found: list[Any] = []
    if isinstance(value, dict) and step in value:
        found = [value[step]]
    elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
        found = [value[int(step)]]
    elif isinstance(value, list):
        found = [each[step] for each in value if isinstance(each, dict) and step in each]
    return [text for each in found for text in reach(each, tuple(rest))]


@given(st.text(st.sampled_from("ab*"), max_size=6), st.text(st.sampled_from("ab"), max_size=8))
def test_patterns(pattern: str, text: str) -> None:
    assert like(pattern, text) is fits(pattern, text)


def test_no_pattern_takes_long() -> None:
    assert not like("*a" * 200 + "b", "a" * 100_000)


def test_a_query_is_a_value() -> None:
    assert Query() == parse("")
    assert {parse("a b"), parse(" a  b ")} == {parse("a b")}
