"""All faults that there are, and those that are missing, each with the reason."""

from __future__ import annotations

from tests.crash.fault import Fault
from tests.crash.faults.client import Cancelled, Forked, LostPush
from tests.crash.faults.failpoints import Failpoints
from tests.crash.faults.fleets import Mixed, Upgrade
from tests.crash.faults.lines import BadLine, Failover, NoDescriptors
from tests.crash.faults.misbehaving import Forgetful, FrozenServer, FullMemory, Scheduler, Scripts
from tests.crash.faults.network import Ghost, HalfOpen
from tests.crash.faults.orders import Pill, Told
from tests.crash.faults.owners import LongJob, SameName
from tests.crash.faults.replies import LostReply
from tests.crash.faults.server import Restart
from tests.crash.faults.storm import RetryStorm
from tests.crash.faults.workers import Frozen, UnreadReply, WorkerCrash

EVERY: tuple[type[Fault], ...] = (
    WorkerCrash,
    UnreadReply,
    LostReply,
    Frozen,
    Restart,
    LongJob,
    SameName,
    Pill,
    Told,
    LostPush,
    HalfOpen,
    Cancelled,
    Ghost,
    RetryStorm,
    Forked,
    Mixed,
    Upgrade,
    Failpoints,
    Failover,
    FrozenServer,
    FullMemory,
    Scripts,
    Forgetful,
    Scheduler,
    BadLine,
    NoDescriptors,
)

MISSING: dict[str, str] = {
    "T20": "big structures: the sizes of dashboards and scans; with the dashboard",
    "T21": "no libfaketime is at hand; tests/servers_misbehave/test_clock.py moves the clock that scripts see",
    "T23": "periodic jobs over changes of the clock: with periodic jobs",
    "T24": "batches: with batches",
    "T25": "unique jobs: with unique jobs",
    "T26": "limiters: with limiters",
    "T28": "soak: a run of its own, `make soak`",
    "T29": "payload fuzz: `make fuzz`",
    "T30": "the dashboard under hostile requests: with the dashboard",
    "T33": "certificates and rights have no phase: tests/store/test_addresses.py, tests/store/test_acl.py",
    "T36": "the ledger stands on the disk of the log; tests/unit/test_log_sink.py fills it, and stops reading",
    "T37": "workers of the bed know their server by its path: tests/servers_misbehave/test_network.py",
    "T39": "at-most-once queues: with them",
    "T40": "encryption: with encryption",
}
MISSING |= {fault.id: why for fault in EVERY if (why := fault.unable())}
"""Rows of the plan that are not played: id -> why."""

FAULTS = tuple(fault for fault in EVERY if fault.id not in MISSING)


def by_id(name: str) -> type[Fault]:
    """The fault of that id."""
    for fault in FAULTS:
        if fault.id == name:
            return fault
    raise SystemExit(f"there is no fault {name}; there are {', '.join(fault.id for fault in FAULTS)}")
