"""Who should run: the decisions of the supervisor, and the only place that starts, replaces and ends workers.

    slots 0..N-1, each served by one child          serving
    one replacement at a time, booting               heir
    children that were replaced and still stop       the others in `children`

`settle` compares what is with what should be and acts on the difference; everything else only notes facts. So there is
one rule for the first start, for a crash, for a rolling restart and for recycling:

- an empty slot is filled, after a pause if its processes die one after the other;
- a child that is worn, or of older code, stays until its heir runs; then it stops. So N are running all the time;
- code that no child has run yet (a *candidate*) gets one child; the others follow when that one runs. So an app that
  cannot boot says so once, and new code that cannot boot never replaces what works.

A dead child's jobs: its identity stands in `to_rescue` until some running child has said that it is done. That child
has Redis, the app's death handlers and a reaper; the supervisor needs none of them.
"""

from __future__ import annotations

import logging
import signal
from collections import defaultdict
from collections.abc import Callable

from pillion.worker.forking.messages import PROTOCOL, Ready, Rescue
from pillion.worker.supervisor.records import Child, Zygote, how, was_killed
from pillion.worker.supervisor.restarts import Restarts

log = logging.getLogger("pillion")

FAILED = 1


class Fleet:
    """The processes of one supervisor.

    Attributes:
        children: all of them, by number.
        serving: the child of each slot.
        heir: the child that boots to replace one that serves.
        current, candidate: the zygote whose code runs, and one whose code has to prove itself.
        stopping: whether everything is to end.
        quiet: whether children are told to take no new jobs.
        failed: the exit code, once it turned out that the app cannot boot.
        was_complete: whether all slots have been running at the same time.
        settings: what the code that runs has told; before any does, what the candidate has.
    """

    def __init__(self, new_zygote: Callable[[int], Zygote]) -> None:
        self._new_zygote = new_zygote
        self.children: dict[int, Child] = {}
        self.serving: dict[int, Child] = {}
        self.heir: Child | None = None
        self.current: Zygote | None = None
        self.candidate: Zygote | None = None
        self.zygotes: dict[int, Zygote] = {}
        self.to_rescue: dict[str, int | None] = {}
        self.stopping = False
        self.quiet = False
        self.failed: int | None = None
        self.was_complete = False
        self.settings: Ready | None = None
        self._generation = self._newest = 1
        self._number = 0
        self._proven = False
        self._restarts: dict[int, Restarts] = defaultdict(Restarts)
        self._zygote_restarts = Restarts()

    # -- what should be --------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Act on the difference between what is and what should be."""
        if self.stopping or self.failed is not None:
            return
        if self.current is None and self.candidate is None and self._zygote_restarts.may_start(now):
            self._load(self._generation)
        source = self.candidate if self.candidate and self.candidate.ready else self.current
        if source is not None and source.ready is not None and source.is_open:
            self._fill(source, source.ready.processes, now)
            self._replace(source, now)
        self._send_rescues()

    def _load(self, generation: int) -> None:
        self.candidate = self._new_zygote(generation)
        self.zygotes[self.candidate.pid] = self.candidate

    def _fill(self, source: Zygote, processes: int, now: float) -> None:
        for slot in range(processes):
            unproven = source is self.candidate and any(child.zygote is source for child in self.children.values())
            if slot not in self.serving and not unproven and self._restarts[slot].may_start(now):
                self.serving[slot] = self._fork(source, slot, now)
        if source is self.current:
            for slot in [slot for slot in self.serving if slot >= processes]:
                self._retire(self.serving.pop(slot), now)

    def _replace(self, source: Zygote, now: float) -> None:
        if self.heir is not None or any(child.state == "stopping" for child in self.children.values()):
            return
        for slot, child in self.serving.items():
            old = child.worn or child.generation < source.generation
            if old and child.state == "running" and self._restarts[slot].may_start(now):
                self.heir = self._fork(source, slot, now)
                return

    def _fork(self, source: Zygote, slot: int, now: float) -> Child:
        self._number += 1
        herald = self._number == 1
        child = Child(self._number, slot, source, source.fork(self._number, herald=herald), now)
        self.children[child.number] = child
        return child

    def _retire(self, child: Child, now: float) -> None:
        """Let a child go: one that is only worn may end its jobs first, however long they take within reason."""
        if child.worn and not child.generation < self._generation:
            child.signal(signal.SIGTSTP)
            child.enter("quiet", now)
        else:
            self.stop_child(child, now)

    def stop_child(self, child: Child, now: float) -> None:
        child.signal(signal.SIGTERM)
        child.enter("stopping", now)

    def _send_rescues(self) -> None:
        able = [child for child in self.children.values() if child.state in ("running", "quiet")]
        for identity, asked in self.to_rescue.items():
            if asked is None and able and able[0].channel.send(Rescue(identity)):
                self.to_rescue[identity] = able[0].number

    # -- orders from outside ---------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Load the code anew, and replace every child when it has proven itself."""
        if self.candidate is not None:
            if self.current is None:
                log.info("restart: the code is being loaded already")
                return
            self._drop_candidate()
        log.info("restart: loading the new code; the old runs on until it has proven itself")
        self._newest += 1
        self._load(self._newest)

    def go_quiet(self) -> None:
        """Tell everyone to take no new jobs, for good."""
        self.quiet = True
        for child in self.children.values():
            if child.state == "running":
                child.signal(signal.SIGTSTP)

    def stop(self, number: signal.Signals, now: float) -> None:
        """Stop everyone; called again with INT, at once."""
        self.stopping = True
        if self.candidate is not None and self.candidate.ready is None:
            self._drop_candidate()
        for child in self.children.values():
            child.signal(signal.SIGTERM if child.state == "booting" else number)
            if child.state != "stopping":
                child.enter("stopping", now)

    # -- facts -----------------------------------------------------------------------------------------------------

    def zygote_ready(self, zygote: Zygote, said: Ready) -> None:
        """A zygote has imported the app."""
        zygote.ready = said
        self.settings = self.settings or said
        if said.protocol != PROTOCOL and zygote is self.candidate:
            log.error("the installed Pillion cannot work with this running one; stop the worker and start it again")
            self._drop_candidate()
            self.failed = None if self.current else FAILED

    def zygote_ended(self, zygote: Zygote, status: int, now: float) -> None:
        """A zygote is gone. The children of one that was killed run on."""
        zygote.ended(status)
        del self.zygotes[zygote.pid]
        if zygote is self.current:
            self.current = None
            if not self.stopping:
                log.warning("the zygote (pid %d) %s; starting another, its children run on", zygote.pid, how(status))
                self._zygote_restarts.died(now - zygote.born, now)
        elif zygote is self.candidate:
            self.candidate = None
            self._candidate_failed(status, now - zygote.born, now)

    def _candidate_failed(self, status: int | None, lived: float, now: float) -> None:
        if self.current is not None:
            log.error("restart: the new code cannot boot, the process %s; the old code runs on", how(status))
        elif not self._proven and not was_killed(status):
            self.failed = status if status is not None and status > 0 else FAILED
            if self.failed != status:  # else it has said why
                log.error("the app cannot boot: the process that did it %s", how(status))
        else:
            pause = self._zygote_restarts.died(lived, now)
            log.error("the app could not be loaded: the process %s; next try in %g s", how(status), pause)

    def _drop_candidate(self) -> None:
        zygote, self.candidate = self.candidate, None
        if zygote is not None:
            zygote.close()
            zygote.signal(signal.SIGTERM)

    def forked(self, child: Child, pid: int) -> None:
        """A child has a process id."""
        child.pid = pid
        if self.stopping:
            child.signal(signal.SIGTERM)

    def child_runs(self, child: Child, now: float) -> None:
        """A child takes jobs: its code is proven, and whom it replaces may go."""
        if child.state != "booting":
            return
        child.enter("running", now)
        self._proven = True
        if child.zygote is self.candidate:
            self._promote(child.zygote)
        if child is self.heir:
            self.heir = None
            replaced = self.serving.get(child.slot)
            self.serving[child.slot] = child
            if replaced is not None:
                self._retire(replaced, now)
        if self.quiet:
            child.signal(signal.SIGTSTP)
        self._announce()

    def _promote(self, zygote: Zygote) -> None:
        before, self.current, self.candidate = self.current, zygote, None
        self.settings = zygote.ready
        self._generation = zygote.generation
        if before is not None:
            before.close()

    def _announce(self) -> None:
        states = [child.state for child in self.serving.values()]
        if not self.was_complete and self.settings and states == ["running"] * self.settings.processes:
            self.was_complete = True
            log.info("%d worker processes are running", len(states))

    def child_ended(self, child: Child, status: int | None, now: float) -> None:
        """A child is gone: have its jobs rescued, and make room for the next."""
        del self.children[child.number]
        child.channel.close()
        if child.identity and status != 0:
            self.to_rescue[child.identity] = None
        self.to_rescue = {who: None if by == child.number else by for who, by in self.to_rescue.items()}
        if self.heir is child:
            self.heir = None
        elif self.serving.get(child.slot) is child:
            del self.serving[child.slot]
            if self.heir is not None and self.heir.slot == child.slot:
                self.serving[child.slot], self.heir = self.heir, None
        if not self.stopping:
            self._mourn(child, status, now)

    def _mourn(self, child: Child, status: int | None, now: float) -> None:
        if child.state == "stopping" and status == 0:
            log.info("%s has stopped", child)
            return
        first = child.state == "booting" and child.zygote is self.candidate
        if first and status != 0 and not was_killed(status) and (self.current is not None or not self._proven):
            self._candidate_failed(status, now - child.born, now)
            self._drop_candidate()
            return
        pause = self._restarts[child.slot].died(now - child.born, now) if child.state != "stopping" else 0.0
        log.warning("%s %s; starting another%s", child, how(status), f" in {pause:g} s" if pause else "")

    def rescued(self, identity: str) -> None:
        """Some child has given a dead one's jobs back."""
        self.to_rescue.pop(identity, None)
