"""What people bring along from Sidekiq and other libraries: aliases that work, and verbs that say what to write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pillion
from pillion import setup as setups
from pillion import testing
from pillion.registry import default


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    with default.restored():
        yield


@pytest.mark.rule("client.inline")
def test_perform_sync_is_perform_inline() -> None:
    class VerbSync(pillion.Job):
        def perform(self, number: int) -> int:
            return number + 1

    @pillion.job
    def verb_sync(number: int) -> int:
        return number * 2

    assert VerbSync.perform_sync(1) == 2
    assert VerbSync.set(queue="other").perform_sync(2) == 3
    assert verb_sync.perform_sync(4) == 8


@pytest.mark.rule("client.delay")
@pytest.mark.parametrize("verb", ["delay", "delay_for", "delay_until", "apply_async", "send"])
def test_verbs_of_other_libraries_say_what_to_write(verb: str) -> None:
    class VerbOther(pillion.Job):
        def perform(self) -> None: ...

    @pillion.job
    def verb_other() -> None: ...

    for job in (VerbOther, verb_other, VerbOther.set(queue="x")):
        with pytest.raises(pillion.UsageError, match=r"perform_async\(\.\.\.\)"):
            getattr(job, verb)(1, countdown=3)


@pytest.mark.rule("client.queue_as")
def test_queue_as_changes_the_class_and_not_its_neighbours() -> None:
    class VerbBase(pillion.Job, queue="low"):
        def perform(self) -> None: ...

    class VerbChild(VerbBase): ...

    with testing.fake() as jobs:
        VerbChild.queue_as("critical")
        VerbChild.perform_async()
        VerbBase.perform_async()
        assert [job["queue"] for job in jobs] == ["critical", "low"]
    with pytest.raises(pillion.ConfigError, match="queue"):
        VerbChild.queue_as("no spaces, please")


def test_job_options_tell_what_applies_and_where_it_was_given() -> None:
    class VerbParent(pillion.Job, queue="low", tags=["a"]):
        def perform(self) -> None: ...

    class VerbSon(VerbParent, retry=3): ...

    options = VerbSon.job_options
    assert options["queue"].value == "low"
    assert options["queue"].source.startswith("VerbParent at ")
    assert options["retry"].value == 3
    assert options["retry"].source.startswith("VerbSon at ")
    assert "test_verbs.py" in str(options)
    VerbSon.queue_as("high")
    assert VerbSon.job_options["queue"] == ("high", "changed after the definition")

    @pillion.job(queue="mailers")
    def verb_mail() -> None: ...

    assert verb_mail.job_options["queue"].value == "mailers"
    assert verb_mail.job_options["retry"].value is True


@pytest.mark.rule("client.defaults")
def test_configured_defaults_are_merged_and_named() -> None:
    class VerbPlain(pillion.Job):
        def perform(self) -> None: ...

    before = setups.default._options
    try:
        pillion.configure(default_job_options={"retry": 7, "team": "blue"})
        assert VerbPlain.job_options["retry"] == (7, "code: pillion.configure")
        assert VerbPlain.job_options["team"].value == "blue"
        assert VerbPlain.job_options["queue"].value == "default"
        with testing.fake() as jobs:
            VerbPlain.perform_async()
            (job,) = jobs
            assert (job["retry"], job["team"], job["queue"]) == (7, "blue", "default")
    finally:
        setups.default._options = before
        setups.default._forget()


def test_job_itself_has_no_options() -> None:
    with pytest.raises(AttributeError, match="job class"):
        _ = pillion.Job.job_options
