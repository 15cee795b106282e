"""The table of names: who may take one, who has to give way, and that nothing which was replaced stays alive."""

from __future__ import annotations

import functools
import gc
import importlib
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pillion import registry
from pillion.errors import DefinitionError, UnknownJob
from pillion.job import Job, job
from pillion.registry import Definition, Place, Registry, definition_of
from pillion.running import RunningJob

DEFINITIONS = 10_000


@pytest.fixture(autouse=True)
def names_of_this_test_only() -> Iterator[None]:
    with registry.default.restored():
        yield


def entry(name: str, place: str = "app.py", *, kind: Any = "class", aliases: list[str] | None = None) -> Definition:
    """A definition that stands in the file `place`, under its own name."""
    where = Place(f"/src/{place}", name, f"/src/{place}:7")
    return Definition(name, object, kind=kind, place=where, aliases=aliases or [])


class Modules:
    """Source files that can be imported, changed and loaded again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._imported: list[str] = []

    def write(self, name: str, source: str) -> Path:
        path = self.folder / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return path

    def load(self, name: str) -> ModuleType:
        self._imported.append(name)
        return importlib.import_module(name)

    def forget(self) -> None:
        for name in self._imported:
            sys.modules.pop(name, None)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Modules(tmp_path)
    yield made
    made.forget()


def run_python(*args: str, stdin: str = "", cwd: Path) -> str:
    """A fresh interpreter's output, both streams."""
    done = subprocess.run(
        [sys.executable, *args], input=stdin, text=True, cwd=cwd, capture_output=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_a_name_and_an_alias_lead_to_the_definition() -> None:
    table = Registry()
    worker = entry("HardWorker", aliases=["OldWorker"])
    table.register(worker)

    assert table.get("HardWorker") is table.get("OldWorker") is worker
    assert table.get("Other") is None
    assert table.names() == ["HardWorker", "OldWorker"]
    assert list(table) == [worker]
    assert len(table) == 1
    assert "OldWorker" in table


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (entry("A", "one.py"), entry("A", "two.py"), "A"),
        (entry("A", "one.py", aliases=["Old"]), entry("Old", "two.py"), "Old"),
        (entry("Old", "one.py"), entry("A", "two.py", aliases=["Old"]), "Old"),
        (entry("A", "one.py", aliases=["Old"]), entry("B", "one.py", aliases=["Old"]), "Old"),
        (entry("A", "one.py", kind="function"), entry("A", "two.py"), "A"),
    ],
    ids=["name", "name meets alias", "alias meets name", "alias meets alias", "function meets class"],
)
def test_two_different_definitions_under_one_name_are_an_error_that_leaves_the_table_alone(
    first: Definition, second: Definition, name: str
) -> None:
    table = Registry()
    table.register(first)
    before = table.names()

    with pytest.raises(DefinitionError) as caught:
        table.register(second)

    message = str(caught.value)
    assert repr(name) in message
    assert first.where in message
    assert second.where in message
    assert "name=" in message
    assert table.names() == before
    assert set(table) == {first}


def test_the_error_shows_file_and_line_of_both_classes(modules: Modules) -> None:
    first = modules.write("billing", "import pillion\n\nclass Send(pillion.Job):\n    def perform(self): ...\n")
    source = "from pillion.job import job\n\n\n@job(name='Send')\ndef deliver(): ...\n"
    second = modules.write("mails", source)
    modules.load("billing")

    with pytest.raises(DefinitionError) as caught:
        modules.load("mails")

    assert f"Send at {first}:3" in str(caught.value)
    assert f"deliver at {second}:4" in str(caught.value)


def test_the_same_file_and_qualified_name_replace_the_entry() -> None:
    table = Registry()
    table.register(entry("A", aliases=["Old", "Older"]))
    again = entry("A", aliases=["Old"])
    table.register(again)

    assert list(table) == [again]
    assert table.names() == ["A", "Old"]


def test_registering_the_same_object_again_changes_nothing() -> None:
    table = Registry()
    one = entry("A", aliases=["Old"])
    table.register(one)
    table.register(one)
    assert table.names() == ["A", "Old"]


@pytest.mark.parametrize("order", ["stub first", "stub last"])
def test_a_stub_gives_way_to_a_real_definition_in_any_order(order: str) -> None:
    table = Registry()
    stub, real = entry("A", "client.py", kind="stub"), entry("A", "worker.py")
    for each in (stub, real) if order == "stub first" else (real, stub):
        table.register(each)
    assert list(table) == [real]


def test_a_stub_takes_no_alias_from_a_real_definition() -> None:
    table = Registry()
    real = entry("A", "worker.py", aliases=["Old"])
    table.register(real)
    table.register(entry("Old", "client.py", kind="stub", aliases=["Free"]))
    assert table.get("Old") is real
    assert table.get("Free") is not None


def test_two_stubs_of_one_name_are_no_contradiction() -> None:
    table = Registry()
    table.register(entry("Ruby", "one.py", kind="stub"))
    second = entry("Ruby", "two.py", kind="stub")
    table.register(second)
    assert list(table) == [second]


def test_a_class_without_perform_is_a_stub_and_one_with_it_replaces_it(modules: Modules) -> None:
    modules.write("client_side", "from pillion.job import Job\nclass Report(Job, queue='slow'): ...\n")
    modules.write("worker_side", "from pillion.job import Job\nclass Report(Job):\n    def perform(self): ...\n")
    stub = modules.load("client_side").Report
    assert registry.default.get("Report") is definition_of(stub)
    assert stub.__pillion__.kind == "stub"

    real = modules.load("worker_side").Report
    assert registry.default.get("Report") is definition_of(real)
    assert stub.__pillion__.options == {"queue": "slow"}


def test_a_stub_does_not_run() -> None:
    class Elsewhere(Job): ...

    stub = Elsewhere.__pillion__
    with pytest.raises(UnknownJob, match=r"Elsewhere is a client-only stub here \(.*test_registry.py:\d+\)"):
        stub.start(RunningJob.inline({"jid": "a", "queue": "default"}, stub))


def test_unknown_names_get_suggestions() -> None:
    table = Registry()
    table.register(entry("HardWorker"))
    assert table.suggest("HardWroker") == ["HardWorker"]
    assert "did you mean 'HardWorker'" in str(table.unknown("HardWroker"))
    assert "did you mean" not in str(table.unknown("Zzz"))
    assert len(str(table.unknown("x" * 100_000))) < 1_000


@pytest.mark.parametrize("name", ["", "a" * 257, "a\nb", "\x00", 5, b"a"])
def test_a_name_must_be_printable_and_of_sane_length(name: Any) -> None:
    with pytest.raises(DefinitionError, match="expected a name of 1 to 256 printable characters"):
        entry(name)
    with pytest.raises(DefinitionError, match="expected a name of 1 to 256 printable characters"):
        entry("A", aliases=[name])


def test_names_of_other_languages_and_of_ruby_modules_are_fine() -> None:
    for name in ("Billing::InvoiceJob", "Größe", "a" * 256):
        assert entry(name).name == name


# Defining again


@pytest.mark.parametrize("what", ["stub", "class", "function", "decorated function"])
def test_defining_again_and_again_in_a_handler_leaks_nothing(what: str) -> None:
    def stub() -> Any:
        class Handled(Job, queue="reports", tags=["a"], aliases=["Old"]): ...

        return Handled

    def with_perform() -> Any:
        class Handled(Job):
            def perform(self, a: int, b: str = "x") -> None: ...

        return Handled

    def function() -> Any:
        @job(queue="reports")
        def handled(a: int) -> None: ...

        return handled

    def decorated() -> Any:
        @job
        @functools.cache
        def handled(a: int) -> None: ...

        return handled

    define = {"stub": stub, "class": with_perform, "function": function, "decorated function": decorated}[what]
    seen = [weakref.ref(define()) for _ in range(50)]
    gc.collect()
    before = len(gc.get_objects())
    entries = len(registry.default)

    for _ in range(DEFINITIONS):
        define()

    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert len(registry.default) == entries
    assert [ref for ref in seen if ref() is not None] == []


def test_reloading_an_edited_module_replaces_its_jobs(modules: Modules) -> None:
    modules.write(
        "shop",
        """
        from pillion.job import Job, job

        class Ship(Job, queue="slow", aliases=["Send", "Post"]):
            def perform(self, order: int) -> None: ...

        @job
        def refund(order): ...
        """,
    )
    shop = modules.load("shop")
    old = registry.default.get("Ship")
    modules.write(
        "shop",
        """
        # edited: everything stands elsewhere now
        from pillion.job import Job, job

        @job(retry=0)
        async def refund(order): ...

        class Ship(Job, queue="fast", aliases=["Send"]):
            async def perform(self, order: int, gift: bool = False) -> None: ...
        """,
    )
    importlib.reload(shop)

    new = registry.default.get("Ship")
    assert new is not None
    assert new is not old
    assert new.target is shop.Ship
    assert new.options == {"queue": "fast"}
    assert new.is_async
    assert registry.default.get("Send") is new
    assert registry.default.get("Post") is None
    refund = registry.default.get("refund")
    assert refund is not None
    assert refund.handle is shop.refund
    assert refund.options == {"retry": 0}


def test_a_file_may_be_main_and_a_module_at_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
        from pillion import registry
        from pillion.job import Job, job

        class HardWorker(Job):
            def perform(self): ...

        @job
        def send(): ...

        if __name__ == "__main__":
            import app
            print(len(registry.default), registry.default.get("HardWorker").target is app.HardWorker)
        """)
    )
    assert run_python("app.py", cwd=tmp_path) == "2 True\n"
    assert run_python("-m", "app", cwd=tmp_path) == "2 True\n"


def test_a_symlinked_folder_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "app.py").write_text("from pillion.job import job\n@job\ndef send(): ...\n")
    code = "import sys, app; del sys.modules['app']; sys.path[0] = 'link'; import app; print(app.__file__)"
    assert run_python("-c", f"import sys; sys.path.insert(0, 'real'); {code}", cwd=tmp_path).endswith("link/app.py\n")


def test_a_job_may_be_defined_again_at_a_prompt(tmp_path: Path) -> None:
    session = """
from pillion import registry
from pillion.job import Job, job

class HardWorker(Job):
    def perform(self): ...

class HardWorker(Job, queue="second"):
    def perform(self): ...

@job
def send(): ...

@job(queue="again")
def send(): ...

print("jobs:", [(each.name, each.options, each.where) for each in registry.default])
"""
    out = run_python("-i", "-q", stdin=session, cwd=tmp_path)
    assert "jobs: [('HardWorker', {'queue': 'second'}, '<" in out
    assert "('send', {'queue': 'again'}, '<" in out
    assert "Error" not in out


def test_notebook_cells_are_one_source_whatever_their_file_names() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    cell = "from pillion.job import Job\nclass Cell(Job, queue='{0}'):\n    def perform(self): ...\n"
    for number in (1, 2):
        exec(compile(cell.format(number), f"/tmp/ipykernel_4711/{number}.py", "exec"), notebook)
    found = registry.default.get("Cell")
    assert found is not None
    assert found.options == {"queue": "2"}
    assert found.where == "/tmp/ipykernel_4711/2.py:2"


def test_code_from_strings_of_two_modules_is_not_one_source() -> None:
    code = "from pillion.job import job\n@job\ndef send(): ...\n"
    exec(compile(code, "<string>", "exec"), {"__name__": "plugin_a"})
    with pytest.raises(DefinitionError, match="two different ones"):
        exec(compile(code, "<string>", "exec"), {"__name__": "plugin_b"})


def test_a_slotted_dataclass_keeps_the_keywords_of_its_statement() -> None:
    @dataclass(slots=True)
    class Slotted(Job, name="Mod::Slotted", queue="q", aliases=["Old"]):
        def perform(self) -> None: ...

    found = registry.default.get("Mod::Slotted")
    assert found is not None
    assert found.target is Slotted
    assert found.options == {"queue": "q"}
    assert registry.default.get("Old") is found
    assert registry.default.get("Slotted") is None


def line_of(function: Callable[..., Any], text: str) -> int:
    """The line of this file on which `text` stands in `function`."""
    source = Path(__file__).read_text().splitlines()
    start = function.__code__.co_firstlineno
    return next(number for number, line in enumerate(source[start:], start + 1) if text in line)


def test_the_place_is_that_of_the_statement_whatever_helped_to_run_it() -> None:
    class Audited:
        def __init_subclass__(cls, **keywords: Any) -> None:
            super().__init_subclass__(**keywords)

    class Placed(Audited, Job):
        def perform(self) -> None: ...

    made = type("Made", (Job,), {"perform": lambda self: None})

    @functools.lru_cache
    def cached() -> None: ...

    here = test_the_place_is_that_of_the_statement_whatever_helped_to_run_it
    assert Placed.__pillion__.where == f"{__file__}:{line_of(here, 'class Placed')}"
    assert made.__pillion__.where == f"{__file__}:{line_of(here, 'made = type')}"
    assert job(cached).definition.where == f"{__file__}:{line_of(here, '@functools.lru_cache')}"


def test_threads_may_define_at_once() -> None:
    table = Registry()
    start = threading.Barrier(8)

    def define(number: int) -> None:
        start.wait()
        for i in range(200):
            table.register(entry(f"Own{number}_{i}", f"{number}.py"))
            table.register(entry("Shared", aliases=["Old"]))

    threads = [threading.Thread(target=define, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table) == 8 * 200 + 1
    assert table.get("Shared") is table.get("Old") is not None


def test_definition_of_knows_every_handle() -> None:
    class Handle(Job):
        def perform(self) -> None: ...

    @job
    def handle() -> None: ...

    assert definition_of(Handle) is Handle.__pillion__ is definition_of(Handle.__pillion__)
    assert definition_of(handle) is handle.definition
    assert definition_of(Job) is None
    assert definition_of("Handle") is None
    assert Handle.__pillion__.handle is Handle
    assert handle.definition.handle is handle


def test_restored_forgets_what_the_block_registered() -> None:
    table = Registry()
    kept = entry("Kept")
    table.register(kept)
    with table.restored():
        table.register(entry("Kept"))
        table.register(entry("New"))
    assert list(table) == [kept]
