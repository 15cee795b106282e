"""Everything that a button does, by verb, and the one place where roles are checked: `act`.

Forms (`/do/VERB`), the JSON API (`/api/v1/do/VERB`) and extensions all come through here. Jobs are moved by operations
(`pillion.api.operations`): preview, confirm, start; a driver goes on with them whatever becomes of the page, and most
can be undone. Each action is noted in the audit, by the operation itself or here, and so is each that was refused. A
crash between an action and its note loses the note."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pillion.api import Deploy, ProcessSet, Queue, Stats
from pillion.api.audit import Audit
from pillion.api.operations import Operation, Operations, Preview, Target, Verb
from pillion.api.search import Search
from pillion.api.selection import Selection
from pillion.api.stacks import Stacks
from pillion.client import Client
from pillion.errors import StoreError, UsageError
from pillion.web.access import Role
from pillion.web.context import PREFERENCES, BadInput, Forbidden, NotThere, View
from pillion.web.form import Form
from pillion.web.security import address_of

AUDIT = logging.getLogger("pillion.web.audit")
AT_ONCE = 0.5
"""Seconds that a page waits for a small operation before it shows its progress instead."""
MANY = 100
"""More jobs than this need their number typed."""
LONGEST_ARGS = 50_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an action.

    Attributes:
        key: the text that says so; `values` go into it.
        level: `ok`, `notice` or `alarm`.
        to: where to go; "" goes back to where the button was.
        operation: the operation that was started.
        preview: what would be done; the action has to be confirmed.
        answer: what the JSON API says beside that.
        cookies: what this browser is to keep.
    """

    key: str = ""
    values: dict[str, Any] = {}
    level: str = "ok"
    to: str = ""
    operation: Operation | None = None
    preview: Preview | None = None
    answer: dict[str, Any] = {}
    cookies: dict[str, str] = {}


Deed: TypeAlias = Callable[[View, Form], Awaitable[Outcome]]


class Action(NamedTuple):
    """What a verb does, who may do it, and whether it has to be noted here."""

    deed: Deed
    role: Role
    noted: bool = True


async def act(view: View, verb: str, form: Form) -> Outcome:
    """Do what a button says. Raises NotThere for an unknown verb, Forbidden, BadInput, UsageError and StoreError."""
    action = view.site.actions.get(verb)
    if action is None:
        raise NotThere(f"there is no action {verb!r:.40}")
    if not view.may(verb):
        await note(view, verb, "", result=f"refused: needs {action.role.name.lower()}")
        raise Forbidden(f"{verb} needs the role {action.role.name.lower()}, and yours is {view.role.name.lower()}")
    outcome: Outcome = await action.deed(view, form)
    if action.noted:
        await note(view, verb, " ".join(str(value) for value in outcome.values.values()))
    return outcome


async def note(view: View, verb: str, what: str, result: str = "done") -> None:
    """Write an action into the audit and the log. What was done is not undone where that fails."""
    address = address_of(view.request)
    AUDIT.info("%s", msgspec.json.encode([view.user.name, view.role.name, address, verb, what[:200], result]).decode())
    try:
        await Audit(view.client).anote(verb, by=view.user.name, filter=what, result=result)
    except (StoreError, UsageError) as error:
        AUDIT.warning("not noted in Redis: %s", error)


# --- queues and processes ---------------------------------------------------------------------------------------------


async def pause(view: View, form: Form) -> Outcome:
    name = form.need("queue", 200)
    done = [await Queue(name, client).apause() for client in view.clients]
    return Outcome(key="done.pause" if any(done) else "done.already", values={"queue": name})


async def resume(view: View, form: Form) -> Outcome:
    name = form.need("queue", 200)
    done = [await Queue(name, client).aresume() for client in view.clients]
    return Outcome(key="done.resume" if any(done) else "done.already", values={"queue": name})


def signal(method: str) -> Deed:
    """Asks one process for something."""

    async def deed(view: View, form: Form) -> Outcome:
        identity = form.need("process", 500)
        for client in view.clients:
            process = await ProcessSet(clean=False, client=client).afind(identity)
            if process is not None:
                await getattr(process, f"a{method}")()
                return Outcome(key=f"done.{method}", values={"process": identity})
        raise NotThere(f"there is no process {identity!r:.80} any more")

    return deed


def signal_all(method: str) -> Deed:
    """Asks every process that can be asked."""

    async def deed(view: View, _: Form) -> Outcome:
        count = 0
        for client in view.clients:
            for process in await ProcessSet(client=client).aall():
                if not process.embedded:
                    await getattr(process, f"a{method}")()
                    count += 1
        return Outcome(key=f"done.{method}_all", values={"count": count})

    return deed


async def stack(view: View, form: Form) -> Outcome:
    identity, jid = form.need("process", 500), form.get("jid", most=200)
    client = await _client_of(view, identity)
    number = await Stacks(client).aask(identity, jid or None)
    to = view.url("stack", number, process=identity, jid=jid)
    return Outcome(to=to, values={"process": identity, "jid": jid}, answer={"number": number})


async def _client_of(view: View, identity: str) -> Client:
    for client in view.clients:
        if await ProcessSet(clean=False, client=client).afind(identity) is not None:
            return client
    raise NotThere(f"there is no process {identity!r:.80} any more")


# --- jobs -------------------------------------------------------------------------------------------------------------


def operate(verb: Verb) -> Deed:
    """Preview, confirm, start: the path of everything that moves jobs."""

    async def deed(view: View, form: Form) -> Outcome:
        client, target, options = one_client(view), target_of(form), options_of(view, form)
        preview = await Operations(client).apreview(verb, target, **options)
        if not is_confirmed(preview, target, form):
            return Outcome(key="confirm.needed", level="notice", preview=preview, values={"count": preview.count})
        if preview.exact and not preview.count:
            return Outcome(key="done.nothing", level="notice", values={"verb": verb})
        operation = await Operations(client).astart(verb, target, by=view.user.name, **options)
        return await _followed(view, client, operation)

    return deed


async def _followed(view: View, client: Client, operation: Operation) -> Outcome:
    """A small operation is done before the page is back; a large one has a page of its own."""
    operation = await Operations(client).aadvance(operation.id, seconds=AT_ONCE)
    if operation.is_open:
        view.site.operators.go_on(client)
        return Outcome(
            key="done.started", operation=operation, to=view.url("operations", operation.id), values=_figures(operation)
        )
    fine = not operation.failed and operation.state in ("done", "undone")
    key = "done.operation" if operation.state != "undone" else "done.undo"
    return Outcome(
        key=key,
        level="ok" if fine else "alarm",
        operation=operation,
        to="" if fine else view.url("operations", operation.id),
        values=_figures(operation),
    )


def _figures(operation: Operation) -> dict[str, Any]:
    return {
        "verb": operation.verb,
        "count": operation.restored if operation.state == "undone" else operation.moved,
        "failed": operation.failed,
        "operation": operation.id,
    }


def must_type(preview: Preview) -> bool:
    """Whether the number of jobs has to be typed."""
    return preview.count > MANY or not preview.exact or (preview.verb in ("delete", "clear") and preview.count > 1)


def is_confirmed(preview: Preview, target: Target, form: Form) -> bool:
    """Whether somebody has seen what this does: the count that was shown, typed where it is large, still about true."""
    needed = must_type(preview) or preview.verb in ("delete", "clear") or not isinstance(target, Selection)
    if not needed:
        return True
    shown = form.get("shown", most=20)
    if not (shown.isascii() and shown.isdigit()):
        return False
    most = int(shown) + max(10, int(shown) // 10)
    typed = form.get("confirm", most=20).replace(",", "").replace(" ", "")
    return preview.count <= most and (not must_type(preview) or typed == shown)


def target_of(form: Form) -> Target:
    """Which jobs: those that were marked, or what a query means."""
    marked, query = form.every("id"), form.get("q", most=2_000).strip()
    if bool(marked) == bool(query):
        raise BadInput("expected marked jobs (`id`) or a search (`q`), one of both")
    return Selection.parse(marked) if marked else query


def options_of(view: View, form: Form) -> dict[str, Any]:
    """`to` and `at`, where they were given."""
    found = {"to": form.get("to", most=200).strip() or None, "at": form.moment("at", view.now)}
    return {name: value for name, value in found.items() if value is not None}


def one_client(view: View) -> Client:
    """The shard that is meant; jobs are moved on one at a time."""
    if len(view.clients) > 1:
        raise BadInput(f"expected one shard, `?shard=...`; known are {', '.join(view.shards)}")
    return view.client


def control(method: str, key: str) -> Deed:
    """Pauses, resumes, stops or undoes an operation."""

    async def deed(view: View, form: Form) -> Outcome:
        client, name = one_client(view), form.need("operation", 64)
        if await Operations(client).aread(name) is None:
            raise NotThere("there is no such operation, or it is older than seven days")
        asked = {"by": view.user.name} if method == "undo" else {}
        operation: Operation = await getattr(Operations(client), f"a{method}")(name, **asked)
        if operation.is_open:
            return await _followed(view, client, operation)
        return Outcome(key=key, operation=operation, to=view.url("operations", name), values=_figures(operation))

    return deed


async def push(view: View, form: Form) -> Outcome:
    """A new job; with `instead` (a reference) the old one is deleted once the new one is in its queue."""
    try:
        args = msgspec.json.decode(form.need("args", LONGEST_ARGS))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadInput("expected the arguments as a JSON list, got something else") from None
    if not isinstance(args, list):
        raise BadInput('expected the arguments as a JSON list, such as ["bob", 5]')
    item: dict[str, Any] = {"class": form.need("class", 300), "args": args}
    instead = form.get("instead", most=500)
    if queue := form.get("queue", most=200).strip():
        item["queue"] = queue
    if at := form.moment("at", view.now):
        item["at"] = at
    client = one_client(view)
    old = Selection.parse([instead]) if instead else None
    if old is not None:
        item["edited_from"] = old.refs[0].jid
    jid = await client.apush(item)
    if jid is None:
        return Outcome(key="failed.stopped", level="alarm", values={"klass": item["class"]})
    if old is not None:
        operation = await Operations(client).astart("delete", old, by=view.user.name)
        await Operations(client).aadvance(operation.id, seconds=AT_ONCE)
    return Outcome(
        key="done.push", values={"klass": item["class"], "jid": jid}, to=view.url("job", jid), answer={"jid": jid}
    )


# --- the rest ---------------------------------------------------------------------------------------------------------


async def deploy(view: View, form: Form) -> Outcome:
    label = form.need("label", 200)
    marked = [await Deploy(client).amark(label) for client in view.clients]
    return Outcome(key="done.deploy" if any(marked) else "done.already", values={"label": label})


async def reset(view: View, form: Form) -> Outcome:
    counters: Any = form.every("counter")
    for client in view.clients:
        await Stats(client).areset(*counters)
    return Outcome(key="done.reset", values={"counters": ", ".join(counters) or "processed, failed"})


async def prefer(_: View, form: Form) -> Outcome:
    chosen = {name: form.get(name, most=40) for name in PREFERENCES if any(name == field for field, _ in form.fields)}
    if not chosen:
        raise BadInput(f"expected one of {', '.join(PREFERENCES)}")
    return Outcome(key="done.prefer", cookies=chosen)


async def find_job(view: View, jid: str) -> Any:
    """The job with this jid on any of the view's shards, as a `Hit`, or None."""
    for client in view.clients:
        hit = await Search("", client).ajob(jid)
        if hit is not None:
            return hit
    return None


def extended(fn: Callable[[View, Form], Awaitable[str | None]], role: Role) -> Action:
    """The action of an extension, under our rules: roles, audit, and nobody is sent elsewhere."""

    async def deed(view: View, form: Form) -> Outcome:
        return Outcome(key="done.extension", to=await fn(view, form) or "")

    return Action(deed, role)


OPERATOR, ADMIN = Role.OPERATOR, Role.ADMIN
ACTIONS: Mapping[str, Action] = {
    "pause": Action(pause, OPERATOR),
    "resume": Action(resume, OPERATOR),
    "quiet": Action(signal("quiet"), OPERATOR),
    "stop": Action(signal("stop"), OPERATOR),
    "dump": Action(signal("dump_threads"), OPERATOR),
    "quiet-all": Action(signal_all("quiet"), ADMIN),
    "stop-all": Action(signal_all("stop"), ADMIN),
    "stack": Action(stack, OPERATOR),
    "retry": Action(operate("retry"), OPERATOR, noted=False),
    "requeue": Action(operate("requeue"), OPERATOR, noted=False),
    "kill": Action(operate("kill"), OPERATOR, noted=False),
    "delete": Action(operate("delete"), OPERATOR, noted=False),
    "move": Action(operate("move"), OPERATOR, noted=False),
    "reschedule": Action(operate("reschedule"), OPERATOR, noted=False),
    "clear": Action(operate("clear"), ADMIN, noted=False),
    "undo": Action(control("undo", "done.undo"), OPERATOR, noted=False),
    "hold": Action(control("pause", "done.hold"), OPERATOR),
    "go": Action(control("resume", "done.go"), OPERATOR),
    "halt": Action(control("stop", "done.halt"), OPERATOR),
    "push": Action(push, OPERATOR),
    "deploy": Action(deploy, OPERATOR),
    "reset": Action(reset, ADMIN),
    "prefer": Action(prefer, Role.VIEWER, noted=False),
}
