"""How far the explorer goes: in the suite, at night, and with a rule taken away."""

from __future__ import annotations

from tests.models.explorer import Bounds

SUITE = {
    "two jobs, nothing fails": Bounds(faults=0, names=1),
    "one job, one fault anywhere": Bounds(faults=1, jobs=1, names=1),
    "two jobs, one fault anywhere": Bounds(faults=1, names=1, endings=("retry",)),
    "one job, one fault, and the pulse": Bounds(faults=1, jobs=1, names=1, endings=("retry",), pulse=True, stops=False),
    "outages, and everybody is in time": Bounds(faults=0, jobs=1, pulse=True, timely=True, outages=2),
}
NIGHT = {
    "one job, under a second name": Bounds(faults=0, jobs=1, pulse=True),
    "two jobs, under a second name": Bounds(faults=0, endings=("retry",)),
    "one job, any end, one fault, under a second name": Bounds(faults=1, jobs=1),
    "two jobs, any end, one fault": Bounds(faults=1, names=1, endings=("done", "retry", "requeue")),
    "one job, two faults": Bounds(faults=2, jobs=1, names=1),
    "two jobs, two faults": Bounds(faults=2, names=1, endings=("retry",)),
}

_ONE = Bounds(faults=1, jobs=1, names=1, endings=("retry",))
BROKEN = {
    "a step asks for no lease": (_ONE, {"no fencing"}, "two leases"),
    "generations do not count": (SUITE["two jobs, one fault anywhere"], {"no generation"}, "is lost"),
    "popped before it is in the index": (_ONE, {"pop before the index"}, "is lost"),
    "moved before it is in the index": (_ONE, {"index last"}, "is lost"),
    "the old place goes first": (_ONE, {"old place first"}, "is lost"),
    "the lease goes before the reapers know": (_ONE, {"lease goes first"}, "is lost"),
    "the fenced are forgotten": (_ONE, {"the fenced are forgotten"}, "is lost"),
    "no re-sync after a lost answer": (
        SUITE["one job, one fault, and the pulse"],
        {"no re-sync"},
        "never come to an end",
    ),
    "no pulse": (SUITE["outages, and everybody is in time"], {"no pulse"}, "alive was fenced"),
}
