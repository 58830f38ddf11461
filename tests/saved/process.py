"""A program that saves compiled functions in a folder, or loads them and prints what their guards decide.

python -m tests.saved.process save|load FOLDER
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

from . import programs
from .saving import compiled, installed_package, loaded, package_of, saved


def ones(*sizes: int) -> torch.Tensor:
    return torch.ones(sizes)


def save(folder: Path) -> None:
    (folder / "static").write_bytes(saved(compiled(programs.branching, ones(8, 4), ones(8, 4), 3)))
    (folder / "dynamic").write_bytes(saved(compiled(programs.branching, ones(8, 4), ones(8, 4), 3, dynamic=True)))
    (folder / "scaled").write_bytes(saved(compiled(programs.scaled, ones(8, 4), 2)))
    package_of(programs.breaking, folder, (ones(8, 4), 3), (ones(8, 4).double(), 3))


@contextlib.contextmanager
def _factor(value: int) -> Iterator[None]:
    before, programs.FACTOR = programs.FACTOR, value
    try:
        yield
    finally:
        programs.FACTOR = before


def _changes() -> Iterator[tuple[tuple[Any, ...], contextlib.AbstractContextManager[Any]]]:
    """Arguments of a call, and what is entered around it."""
    yield (ones(8, 4), ones(8, 4), 3), contextlib.nullcontext()
    yield (ones(9, 4), ones(9, 4), 3), contextlib.nullcontext()
    yield (ones(3, 4), ones(3, 4), 3), contextlib.nullcontext()
    yield (ones(8, 4).double(), ones(8, 4), 3), contextlib.nullcontext()
    yield (ones(8, 4), ones(8, 4), 4), contextlib.nullcontext()
    yield (ones(8, 4), ones(8, 4), 3), torch.autocast("cpu")
    yield (ones(8, 4), ones(8, 4), 3), torch.no_grad()
    yield (ones(8, 4), ones(8, 4), 3), _factor(4)


def _answer(call: Callable[..., torch.Tensor], args: tuple[Any, ...]) -> float | str:
    try:
        return float(call(*args).sum())
    except RuntimeError as error:  # of torch's: no entry fits
        return str(error).splitlines()[0]


def answers(folder: Path) -> dict[str, list[Any]]:
    """What each call gives: a number, or the first line of torch's error."""
    found: dict[str, list[Any]] = {}
    for name, function in (
        ("static", programs.branching),
        ("dynamic", programs.branching),
        ("scaled", programs.scaled),
    ):
        made = loaded((folder / name).read_bytes(), function)
        found[name] = []
        for args, entered in _changes():
            given = (args[0], args[2] - 1) if name == "scaled" else args
            with entered:
                found[name].append(_answer(made, given))
    from torch._dynamo.package import DiskDynamoStore

    made = installed_package(DiskDynamoStore(str(folder)), programs.breaking)
    found["package"] = []
    for args, entered in _changes():
        with entered, torch.compiler.set_stance("fail_on_recompile"):
            found["package"].append(_answer(made, (args[0], args[2])))
    return found


def main() -> None:
    """Saves or loads, and says what was done natively."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    told = save(folder) if what == "save" else answers(folder)
    import unified_guards

    stats = unified_guards.stats()
    native = (stats.frames_lifted, stats.hits, stats.misses, stats.python_callbacks, stats.frames_left_to_torch)
    print(json.dumps([told, native]))


if __name__ == "__main__":
    main()
