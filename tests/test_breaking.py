"""What somebody found who did not write the code and set out to break it."""

from __future__ import annotations

import gc
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unified_guards.guards.ir import Access

from .guards import Y, attr, checker, equals, item, type_is
from .witness.building import Thing

CHECKOUT = Path(__file__).resolve().parents[1]
TIERS = pytest.mark.parametrize("witness", [True, False], ids=["witness", "exact"])


# -- bound methods -----------------------------------------------------------------------------------------------------


class Temporary:
    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def method(self) -> None: ...

    def __del__(self) -> None:
        self.act()


@TIERS
@pytest.mark.parametrize("name", ["method", "__str__", "__reduce_ex__"])
def test_what_a_bound_method_alone_holds_does_not_outlive_the_verdict(name: str, witness: bool) -> None:
    """Written in Python, a wrapper of a slot, and written in C: each dies without a trace, its object does not."""
    thing, armed = Thing(flag=True), [False]

    def act() -> None:
        if armed[0]:
            vars(thing).update(flag=False)

    class Owner:
        @property
        def made(self) -> object:
            return getattr(Temporary(act), name)

    shown = {"x": thing, "y": Owner()}
    made = checker(type_is(attr("made", Y), type(Owner().made)), equals(item("flag"), True), witness=witness)
    assert [made.check(shown) for _ in range(4)] == [True] * 4
    armed[0] = True
    assert not made.check(shown)


# -- a collection that starts within a guard ---------------------------------------------------------------------------


class Garbage:
    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.itself = act, self

    def __del__(self) -> None:
        self.act()


class Named:
    def method(self) -> None: ...


@TIERS
@pytest.mark.parametrize("what", ["method", "set"])
def test_a_guard_that_makes_an_object_starts_no_collection(what: str, witness: bool) -> None:
    """Up to Python 3.11 the finalizers of what is collected would run where nothing is held."""
    thing: Any = Thing(part=Named(), members={1})
    if what == "method":
        made = checker(type_is(attr("method", item("part")), types.MethodType), witness=witness)
    else:
        made = checker(equals(item("members").child(Access.SET_ITEM, 0), 1), witness=witness)
    ran: list[int] = []
    call, shown, before = made.callable(), {"x": thing}, gc.get_threshold()
    assert all(call(shown) for _ in range(4))
    gc.collect()
    gc.disable()
    try:
        Garbage(lambda: ran.append(1))
        gc.set_threshold(1)
        [Thing() for _ in range(4)]
        gc.enable()
        call(shown)
        gc.disable()
        assert not ran
    finally:
        gc.set_threshold(*before)
        gc.enable()
    gc.collect()
    assert ran


# -- greenlets ---------------------------------------------------------------------------------------------------------

SWITCHES = """
import greenlet, torch, unified_guards
from tests.guards import Y, attr, checker, equals
unified_guards.install()
main = greenlet.getcurrent()
@torch.compile(backend="eager")
def f(x): return x + 1
f(torch.ones(2))
class Owner:
    @property
    def value(self):
        if greenlet.getcurrent() is not main: main.switch()
        return 3
call, owner = checker(equals(attr("value", Y), 3)).callable(), Owner()
for _ in range(3): assert call({"y": owner})
def deep(n): return call({"y": owner}) if n == 0 else list(map(lambda _: deep(n - 1), [0]))[0]
greenlets = [greenlet.greenlet(lambda n=n: deep(n % 4)) for n in range(20)]
for one in greenlets: one.switch()
torch._dynamo.reset()
for one in greenlets[::2]: one.switch()
f(torch.ones(2))
torch._dynamo.reset()
for one in greenlets[1::2]: one.switch()
assert all(one.dead for one in greenlets)
f(torch.ones(2))
"""


def test_code_in_a_guard_may_switch_greenlets() -> None:
    """The stack of a check is copied away meanwhile, and that of another one is where it was."""
    pytest.importorskip("greenlet", reason="greenlets are what the test switches")
    done = subprocess.run(
        [sys.executable, "-c", SWITCHES], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
