"""Importing the user's app: a module by name, a file or folder by path, so that its jobs register themselves.

`worker`, `dev` and, where asked, `config` call `load`. A file is imported under the name by which the rest of the app
would import it (`shop/tasks.py` is `shop.tasks` where `shop` is a package, else `tasks`), so one job never gets two
definitions. A folder that is no package stands for the Python files in it. What fails is told in the user's terms: the
path that was tried and the closest file, or the traceback of their own code without ours around it.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType

from pillion.errors import ConfigError, UsageError

OURS = Path(__file__).parents[1]
MACHINERY = ("<frozen importlib", "importlib/__init__.py", "click/core.py")
SKIPPED_FOLDERS = {"node_modules", "site-packages", "venv", "env", "build", "dist", "__pycache__"}
MOST_FILES = 5_000


class AppError(UsageError):
    """The app could not be imported.

    Attributes:
        cures: what to do, one per line.
        shown: the traceback of the user's own code, if their code was reached.
    """

    def __init__(self, sentence: str, cures: Iterable[str] = (), shown: str = "") -> None:
        super().__init__(sentence)
        self.cures = tuple(cures)
        self.shown = shown


def load(targets: Sequence[str], cwd: Path) -> list[str]:
    """Import each target and return the modules' names. `cwd` is put first on `sys.path`.

    Raises:
        AppError: a target does not exist, or failed while it was imported.
        ConfigError: a target that can be neither a module's name nor a path.
    """
    _put_on_path(cwd)
    return [name for target in targets for name in _load_one(target, cwd)]


def _load_one(target: str, cwd: Path) -> list[str]:
    if _is_plain_folder(cwd / target):
        return _load_folder(target, cwd)
    if target.endswith(".py") or os.sep in target:
        return [_load_file(target, cwd)]
    if not all(part.isidentifier() for part in target.split(".")):
        name = target.partition(":")[0]
        cure = f"write {name}" if ":" in target else "write shop.tasks, or shop/tasks.py"
        raise ConfigError(f"app: expected a module's name or a path to a .py file, got {target!r}; {cure}")
    _import(target, target, cwd)
    return [target]


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not (path / "__init__.py").exists() and not Path(f"{path}.py").exists()


def _load_folder(target: str, cwd: Path) -> list[str]:
    """Import each Python file in a folder, by name; not those below it, nor those that a leading `_` calls private."""
    files = sorted(path for path in (cwd / target).glob("[!_.]*.py") if path.is_file())
    if not files:
        raise AppError(f"cannot import {target}: there are no Python files in {cwd / target}", _closest(target, cwd))
    return [_load_file(str(Path(target) / file.name), cwd) for file in files]


def _load_file(target: str, cwd: Path) -> str:
    path = (cwd / target).resolve()
    if path.is_dir() and (path / "__init__.py").is_file():
        path /= "__init__.py"
    if not path.is_file():
        raise AppError(f"cannot import {target}: there is no such file (tried {path})", _closest(target, cwd))
    root, name = _module_of(path)
    _put_on_path(root)
    _import(name, target, cwd)
    _insist_on_file(name, path, target)
    return name


def _module_of(path: Path) -> tuple[Path, str]:
    """The folder to import from, and the dotted name by which the app itself would import this file."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _insist_on_file(name: str, path: Path, target: str) -> None:
    """Another module may already own the name: a `queue.py` next to the standard library's."""
    found = getattr(sys.modules[name], "__file__", None)
    if found is None or not Path(found).exists() or not path.samefile(found):
        where = found or "Python itself"
        raise AppError(
            f"cannot import {target}: the name `{name}` already belongs to {where}",
            [f"rename {path.name}; a name such as my_{path.stem}.py is free"],
        )


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


# --- importing, and what can go wrong ---------------------------------------------------------------------------------


def _import(name: str, target: str, cwd: Path) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if _is_missing_itself(error, name):
            tried = ", ".join(str(place) for place in _tried(name, cwd))
            raise AppError(f"no module named `{name}` (tried {tried})", _closest(target, cwd)) from None
        raise _failed(target, error) from None
    except SystemExit as error:
        cure = 'put what must not run on import under `if __name__ == "__main__":`'
        raise AppError(f"{target} ended the program while it was imported (exit {error.code})", [cure]) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(target, error) from None


def _is_missing_itself(error: ModuleNotFoundError, name: str) -> bool:
    """Whether the target is what is missing, and not something that it imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))


def _tried(name: str, cwd: Path) -> Iterator[Path]:
    base = cwd.joinpath(*name.split("."))
    yield base.with_name(f"{base.name}.py")
    yield base / "__init__.py"


def _failed(target: str, error: BaseException) -> AppError:
    kind = type(error).__name__
    message = " ".join(str(error).split())
    sentence = f"importing {target} failed: {kind}: {message}" if message else f"importing {target} failed: {kind}"
    cures = [f"is {error.name} installed in {sys.prefix}?"] if isinstance(error, ModuleNotFoundError) else []
    return AppError(sentence, cures, shown=users_traceback(error))


def users_traceback(error: BaseException) -> str:
    """The traceback without the frames above and below the user's code."""
    for link in _chain(error):
        link.__traceback__ = _trimmed(link.__traceback__)
    return "".join(traceback.format_exception(error)).rstrip()


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        waiting += [current.__cause__, current.__context__]
        yield current


def _trimmed(trace: TracebackType | None) -> TracebackType | None:
    """The same traceback without import machinery and Pillion's own frames; tracebacks are linked lists."""
    kept = []
    while trace is not None:
        if not _is_ours(trace.tb_frame.f_code.co_filename):
            kept.append(trace)
        trace = trace.tb_next
    for outer, inner in zip(kept, [*kept[1:], None], strict=False):
        outer.tb_next = inner
    return kept[0] if kept else None


def is_users(error: BaseException) -> bool:
    """Whether what Pillion called last, on the way to this error, was code of the user and not a library."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [number for number, file in enumerate(files) if Path(file).is_relative_to(OURS)]
    after = files[ours[-1] + 1 :] if ours else files
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return bool(after) and not any(Path(after[0]).is_relative_to(folder) for folder in libraries)


def _is_ours(filename: str) -> bool:
    machinery = any(sign in filename for sign in MACHINERY)
    return machinery or (filename.endswith(".py") and Path(filename).is_relative_to(OURS))


# --- the closest file -------------------------------------------------------------------------------------------------


def _closest(target: str, cwd: Path) -> list[str]:
    """What the target was most likely meant to be, and what there is otherwise."""
    files = list(_python_files(cwd))
    names = {".".join(_module_of(cwd / file)[1].split(".")): file for file in files}
    wanted = target.removesuffix(".py").strip("./").replace(os.sep, ".")
    close = get_close_matches(wanted, names, n=1, cutoff=0.6) or _same_last_part(wanted, names)
    if close:
        return [f"did you mean `{close[0]}` ({names[close[0]]})?"]
    if not files:
        return [f"there are no Python files in {cwd}; change to the folder of your app first"]
    return ["name the module that defines your jobs, such as shop.tasks, or its path, such as shop/tasks.py"]


def _same_last_part(wanted: str, names: Iterable[str]) -> list[str]:
    last = wanted.rpartition(".")[2]
    return get_close_matches(last, [name for name in names if "." not in name], n=1, cutoff=0.6) or [
        name for name in names if name.rpartition(".")[2] == last
    ]


def _python_files(cwd: Path, depth: int = 4) -> Iterator[Path]:
    """Python files below `cwd`, from there; not in hidden folders, environments or too deep."""
    count = 0
    for folder, folders, files in os.walk(cwd):
        here = Path(folder).relative_to(cwd)
        folders[:] = [name for name in sorted(folders) if _is_worth_a_look(name)] if len(here.parts) < depth else []
        for name in sorted(files):
            count += 1
            if count > MOST_FILES:
                return
            if name.endswith(".py"):
                yield here / name


def _is_worth_a_look(folder: str) -> bool:
    return not folder.startswith(".") and folder not in SKIPPED_FOLDERS
