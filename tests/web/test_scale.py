"""Pages do not become heavier with what stands in Redis: as many questions, and pages of the same size.

Times are measured by hand (`python -m tests.web.seeding URL --queued 2000000`); what makes them grow is held here."""

from __future__ import annotations

from pillion import Client
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.seeding import SMALL, Scale, seed
from tests.web.shop import PAGES
from tests.web.visitor import Visitor

LARGE = Scale(
    queued=12_000, scheduled=4_000, retries=1_000, dead=3_000, queues=150, processes=120, busy=900, hours=1, days=40
)
MOST_BYTES = 160_000
MOST_SCRIPTS = 60


def scripts(server: Server, visitor: Visitor, path: str) -> tuple[int, int]:
    """How many scripts a page ran, and its size."""
    redis = server.client()
    redis.config_resetstat()
    response = visitor.get(path)
    assert response.status == 200, path
    calls = redis.info("commandstats")
    return sum(calls.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval")), len(response.body)


def test_a_page_asks_no_more_where_more_stands(server: Server, visit: Visit, client: Client) -> None:
    seed(server.url, SMALL)
    visitor = visit()
    few = {path: (visitor.get(path), scripts(server, visitor, path)[0])[1] for path in PAGES}
    server.reset()
    seed(server.url, LARGE)
    for path in PAGES:
        visitor.get(path)
        count, size = scripts(server, visitor, path)
        assert 0 < count <= max(few[path] + 20, MOST_SCRIPTS), (path, count, few[path])
        assert size <= MOST_BYTES, (path, size)
