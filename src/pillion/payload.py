"""The payload: what a job looks like as bytes in Redis, and everything that may be done to those bytes.

Called by the client (`normalise`, `verify`, `encode`), the worker (`decode`), `retry` and the poller (`splice`) and by
every reader that shows jobs (`read_time`, `read_tags`, `one_line`). Pure: no input or output, no state, so a crash
leaves nothing behind. It does not know whether a class exists, which queue is served, or what a job did.

Two rules hold this file together. What this process *pushes* must be plain JSON that Ruby, Python and a dashboard read
alike, so it is refused early with a sentence that teaches. What it *reads* was written by anyone, so it is refused only
if it can never run (`BadPayload`), and what is kept keeps its exact bytes: `splice` replaces single fields and leaves
floats such as `1.0e+20`, big integers and escapes as they were written.

The field layout is Sidekiq's: job options first, then the caller's own keys, then `jid` and `created_at`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeGuard

import msgspec

from pillion import plain
from pillion.config import Config, Wire
from pillion.errors import BadPayload, PayloadError
from pillion.plain import check_plain, first_fault, is_deeper, is_finite, kind_of, shown
from pillion.types import Payload

check_args, one_line, text = plain.check_args, plain.one_line, plain.text

MAX_DEPTH_PUSH = plain.MAX_DEPTH
MAX_DEPTH_READ = 512
MAX_READ_BYTES = 16 * 1024 * 1024
MAX_CLASS = 256
MAX_JID = 256
MAX_TAGS = 20
MAX_TAG = 64
MAX_RETRY = 100
MAX_RETRY_FOR = 1_000_000_000
MAX_AT = 253_402_300_800
"""The year 10000, in epoch seconds: later is a slip, most often milliseconds."""
MILLISECONDS_FROM = 100_000_000_000
"""A stored time from here on is in milliseconds (as seconds it would be the year 5138)."""
QUEUE_NAME = re.compile(r"[\w.:\-\u2190-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]{1,128}")

_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


# Reading


def decode(raw: bytes) -> Payload:
    """The job in `raw`, sure to have a `class` (text), `args` (list) and `jid` (text, "" where it was missing).

    Raises:
        BadPayload: it can never run; `reason` says why. The caller keeps `raw` as it is.
    """
    if len(raw) > 2 * MAX_DEPTH_READ:
        _refuse_giants(raw)
    try:
        job: Payload = _OBJECT.decode(raw)
    except _UNREADABLE as error:
        raise BadPayload(_why_unreadable(raw, error)) from None
    name, jid = job.get("class"), job.get("jid")
    if (
        type(name) is str
        and 0 < len(name) <= MAX_CLASS
        and name.isprintable()
        and type(job.get("args")) is list
        and type(jid) is str
        and len(jid) <= MAX_JID // 4  # so at most MAX_JID bytes, whatever the characters
    ):
        return job
    return _look_closely(job)


def splice(raw: bytes, changes: Mapping[str, Any], remove: Collection[str] = ()) -> bytes:
    """`raw` with some fields changed; every other value keeps its exact bytes and every field its place.

    New keys are appended in the order of `changes`. Space between fields is dropped; of a duplicate key the last value
    stays, as every reader has it.

    Raises:
        BadPayload: `raw` is not a JSON object.
        PayloadError: a new value is not JSON.
    """
    if len(raw) > 2 * MAX_DEPTH_READ:
        _refuse_giants(raw)
    try:
        fields = _FIELDS.decode(raw)
    except _UNREADABLE as error:
        raise BadPayload(_why_unreadable(raw, error)) from None
    for key in remove:
        fields.pop(key, None)
    for key, value in changes.items():
        fields[key] = msgspec.Raw(_encode(value, key))
    return _ENCODER.encode(fields)


def _look_closely(job: Payload) -> Payload:
    """The rare cases of `decode`: an odd `jid` is put right in the copy that runs, all else can never run."""
    name, args, jid = job.get("class"), job.get("args"), job.get("jid")
    if type(name) is not str:
        raise BadPayload("no `class`" if name is None else f"`class` is {kind_of(name)}, not text")
    if not is_name(name):
        raise BadPayload(f"`class` is not a name of 1 to {MAX_CLASS} printable characters")
    if type(args) is not list:
        raise BadPayload("no `args`" if "args" not in job else f"`args` is {kind_of(args)}, not an array")
    if type(jid) is not str:
        jid = "" if jid is None else _ENCODER.encode(jid).decode()
    if len(jid.encode()) > MAX_JID:
        raise BadPayload(f"`jid` is longer than {MAX_JID} bytes")
    job["jid"] = jid
    return job


def _refuse_giants(raw: bytes) -> None:
    """Refuse what must not reach a parser: too many bytes, or nesting that would exhaust the C stack."""
    if len(raw) > MAX_READ_BYTES:
        raise BadPayload(f"{len(raw)} bytes, more than {MAX_READ_BYTES}")
    if is_deeper(raw, MAX_DEPTH_READ):
        raise BadPayload(f"nested deeper than {MAX_DEPTH_READ} levels")


_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][\da-fA-F]{2})\\u[dD][c-fC-F]"
)
_SIGNATURES = (
    (b"\xef\xbb\xbf", "begins with a byte order mark"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text, not UTF-8"),
    (b"\xfe\xff", "UTF-16 or UTF-32 text, not UTF-8"),
    (b"\x00", "UTF-16 or UTF-32 text, not UTF-8"),
    (b"{\x00", "UTF-16 or UTF-32 text, not UTF-8"),
    (b"\x1f\x8b", "gzip data, not JSON"),
    (b"\x80", "a pickle or other binary data, not JSON"),
)


def _why_unreadable(raw: bytes, error: Exception) -> str:
    """One clause for people; it never decides anything."""
    if not raw.strip():
        return "empty"
    for start, reason in _SIGNATURES:
        if raw.startswith(start):
            return reason
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        kind = str(error)
        return "not a JSON object" if "`object`" in kind and "$" not in kind else "a number out of range"
    if _HALF_PAIR.search(raw):
        return "a string with half of a surrogate pair"
    return f"not JSON: {one_line(str(error))}"


# Writing


def encode(payload: Mapping[str, Any]) -> bytes:
    """`payload` as compact JSON: raw UTF-8, keys in their order.

    Raises:
        PayloadError: a value that JSON cannot hold (NaN and infinities included); the message names its path.
    """
    return _encode(payload, "")


def _encode(value: Any, path: str) -> bytes:
    try:
        raw = _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        fault = first_fault(value, path, MAX_DEPTH_PUSH, strict=False)
        raise _refusal(value, fault or f"expected JSON, got a value the encoder refuses: {text(error)}") from None
    if b"null" in raw and not is_finite(value):  # the encoder writes NaN and infinities as null
        fault = first_fault(msgspec.to_builtins(value), path, MAX_DEPTH_PUSH, strict=False)
        if fault is not None:
            raise _refusal(value, fault)
    return raw


def _refusal(value: Any, fault: str) -> PayloadError:
    name = value.get("class") if isinstance(value, dict) else None
    return PayloadError(f"{name}: {fault}" if type(name) is str else fault)


def normalise(item: Mapping[str, Any], *, options: Mapping[str, Any], config: Config) -> Payload:
    """A complete payload from what the caller pushed: options merged under it, `jid` and `created_at` filled in.

    Args:
        item: `class` (its wire name), `args`, and any other field; `at` is epoch seconds and is left for the client.
        options: the job definition's options; the configuration's `default_job_options` go under them.

    Raises:
        PayloadError: a field is missing or malformed. The arguments themselves are looked at by `verify`.
    """
    check_item(item)
    payload: Payload = {**config.default_job_options, **options, **item}
    _check_fields(payload)
    _check_options(payload, {**config.default_job_options, **options})
    payload["args"] = list(payload["args"])
    if payload.get("jid") is None:
        payload["jid"] = config.new_jid()
    if payload.get("created_at") is None:
        payload["created_at"] = stamp(config.clock.now(), config.wire)
    return payload


def check_item(item: object) -> None:
    """Check that `item` is a mapping with `class` and `args`. Raises PayloadError with what is missing."""
    names = [name for name in item if isinstance(name, str)] if isinstance(item, Mapping) else []
    missing = " and ".join(f"`{name}`" for name in ("class", "args") if name not in names)
    if missing:
        there = f" without {missing} (it has {one_line(', '.join(names))[:80] or 'nothing'})"
        raise PayloadError(
            f"expected a mapping with `class` and `args`, got {kind_of(item)}{there * isinstance(item, Mapping)}; "
            "push {'class': ..., 'args': []}"
        )


def copy_for(payload: Payload, args: Sequence[Any], jid: str, at: float | None = None) -> Payload:
    """One job of a bulk push: `payload` as `normalise` made it, with its own arguments, jid and time."""
    job = {**payload, "args": list(args), "jid": jid}
    if at is not None:
        job["at"] = at
    return job


def verify(payload: Payload, config: Config) -> None:
    """Check a payload as client middleware left it, right before it is encoded. Size is for `check_size`.

    Raises:
        PayloadError: `class`, `args`, `queue`, `jid` or `at` is malformed, or an argument is not plain JSON; of the
            latter, `strict_args="warn"` makes a `UserWarning` and `strict_args=False` nothing.
    """
    _check_fields(payload)
    if payload.get("jid") is None:
        raise PayloadError(f"{payload['class']}: expected `jid` to be kept, got none; see what client middleware does")
    if payload.get("at") is not None:
        _check_at(payload["at"], payload["class"])
    if not config.strict_args:
        return
    try:
        wrapped = payload.get("wrapped")
        name = wrapped if is_name(wrapped) else payload["class"]
        check_args(payload["args"], name)
        if "kwargs" in payload:
            check_plain(payload["kwargs"], "kwargs", name, MAX_DEPTH_PUSH - 1)
    except PayloadError as error:
        if config.strict_args != "warn":
            raise
        warnings.warn(str(error), stacklevel=2)


def check_size(raw: bytes, name: str, config: Config) -> None:
    """Refuse an encoded payload that is larger than `max_payload` allows, or that is more than a worker would read.

    Raises:
        PayloadError: it is, or its nesting is too deep in a field that nobody has looked at.
    """
    limit = min(config.max_payload, MAX_READ_BYTES)
    if len(raw) > limit:
        raise PayloadError(
            f"{name}: expected a payload of at most {limit} bytes, got {len(raw)}; "
            "store the data elsewhere and pass its id, or raise `max_payload`"
        )
    levels = MAX_DEPTH_PUSH if config.strict_args in {True, "raise"} else MAX_DEPTH_READ
    if is_deeper(raw, levels):
        raise PayloadError(f"{name}: expected a payload with at most {levels} levels of nesting, got more; flatten it")


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` can be the name of a job class: 1 to 256 printable characters."""
    return type(value) is str and 0 < len(value) <= MAX_CLASS and value.isprintable()


def check_queue(name: object) -> None:
    """Check a queue name: 1 to 128 letters, digits, emoji or `_ . : -`.

    Raises:
        PayloadError: it is not one.
    """
    if type(name) is not str or not _is_queue_name(name):
        got = repr(name[:40]) if isinstance(name, str) else kind_of(name)
        raise PayloadError(
            f"expected a valid queue name, got {got}; use 1 to 128 letters, digits or the characters _ . : -"
        )


@lru_cache(maxsize=1024)
def _is_queue_name(name: str) -> bool:
    return QUEUE_NAME.fullmatch(name) is not None


def _check_fields(payload: Payload) -> None:
    """What both `normalise` and `verify` ask of `class`, `args`, `queue` and `jid`."""
    name, args, jid = payload.get("class"), payload.get("args"), payload.get("jid")
    if not is_name(name):
        raise PayloadError(f"expected `class` to be a name of 1 to {MAX_CLASS} printable characters, got {shown(name)}")
    if not isinstance(args, (list, tuple)):
        raise PayloadError(
            f"{name}: expected `args` to be a list, got {kind_of(args)}; wrap a single argument: [value]"
        )
    check_queue(payload.get("queue"))
    if jid is not None and (type(jid) is not str or not jid.isprintable() or not 0 < len(jid.encode()) <= MAX_JID):
        raise PayloadError(
            f"{name}: expected `jid` to be 1 to {MAX_JID} printable bytes, got {shown(jid)}; leave it out"
        )


def _check_options(payload: Payload, own: Mapping[str, Any]) -> None:
    """The other fields that Sidekiq gives a meaning to. `own` are the definition's, which may allow more retries."""
    name = payload["class"]
    for key in payload:
        if type(key) is not str:
            raise PayloadError(
                f"{name}: expected every field name of the job to be text, got {shown(key)}; use str(key)"
            )
    if "at" in payload:
        _check_at(payload["at"], name)
    if payload.get("retry_queue") is not None:
        check_queue(payload["retry_queue"])
    if payload.get("retry_for") is not None:
        payload["retry_for"] = _seconds(payload["retry_for"], name)
    if tags := payload.get("tags"):
        if not isinstance(tags, (list, tuple)) or not all(type(tag) is str for tag in tags):
            raise PayloadError(f"{name}: expected `tags` to be a list of text, got {shown(tags)}; write tags=['slow']")
        payload["tags"] = list(tags)
    retry = payload.get("retry")
    if retry is None or type(retry) is bool:
        return
    if type(retry) is not int or retry < 0:
        raise PayloadError(f"{name}: expected `retry` to be True, False or a number from 0, got {shown(retry)}")
    if retry > MAX_RETRY and retry != own.get("retry"):
        raise PayloadError(
            f"{name}: expected `retry` of at most {MAX_RETRY}, got {shown(retry)}; declare more on the job itself"
        )


def _check_at(at: object, name: str) -> None:
    if not isinstance(at, (int, float)) or isinstance(at, bool):
        cure = "pass value.timestamp() of an aware datetime" if hasattr(at, "timestamp") else "pass epoch seconds"
        raise PayloadError(f"{name}: expected `at` to be a number of epoch seconds, got {shown(at)}; {cure}")
    if not -MAX_AT < at < MAX_AT:  # so NaN is refused too
        raise PayloadError(f"{name}: expected `at` in epoch seconds, before the year 10000, got {shown(at)}")


def _seconds(value: Any, name: str) -> int:
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_RETRY_FOR:
        raise PayloadError(
            f"{name}: expected `retry_for` to be a relative amount of time, a timedelta or "
            f"0 to {MAX_RETRY_FOR} seconds, got {shown(value)}"
        )
    return int(seconds)


# Times and texts


def stamp(seconds: float, wire: Wire) -> int | float:
    """A time as the wire format has it: whole milliseconds for "8", float seconds for "7" and "6"."""
    return int(seconds * 1000 + 0.001) if wire == "8" else float(seconds)  # the thousandth: 0.276 must not become 275


def read_time(value: object) -> float | None:
    """A stored time in epoch seconds, whoever wrote it; None where it cannot be used.

    Understood: seconds, or milliseconds from 1e11 on, as a number or as text, and ISO 8601 (UTC unless it says).
    """
    if isinstance(value, str):
        return _read_text_time(value[:40])
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < MAX_AT * 1000:
        return None
    return value / 1000 if value >= MILLISECONDS_FROM else float(value)


def _read_text_time(value: str) -> float | None:
    try:
        return read_time(float(value))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
        return read_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def read_tags(value: object) -> list[str]:
    """The tags of a stored job as far as they are worth showing: at most 20, of at most 64 characters each."""
    tags = value if isinstance(value, list) else []
    return [tag[:MAX_TAG] for tag in tags[:MAX_TAGS] if isinstance(tag, str)]
