"""What people come for, done in a real browser: find a failure and retry it, act on many with a preview, pause and go
on, look where a job stands, and live through a Redis that goes away."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import pillion
from pillion import Client
from pillion.api import Queue, Stats
from tests.servers import Server
from tests.web.browser.conftest import OpenPage, Serve, soon
from tests.web.seeding import SMALL, seed
from tests.worker.harness import Harness

HOLD = threading.Event()


@pillion.job(name="Browser::Held")
def held(number: int) -> None:
    HOLD.wait(30)


@pytest.fixture
def shop(server: Server, site: str) -> str:
    seed(server.url, SMALL)
    return site


@pytest.fixture
def engine(server: Server) -> Iterator[Harness]:
    """A worker that can be started."""
    HOLD.clear()
    harness = Harness(server)
    yield harness
    HOLD.set()
    harness.close()


def test_a_failure_is_seen_and_retried(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(shop)
    dead = Stats(shown).read().dead_size
    tab.locator("#causes .cause", has_text="SMTPServerDisconnected").locator("a").first.click()
    tab.locator("tr", has_text="dead").locator("a[data-open]").first.click()
    assert "SMTPServerDisconnected" in tab.locator("main").inner_text()
    tab.get_by_role("button", name="Retry", exact=True).click()
    tab.get_by_text("Done. Jobs: 1.").wait_for()
    assert Stats(shown).read().dead_size == dead - 1


def test_many_are_deleted_after_a_preview_and_brought_back(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/dead")
    tab.get_by_text("All that match").click()
    tab.locator("details[open]").get_by_role("button", name="Delete").click()
    assert "160 jobs" in tab.locator("main").inner_text()
    assert Stats(shown).read().dead_size == 160
    tab.locator("input[name=confirm]").fill("160")
    tab.get_by_role("button", name="Delete").click()
    tab.get_by_text("Done. Jobs: 160.").wait_for()
    assert Stats(shown).read().dead_size == 0
    tab.get_by_role("button", name="Undo").click()
    tab.get_by_text("Undone. Jobs that are back: 160.").wait_for()
    assert Stats(shown).read().dead_size == 160


def test_a_queue_is_paused_and_goes_on(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/queues", phone=True)
    row = tab.locator("tr[data-id=webhooks]")
    row.get_by_role("button", name="Pause").click()
    tab.get_by_text("webhooks is paused").wait_for()
    assert Queue("webhooks", shown).is_paused()
    row.get_by_role("button", name="Resume").click()
    tab.get_by_text("webhooks goes on").wait_for()
    assert not Queue("webhooks", shown).is_paused()


def test_the_line_on_which_a_running_job_stands(
    server: Server, site: str, engine: Harness, open_page: OpenPage
) -> None:
    engine.start()
    engine.push("Browser::Held", 7)
    tab = open_page(f"{site}/running")
    tab.locator("tr[data-id]").get_by_role("button", name="Show stack").click()
    tab.get_by_text("HOLD.wait(30)").wait_for()
    assert "test_flows.py" in tab.locator("pre").inner_text()


def test_redis_goes_and_comes_back(own_server: Server, serve: Serve, open_page: OpenPage) -> None:
    from pillion.web import dashboard

    seed(own_server.url, SMALL)
    client = Client(own_server.url)
    address = serve(dashboard(client, auth=lambda _: "admin", requests_per_second=1_000))
    tab = open_page(address)
    tab.expected = ("503", "ERR_", "Failed to load")
    tab.locator("#live[data-state=on]").wait_for()
    own_server.kill()
    tab.locator("#live[data-state=again]").wait_for()
    gone = open_page(f"{address}/queues")
    gone.expected = ("503", "ERR_", "Failed to load")
    gone.get_by_role("heading", name="Redis does not answer").wait_for()
    own_server.restart()
    gone.get_by_role("heading", name="Queues").wait_for()
    tab.locator("#live[data-state=on]").wait_for()
    assert not tab.locator("body.stale").count()
    client.close()


# --- live, and under the hand ---------------------------------------------------------------------------------------


def test_figures_change_without_a_reload(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/queues")
    tab.evaluate("window.stays = 1")
    tab.locator("#live[data-state=on]").wait_for()
    tab.mouse.move(5, 5)
    for _ in range(3):
        shown.push({"class": "X", "args": [], "queue": "reports"})
    cell = tab.locator("tr[data-id=reports] td").nth(1)
    soon(lambda: cell.inner_text() == "3")
    assert tab.evaluate("window.stays") == 1


def test_a_list_keeps_still_while_somebody_works_in_it(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/queues/webhooks")
    tab.locator("#live[data-state=on]").wait_for()
    before = tab.locator("tr[data-id]").first.get_attribute("data-id")
    tab.locator("tr[data-id] .pick").first.check()
    shown.push({"class": "New", "args": [], "queue": "webhooks"})
    tab.locator(".pill").wait_for()
    assert tab.locator("tr[data-id]").first.get_attribute("data-id") == before
    assert tab.locator(".pick:checked").count() == 1
    tab.locator(".pill").click()
    tab.locator("tr[data-id]", has_text="New").wait_for()


def test_charts_are_drawn_and_survive_a_patch(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(shop)
    tab.locator("#plot-now canvas").wait_for()
    tab.locator("#live[data-state=on]").wait_for()
    shown.push({"class": "X", "args": [], "queue": "reports"})
    soon(lambda: tab.locator("#nav a", has_text="Queues").locator(".n").inner_text() != "0")
    tab.wait_for_timeout(2_500)
    assert tab.locator("#plot-now canvas").count() == 1
    box = tab.locator("#plot-now .u-over").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    tab.locator(".tipbox:visible").wait_for()


def test_keys(shop: str, open_page: OpenPage) -> None:
    tab = open_page(shop)
    tab.keyboard.press("g")
    tab.keyboard.press("d")
    tab.wait_for_url("**/dead")
    for _ in range(2):
        tab.keyboard.press("j")
    assert tab.locator("tr.at").count() == 1
    tab.keyboard.press("x")
    assert "1 selected" in tab.locator("[data-picked]").inner_text()
    tab.keyboard.press("?")
    assert tab.locator("dialog[open]").count() == 1
    tab.keyboard.press("Escape")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    tab.keyboard.type("state:dead class:ChargeCard")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/jobs?q=*")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/job/*")


def test_a_job_is_edited_and_run_again(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/dead?q=class:ChargeCard")
    tab.locator("a[data-open]").first.click()
    tab.get_by_text("Edit and run again").click()
    fields = tab.locator("[data-kind]")
    assert [fields.nth(i).get_attribute("data-kind") for i in range(3)] == ["int", "int", "str"]
    fields.nth(1).fill("90071992547409931")
    tab.get_by_role("button", name="Push the new job").click()
    tab.get_by_text("ChargeCard was pushed").wait_for()
    [job] = [job for job in Queue("critical", shown) if job.klass == "ChargeCard"]
    assert job.args[1] == 90071992547409931
    assert job.args[2] == "EUR"


def test_everything_works_without_script(shop: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/dead", script=False)
    tab.locator(".pick").first.check()
    tab.get_by_role("button", name="Retry", exact=True).first.click()
    tab.get_by_text("Done. Jobs: 1.").wait_for()
    assert Stats(shown).read().dead_size == 159
    assert tab.locator("svg.lines, svg.spark").count() == 0
    tab.goto(shop)
    assert tab.locator("#plot-now svg").count() == 1


def test_times_are_local_where_somebody_wants_that(shop: str, open_page: OpenPage) -> None:
    tab = open_page(f"{shop}/settings")
    tab.locator("select[name=zone]").select_option("local")
    tab.locator("select[name=theme]").select_option("dark")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_text("Saved.").wait_for()
    assert tab.evaluate("document.documentElement.dataset.zone") == "local"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 20)"
