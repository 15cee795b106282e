"""Programs that push: their replies are lost, their tasks are cancelled, their processes are forked."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from pillion import Client
from pillion.errors import MaybeEnqueued, StoreError
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.connection import AsyncStore
from tests.crash.fault import Scenario, Score
from tests.crash.stage import Stage
from tests.crash.victim import ACCEPTED, MAYBE, Quick
from tests.proxy import Mischief, Proxy
from tests.servers import Kind, Server
from tests.waiting import wait_until

PUSHES = 6
TASKS = 40
FORKS = ("fork", "multiprocessing", "spawn", "in a job")
LOSSES: tuple[Mischief, ...] = ("lose_reply", "cut_reply", "swallow_reply", "close_early")


class Served(Scenario):
    """A scenario whose trials share one server."""

    _server: Server | None = None

    def server(self, kind: Kind) -> Server:
        """The server of this block."""
        if self._server is None:
            self._server = Server(kind).start()
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class LostPush(Served):
    """The server takes a push, and its reply is lost, or comes too late; once=True asks again, and pushes once."""

    id, title, trials, block = "T10", "push executed, reply lost or late; with and without `once`", 1000, 100

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        stage_server = self.server(server)
        stage = Stage(stage_server, folder / "s")
        proxy = Proxy(stage_server.folder / stage.prefix.rstrip(":"), stage_server.socket_path)
        redis = {**stage.setup_options["redis"], "url": proxy.url, "timeout": 0.3}
        client = Client(setup=Setup(**{**stage.setup_options, "redis": redis}))
        once, how = rng.random() < 0.5, rng.choice((*LOSSES, "late"))
        word = b"EVALSHA" if once else b"LPUSH"
        score = Score(plan=f"{how}, {'once' if once else 'plain'}")
        hit = rng.randrange(PUSHES)
        told: dict[str, str] = {}
        try:
            client.push({"class": Quick, "args": [0], "queue": "warm"}, once=once)
            for number in range(PUSHES):
                jid = f"push-{number}"
                if number == hit and how != "late":
                    proxy.trap(how, lambda words, _: words[0] in (word, b"EVAL"))
                elif number == hit:
                    stage_server.pause()
                try:
                    client.push({"class": Quick, "args": [0], "jid": jid}, once=once)
                    told[jid] = "taken"
                except MaybeEnqueued:
                    told[jid] = "maybe"
                except StoreError:
                    told[jid] = "refused"
                finally:
                    stage_server.resume()
            self._judge(stage, score, told, hit, once and how != "late")
        finally:
            client.setup.store.close()
            stage.close()
            proxy.close()
        return score

    @staticmethod
    def _judge(stage: Stage, score: Score, told: dict[str, str], hit: int, sure: bool) -> None:
        queue = stage.key("queue:default")
        taken = {jid for jid, word in told.items() if word == "taken"}
        stage.jids = taken
        with suppress(AssertionError):  # a late request may still be on its way
            wait_until(lambda: stage.redis.llen(queue) >= len(told), timeout=0.05)
        standing = Counter(jid for jid in stage.standing().get(queue, []))
        score.accepted, score.lost = len(taken), sorted(taken - standing.keys())
        score.again = sum(standing.values()) - len(standing)
        if score.lost or score.again:
            score.wrong.append(f"lost {score.lost}, there twice {score.again}")
        if odd := [jid for jid, word in told.items() if word == "refused" and jid in standing]:
            score.wrong.append(f"refused, and there: {odd}")
        if sure and (word := told[f"push-{hit}"]) != "taken":
            score.wrong.append(f"a push by jid was not repeated: {word}")
        touched = {f"push-{hit}", f"push-{hit + 1}"}  # the next one may meet the connection as it is being closed
        if others := [jid for jid, word in told.items() if jid not in touched and word == "maybe"]:
            score.wrong.append(f"in doubt, though nothing was done to them: {others}")


class Cancelled(Served):
    """Tasks that talk to Redis are cancelled at any moment, and others time out: no reply reaches the wrong one."""

    id, title, trials, block = "T13", f"{TASKS} tasks in Redis calls, some cancelled, some out of time", 300, 50

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        return asyncio.run(self._play(rng, self.server(server), folder))

    async def _play(self, rng: Random, server: Server, folder: Path) -> Score:
        stage = Stage(server, folder / "s")
        redis = {**stage.setup_options["redis"], "pool_size": 8, "timeout": rng.choice((0.005, 0.02, 0.4))}
        setup = Setup(**{**stage.setup_options, "redis": redis})
        client, score = Client(setup=setup), Score()
        tasks = {f"c-{n}": asyncio.create_task(talk(setup.astore, client, f"c-{n}")) for n in range(TASKS)}
        cancelled = set()
        try:
            while not all(task.done() for task in tasks.values()):
                await asyncio.sleep(rng.uniform(0, 0.002))
                if alive := [name for name, task in tasks.items() if not task.done()]:
                    cancelled.add(victim := rng.choice(alive))
                    tasks[victim].cancel()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            said = dict(zip(tasks, results, strict=True))
            said |= {f"later-{n}": await talk(setup.astore, client, f"later-{n}") for n in range(10)}
            score.wrong += [f"{name}: {words}" for name, words in said.items() if isinstance(words, str) and words]
            accepted = {name for name, words in said.items() if words == ""}
            standing = Counter(jid for jids in stage.standing().values() for jid in jids)
            score.accepted, score.lost = len(accepted), sorted(accepted - standing.keys())
            score.again = sum(standing.values()) - len(standing)
            score.wrong += [f"lost or twice: {score.lost}, {score.again}"] if score.lost or score.again else []
            score.plan = f"{len(cancelled)} of {TASKS} cancelled, timeout {redis['timeout']} s"
        finally:
            await setup.astore.close()
            stage.close()
        return score


async def talk(store: AsyncStore, client: Client, name: str) -> str | None:
    """Ask ten questions whose answer is known and push a job; what was wrong, nothing, or that the push is in doubt."""
    for n in range(10):
        words = f"{name}/{n}"
        try:
            answer = ops.text(await store.run(ops.command("ECHO", words)))
        except StoreError:
            continue
        if answer != words:
            return f"expected {words}, got {answer}"
    try:
        await client.apush({"class": Quick, "args": [0], "jid": name})
    except StoreError:
        return None
    return ""


class Forked(Served):
    """A program forks after it has pushed, by os.fork and by multiprocessing, while its threads push."""

    id, title, trials, block = "T27", "fork after the client was used, while threads push", 300, 25

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        stage = Stage(self.server(server), folder / "s")
        how = rng.choice(FORKS)
        score = Score(plan=how)
        try:
            if how == "in a job":
                stage.start("worker")
                stage.push_named("ForksInside", 3)
                stage.until(lambda: len(stage.ended()) >= 3, "the jobs that fork to end")
            else:
                process = stage.start("forking", options={"how": how})
                stage.until(lambda: not process.is_alive(), "the processes to end")
                if process.exitcode:
                    score.wrong.append(f"it ended with {process.exitcode}\n{stage.logs()}")
            self._judge(stage, score)
            if shared := stage.ledger.facts("shared"):
                score.wrong.append(f"{len(shared)} sockets are shared by two processes")
        except AssertionError as error:
            score.wrong.append(str(error))
        finally:
            stage.close()
        return score

    @staticmethod
    def _judge(stage: Stage, score: Score) -> None:
        accepted, maybe = set(stage.ledger.count(ACCEPTED)), set(stage.ledger.count(MAYBE))
        standing = Counter(jid for jids in stage.standing().values() for jid in jids)
        done = stage.ended()
        score.accepted = len(accepted)
        score.lost = sorted(accepted - standing.keys() - done)
        score.again = sum(standing.values()) - len(standing)
        if score.lost or score.again or maybe or not accepted:
            score.wrong.append(f"lost {score.lost}, there twice {score.again}, in doubt {maybe}, of {len(accepted)}")
