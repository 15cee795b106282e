"""What many idle processes would cost together, kept small: one fetcher's part in it.

Every idle fetcher is told when a job is pushed, and one of them gets it. In a small fleet that is the fastest way, and
cheap. With a thousand idle processes it would be a thousand steps per job, so that the server did more for those who
find nothing than for the work. Hence:

- *hesitation*: whoever is woken waits for a random moment first, the longer the larger the fleet. One is early all the
  same, and what comes meanwhile is one wake-up, not many;
- *tired*: in a fleet of more than 16, whoever was woken four times in a row for nothing does not ask to be told for
  one poll. Thus nobody looks in vain more than about once a second, however many jobs are pushed, and there is always
  somebody awake: who got a job lately is not tired, and the polls of the others come from one moment to the next;
- *poll*: everybody looks every second or two, in case news got lost; of more than 250 who do hear, each the less often
  the more they are.

A crash leaves nothing: all this is memory. It decides when to look, never about a job.
"""

from __future__ import annotations

from pillion.config import Config

POLL = (1.0, 2.0)
POLLERS = 250
PER_PROCESS = 0.0005
MOST = 0.200
SMALL_FLEET = 16
IN_VAIN = 4


class Herd:
    """Attributes:
    fleet: how many worker processes there are; set by the heartbeat.
    woken: whether news of a push ended the last sleep.
    """

    def __init__(self, config: Config) -> None:
        self.fleet = 1
        self.woken = False
        self._rng = config.rng
        self._in_vain = 0

    def is_tired(self) -> bool:
        """Whether the step after this wake-up should not ask for another."""
        return self.woken and self._in_vain >= IN_VAIN and self.fleet > SMALL_FLEET

    def looked(self, *, found: bool) -> None:
        """Note whether a step brought something."""
        if found:
            self._in_vain = 0
        elif self.woken:
            self._in_vain += 1
        self.woken = False

    def hesitation(self) -> float:
        """Seconds to wait after a wake-up; next to none in a small fleet."""
        return self._rng.uniform(0, min(MOST, PER_PROCESS * (self.fleet - 1)))

    def poll(self, *, hears: bool) -> float:
        """Seconds until an idle fetcher looks again by itself. Who hears of pushes can take longer in a large fleet."""
        return self._rng.uniform(*POLL) * (max(1.0, self.fleet / POLLERS) if hears else 1.0)
