"""T22: everything fails for five minutes, and is retried: how the retries spread. Time is virtual."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import msgspec

from pillion.config import Config
from pillion.payload import encode
from pillion.retry import NO_RULES, decide
from pillion.types import Payload, Retry
from tests.crash.fault import Scenario, Score
from tests.servers import Kind

JOBS = 4_000
OUTAGE = 300.0
BUCKET = 10
PEAK = 2.0
START = 1_000_000.0


class RetryStorm(Scenario):
    """Jobs fail at an even rate while something that all need is away; their retries must not come in waves."""

    id, title, trials = "T22", f"retry storm: {JOBS} jobs fail for 5 min (virtual time)", 30

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        clock = Virtual()
        config = msgspec.structs.replace(Config(), clock=clock, rng=rng)
        attempts = [self._attempts(number, rng.uniform(0, OUTAGE), clock, config) for number in range(JOBS)]
        inside = [at for times in attempts for at in times[1:] if at <= OUTAGE]
        buckets = Counter(int(at // BUCKET) for at in inside)
        late = [buckets[number] for number in range(int(OUTAGE / 2 / BUCKET), int(OUTAGE / BUCKET))]
        ratio = max(late) / (sum(late) / len(late))
        recovery = max(times[-1] for times in attempts) - OUTAGE
        plan = f"{len(inside)} retries, peak {ratio:.2f} times the mean, the last {recovery:.0f} s after"
        score = Score(accepted=JOBS, plan=plan)
        if ratio > PEAK:
            score.wrong.append(f"the retries come in waves: {late}")
        return score

    @staticmethod
    def _attempts(number: int, first: float, clock: Virtual, config: Config) -> list[float]:
        """When a job runs that is pushed at `first`: every run before the end of the outage fails."""
        job: Payload = {"class": "Storm", "args": [], "jid": f"{number:024x}", "queue": "default", "retry": True}
        raw, times = encode(job), [first]
        while times[-1] <= OUTAGE:
            clock.at = START + times[-1]
            outcome = decide(raw, job, "default", ConnectionError("away"), NO_RULES, config, None).outcome
            assert isinstance(outcome, Retry), outcome
            raw, job = outcome.payload, msgspec.json.decode(outcome.payload)
            times.append(outcome.at - START)
        return times


class Virtual:
    """A clock that stands where it is put."""

    at = START

    def now(self) -> float:
        return self.at

    def steady(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
