"""A payload's classes and jid, read without decoding the rest: what a fetcher needs to know before a job is decoded."""

from __future__ import annotations

import msgspec


class Head(msgspec.Struct, rename={"name": "class"}):
    """All are empty where the payload cannot be read; whoever decodes it will say why."""

    name: str = ""
    wrapped: object = None
    jid: str = ""


_decode = msgspec.json.Decoder(Head).decode


def read_head(raw: bytes) -> Head:
    """The head of a payload; never raises."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Head()
