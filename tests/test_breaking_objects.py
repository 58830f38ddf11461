"""Code of a user's that runs unasked: names of a class that compare themselves, getters written in C that ask."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from unified_guards.guards.ir import Test, guard

from .guards import attr, checker, equals
from .witness.building import CHECKOUT, Thing

Act = Callable[[], None]


def a_name(act: Act) -> str:
    """Looked up beside others of its hash."""

    class Name(str):
        def __hash__(self) -> int:
            return str.__hash__(self)

        def __eq__(self, other: object) -> bool:
            act()
            return False

    return Name("gain")


def a_class(act: Act) -> Any:
    return type("Kind", (), {a_name(act): 1})()


def a_metaclass(act: Act) -> Any:
    return type("Meta", (type,), {a_name(act): 1})("Kind", (), {})


def a_class_method(act: Act) -> Any:
    class Function:
        @property
        def __isabstractmethod__(self) -> bool:
            act()
            return False

    return classmethod(Function())  # type: ignore[arg-type]


def a_file(act: Act) -> Any:
    class Raw(io.RawIOBase):
        def readable(self) -> bool:
            return True

        @property
        def closed(self) -> bool:
            act()
            return False

    return io.BufferedReader(Raw())


WHAT: dict[str, tuple[Callable[[Act], Any], str, Any]] = {
    "class": (a_class, "gain", 2),
    "metaclass": (a_metaclass, "gain", 2),
    "class method": (a_class_method, "__isabstractmethod__", False),
    "file": (a_file, "closed", False),
}


def free_it(what: str, witness: bool) -> None:
    """The object that was asked is freed by the answer, and asked again."""
    armed, ran = [False], []

    def act() -> None:
        if armed[0]:
            armed[0] = False
            ran.append(1)
            holder.child = None
            gc.collect()

    make, name, value = WHAT[what]
    holder = Thing()
    child = attr("child")
    holder.child = make(act)
    made = checker(equals(attr(name, child), value), equals(attr("__doc__", child), None), witness=witness)
    for _ in range(5):
        holder.child = make(act)
        setattr(holder.child, name, value)
        type(holder.child).tick = 1  # what the interpreter has looked up before is of another version
        armed[0] = True
        made.check({"x": holder})
        armed[0] = False
    assert ran


@pytest.mark.parametrize("witness", [True, False], ids=["witness", "exact"])
@pytest.mark.parametrize("what", ["class", "metaclass"])
def test_what_a_lookup_frees_is_not_read(what: str, witness: bool) -> None:
    """In a process of its own, where what is freed is overwritten."""
    program = f"from tests import test_breaking_objects as t\nt.free_it({what!r}, {witness})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("what", ["class method", "file"])
@pytest.mark.parametrize("witness", [True, False], ids=["witness", "exact"])
def test_a_getter_that_asks_a_user_changes_what_was_read(what: str, witness: bool) -> None:
    """What the getter changed is compared again: the object is no longer where it was."""
    armed = [False]

    def act() -> None:
        if armed[0]:
            holder.child = None

    make, name, value = WHAT[what]
    holder = Thing()
    holder.child = make(act)
    kind = type(holder.child)
    is_of = guard(Test.TYPE_IS, (attr("child"),), (id(kind), kind.__name__))
    made = checker(equals(attr(name, attr("child")), value), is_of, witness=witness)
    assert all(made.check({"x": holder}) for _ in range(3))
    armed[0] = True
    assert not made.check({"x": holder})
