"""Version tags of types and of dicts: cleared, used up, used again; and threads that change what another one checks."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import torch

from ...guards import attr, checker, equals
from ..protocol import Holder, Run, direct, program


def _scaled(x: Any, s: Any) -> Any:
    return x * s.scale


@program()
def cache_cleared(run: Run) -> None:
    class Kind:
        scale = 3

    s, x = Kind(), torch.ones(2)
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    for index in range(6):
        sys._clear_type_cache()
        Kind.scale = 4 + index
        for _ in range(2):
            run.step(lambda: compiled(x, s), lambda: _scaled(x, s), str(index))
        sys._clear_type_cache()
        Kind.scale = 3
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), f"{index} back")


@direct
def cache_cleared_under_a_checker(run: Run) -> None:
    class Kind:
        scale = 3

    s = Kind()
    made = checker(equals(attr("scale"), 3))
    for index in range(200):
        Kind.scale = 3 + index % 2
        if index % 3:
            sys._clear_type_cache()
        run.expect(made, {"x": s}, index % 2 == 0, str(index))


@direct
def thousands_of_versions(run: Run) -> None:
    """One class may use up only so many version tags; a class without any is live."""

    class Kind:
        scale = 3

    s = Kind()
    made = checker(equals(attr("scale"), 3))
    for index in range(6_000):
        Kind.scale = 4
        s.scale
        Kind.scale = 3
        s.scale
        if index % 500 == 0:
            for _ in range(3):
                run.expect(made, {"x": s}, True, str(index))
            Kind.scale = 5
            run.expect(made, {"x": s}, False, f"{index} changed")
            Kind.scale = 3
    Kind.scale = 4
    run.expect(made, {"x": s}, False, "at last")


@direct
def many_classes_use_versions(run: Run) -> None:
    class Kind:
        scale = 3

    s = Kind()
    made = checker(equals(attr("scale"), 3))
    for _ in range(4):
        run.expect(made, {"x": s}, True, "before")
    for index in range(3_000):
        type(f"K{index}", (), {"a": 1})().a
    Kind.scale = 4
    run.expect(made, {"x": s}, False, "after")


@direct
def dict_made_at_the_same_place(run: Run) -> None:
    """A dict of an object that is freed and made again with the same keys and other values."""
    gc.disable()
    shown = {"x": Holder()}
    shown["x"].scale = 3
    made = checker(equals(attr("scale"), 3))
    for index in range(60):
        for _ in range(3):
            run.expect(made, shown, shown["x"].scale == 3, str(index))
        shown["x"] = None
        shown["x"] = Holder()
        shown["x"].scale = 3 + index % 2
        run.expect(made, shown, shown["x"].scale == 3, f"{index} made again")


@program()
def keys_reordered(run: Run) -> None:
    """The same keys and values in another order; a key that leaves and comes back; growth over a resize."""

    def function(x: Any, table: Any) -> Any:
        for index, (key, value) in enumerate(table.items()):
            x = x * (value + index) + len(key)
        return x

    table, x = {"a": 1, "bb": 2}, torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, table))
    table["a"] = table.pop("a")
    run.step(lambda: compiled(x, table), lambda: function(x, table), "last now")
    table["bb"] = table.pop("bb")
    run.step(lambda: compiled(x, table), lambda: function(x, table), "as before")
    for index in range(40):
        table[f"more{index}"] = 1
    for index in range(40):
        del table[f"more{index}"]
    run.step(lambda: compiled(x, table), lambda: function(x, table), "grown and shrunk")
    table[1] = table.pop("a")
    run.step(lambda: compiled(x, {"a": 1, "bb": 3}), lambda: function(x, {"a": 1, "bb": 3}), "another dict")


@program()
def changed_by_another_thread(run: Run) -> None:
    class Kind:
        scale = 3

    s, x = Kind(), torch.ones(2)
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))

    def elsewhere(change: Any) -> None:
        other = threading.Thread(target=change)
        other.start()
        other.join()

    for name, change in (
        ("class", lambda: setattr(Kind, "scale", 4)),
        ("instance", lambda: setattr(s, "scale", 5)),
        ("dict", lambda: vars(s).update(scale=6)),
        ("deleted", lambda: delattr(s, "scale")),
        ("property", lambda: setattr(Kind, "scale", property(lambda self: 7))),
    ):
        elsewhere(change)
        for _ in range(4):
            run.step(lambda: compiled(x, s), lambda: _scaled(x, s), name)


@program()
def called_by_other_threads(run: Run) -> None:
    """Each thread sees its own answer; the state of one thread is not that of another."""
    x = torch.ones(2)
    compiled = run.compile(_scaled)
    kinds = [type(f"K{index}", (), {"scale": index + 2}) for index in range(4)]
    objects = [kind() for kind in kinds]
    for s in objects:
        run.warm(lambda s=s: compiled(x, s), 3)
    wrong: list[Any] = []

    def work(index: int) -> None:
        for turn in range(150):
            s = objects[(index + turn) % 4]
            got = compiled(x, s).tolist()
            if got != _scaled(x, s).tolist():
                wrong.append((index, turn, got))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    with run.uncounted():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    run.step(lambda: wrong[:3], list, "in three threads")
    for s in objects:
        run.step(lambda s=s: compiled(x, s), lambda s=s: _scaled(x, s), "after them")


@program()
def grad_mode_of_threads(run: Run) -> None:
    def function(x: Any) -> Any:
        return x * 2

    x = torch.ones(2, requires_grad=True)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    found: list[Any] = []

    def without() -> None:
        with torch.no_grad():
            found.append(compiled(x).requires_grad)
            found.append(compiled(x).requires_grad)

    thread = threading.Thread(target=without)
    thread.start()
    thread.join()
    run.step(lambda: found, lambda: [False, False], "without gradients there")
    run.step(lambda: compiled(x), lambda: function(x), "with them here")


@direct
def changes_while_checked(run: Run) -> None:
    """One thread changes values to ones that pass and to ones that do not; no check crashes, and the last is right."""
    shown = {"x": Holder()}
    holder = shown["x"]
    holder.scale, holder.values = 3, [1]
    made = checker(equals(attr("scale"), 3))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            holder.__dict__ = {"scale": 4, "values": [2]}
            holder.scale = 3
            del holder.scale
            Holder.scale = 3
            holder.scale = 3
            del Holder.scale

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(3_000):
        made.check(shown)
    stop.set()
    thread.join()
    run.expect(made, shown, True, "at rest")
    holder.scale = 4
    run.expect(made, shown, False, "changed")
