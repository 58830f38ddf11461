"""Code of the user's that a guard runs: what it changes is a miss, and what it frees is not read."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map

from unified_guards.guards.ir import Access, Guard, Test, guard
from unified_guards.lower.discriminators import program_of

from .guards import X, Y, attr, checker, equals, item, says_yes, tensor_like, without
from .witness.building import Thing, told

CHECKOUT = Path(__file__).resolve().parents[1]

Act = Callable[[], None]
#: What an object that runs code of the user's is made of that code, and the guard that makes it run.
Asker = Callable[[Act], tuple[object, Guard]]

PLACE = item("asker", Y)


def a_property(act: Act) -> tuple[object, Guard]:
    class Owner:
        @property
        def value(self) -> int:
            act()
            return 3

    return Owner(), equals(attr("value", PLACE), 3)


def a_getattr(act: Act) -> tuple[object, Guard]:
    class Owner:
        def __getattr__(self, name: str) -> object:
            act()
            raise AttributeError(name)

    return Owner(), without(PLACE, "extra")


def a_getattribute(act: Act) -> tuple[object, Guard]:
    class Owner:
        value = 3

        def __getattribute__(self, name: str) -> object:
            act()
            return object.__getattribute__(self, name)

    return Owner(), equals(attr("value", PLACE), 3)


class StrangeKey:
    """Has the hash of another key, and compares in Python."""

    def __init__(self, act: Act, like: object) -> None:
        self.act, self.like = act, like

    def __hash__(self) -> int:
        return hash(self.like)

    def __eq__(self, other: object) -> bool:
        self.act()
        return False


def a_name() -> str:
    """Not the object that a guard has, so that identity decides nothing."""
    return "".join(["k", "k"])


def an_eq_of_another_key(act: Act) -> tuple[object, Guard]:
    owner = {StrangeKey(act, "kk"): 1, a_name(): 2}
    return owner, equals(PLACE.child(Access.DICT_ITEM, "kk"), 2)


def an_eq_of_another_key_of_an_instance(act: Act) -> tuple[object, Guard]:
    owner = Thing()
    vars(owner)[StrangeKey(act, "kk")] = 1  # type: ignore[index]
    vars(owner)[a_name()] = 2
    return owner, equals(attr("kk", PLACE), 2)


def an_eq_of_a_key_that_is_not_there(act: Act) -> tuple[object, Guard]:
    return {StrangeKey(act, "kk"): 1}, guard(Test.DICT_CONTAINS, (PLACE,), ("kk", False))


def an_eq_of_a_member(act: Act) -> tuple[object, Guard]:
    return {StrangeKey(act, "kk")}, guard(Test.SET_CONTAINS, (PLACE,), ("kk", False))


def an_eq_of_the_value(act: Act) -> tuple[object, Guard]:
    class Value:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            act()
            return True

    return Value(), equals(PLACE, Value())


def an_eq_within_a_tuple(act: Act) -> tuple[object, Guard]:
    class Value:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            act()
            return True

    return (1, Value()), equals(PLACE, (1, Value()))


def a_len(act: Act) -> tuple[object, Guard]:
    class Sequence:
        def __len__(self) -> int:
            act()
            return 2

        def __getitem__(self, at: int) -> int:
            raise IndexError

    return Sequence(), guard(Test.LENGTH, (PLACE,), (2, False))


def a_len_of_a_list(act: Act) -> tuple[object, Guard]:
    class Items(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            act()
            return 2

    return Items([1, 2]), guard(Test.LENGTH, (PLACE,), (2, False))


def a_getitem(act: Act) -> tuple[object, Guard]:
    class Items(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: object) -> int:
            act()
            return 3

    return Items(), equals(PLACE.child(Access.ITEM, "key"), 3)


def an_iter(act: Act) -> tuple[object, Guard]:
    class Items(set):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            act()
            return iter((3,))

    return Items(), equals(PLACE.child(Access.SET_ITEM, 0), 3)


def keys_of_a_mapping(act: Act) -> tuple[object, Guard]:
    class Mapping(dict):  # type: ignore[type-arg]
        def keys(self) -> Any:
            act()
            return dict.keys(self)

    return Mapping(a=1), guard(Test.MAPPING_KEYS, (PLACE,), (["a"],))


def a_bool(act: Act) -> tuple[object, Guard]:
    class Answer:
        def __bool__(self) -> bool:
            act()
            return True

    return Thing(), guard(Test.PREDICATE, (PLACE,), (lambda value: Answer(), "an answer"))


def a_predicate(act: Act) -> tuple[object, Guard]:
    return Thing(), says_yes(PLACE, lambda value: act())


def a_finalizer(act: Act) -> tuple[object, Guard]:
    class Temporary:
        def __init__(self) -> None:
            self.value = 3

        def __del__(self) -> None:
            act()

    class Owner:
        @property
        def made(self) -> Temporary:
            return Temporary()

    return Owner(), equals(item("value", attr("made", PLACE)), 3)


def a_callback_of_a_weak_reference(act: Act) -> tuple[object, Guard]:
    class Owner:
        @property
        def made(self) -> Thing:
            made = Thing(value=3)
            self.reference = weakref.ref(made, lambda _: act())
            return made

    return Owner(), equals(item("value", attr("made", PLACE)), 3)


class Sized(torch.Tensor):
    """A wrapper that computes its sizes in Python."""

    act: Act

    @staticmethod
    def __new__(cls: type[Sized], act: Act) -> Sized:
        made = torch.Tensor._make_wrapper_subclass(cls, (2, 3), dispatch_sizes_strides_policy="sizes")  # type: ignore[attr-defined]
        made.act = act
        return made  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args[0].act()
        answers = {
            torch.ops.aten.dim.default: 2,
            torch.ops.aten.size.default: (2, 3),
            torch.ops.aten.sym_size.default: (2, 3),
            torch.ops.aten.stride.default: (3, 1),
            torch.ops.aten.sym_stride.default: (3, 1),
        }
        if func in answers:
            return answers[func]
        return func(*tree_map(lambda value: value, args), **(kwargs or {}))


def sizes_of_a_subclass(act: Act) -> tuple[object, Guard]:
    owner = Sized(lambda: None)
    made = tensor_like(PLACE, owner)
    owner.act = act
    return owner, made


ASKERS: tuple[Asker, ...] = (
    a_property,
    a_getattr,
    a_getattribute,
    an_eq_of_another_key,
    an_eq_of_another_key_of_an_instance,
    an_eq_of_a_key_that_is_not_there,
    an_eq_of_a_member,
    an_eq_of_the_value,
    an_eq_within_a_tuple,
    a_len,
    a_len_of_a_list,
    a_getitem,
    an_iter,
    keys_of_a_mapping,
    a_bool,
    a_predicate,
    a_finalizer,
    a_callback_of_a_weak_reference,
    sizes_of_a_subclass,
)
BY_NAME = {asker.__name__: asker for asker in ASKERS}
TIERS = pytest.mark.parametrize("witness", [True, False], ids=["witness", "exact"])
KINDS = pytest.mark.parametrize("asker", ASKERS, ids=lambda asker: str(asker.__name__))


class Part:
    """Has no say in what is read of it."""


def _changes() -> dict[str, tuple[Callable[[Any], list[Guard]], Callable[[Any], None], Callable[[Any], None]]]:
    """Guards on an object, a change that makes one of them fail, and the way back."""
    x = item("part")
    return {
        "entry of a dict": (
            lambda thing: [equals(item("flag", x), True)],
            lambda thing: vars(thing.part).update(flag=False),
            lambda thing: vars(thing.part).update(flag=True),
        ),
        "item of a list": (
            lambda thing: [equals(item("list").child(Access.LIST_ITEM, 0), 1)],
            lambda thing: thing.list.__setitem__(0, 2),
            lambda thing: thing.list.__setitem__(0, 1),
        ),
        "length of a list": (
            lambda thing: [guard(Test.LENGTH, (item("list"),), (1, False))],
            lambda thing: thing.list.append(2),
            lambda thing: thing.list.pop(),
        ),
        "class": (
            lambda thing: [guard(Test.TYPE_IS, (x,), (id(Thing), "Thing"))],
            lambda thing: setattr(thing.part, "__class__", Part),
            lambda thing: setattr(thing.part, "__class__", Thing),
        ),
        "tensor": (
            lambda thing: [tensor_like(item("tensor"), thing.tensor)],
            lambda thing: thing.tensor.unsqueeze_(0),
            lambda thing: thing.tensor.squeeze_(0),
        ),
    }


CHANGES = _changes()


class Situation:
    """Something guarded, and beside it an object whose guard runs code that acts when it is armed."""

    def __init__(self, asker: Asker, change: str, witness: bool, first: bool) -> None:
        guards, self.change, self.undo = CHANGES[change]
        self.armed = False
        self.thing: Any = Thing(part=Thing(flag=True), list=[1], tensor=torch.ones(2, 3))
        owner, asks = asker(self.act)
        self.shown = {"x": self.thing, "y": Thing(asker=owner)}
        others = guards(self.thing)
        self.checker = checker(*([asks, *others] if first else [*others, asks]), witness=witness)
        for _ in range(4):
            assert self.checker.check(self.shown)

    def act(self) -> None:
        if self.armed:
            self.armed = False
            self.change(self.thing)

    def check(self) -> bool:
        self.armed = True
        found = self.checker.check(self.shown)
        if self.armed:  # nothing ran: nothing has changed
            pytest.fail("the guard runs no code of the user's")
        return found


@TIERS
@KINDS
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("first", [True, False], ids=["runs before", "runs after"])
def test_what_it_changes_is_a_miss(asker: Asker, change: str, witness: bool, first: bool) -> None:
    situation = Situation(asker, change, witness, first)
    assert not situation.check()
    situation.undo(situation.thing)
    assert situation.checker.check(situation.shown)


@TIERS
@KINDS
def test_what_changes_nothing_stays_a_hit(asker: Asker, witness: bool) -> None:
    situation = Situation(asker, "entry of a dict", witness, first=False)
    assert all(situation.checker.check(situation.shown) for _ in range(5))
    if witness:
        assert told(situation.checker, "held") > 3


def free_what_is_read_next(name: str, witness: bool) -> None:
    junk: list[object] = []
    armed = [False]

    def act() -> None:
        if not armed[0]:
            return
        armed[0] = False
        for holder in holders:
            vars(holder).clear()
        gc.collect()
        junk.extend(bytearray(b"\x41" * size) for size in range(16, 256, 8) for _ in range(100))
        junk.extend(torch.ones(4, 4).to_sparse() for _ in range(4))

    owner, asks = BY_NAME[name](act)
    thing: Any = Thing()
    holder: Any = Thing(asker=owner)
    holders = [thing, holder]
    del owner
    made = checker(
        asks,
        equals(item("flag", item("part")), True),
        equals(attr("flag", item("part")), True),
        tensor_like(item("tensor", item("part")), torch.ones(2)),
        guard(Test.LENGTH, (item("list", item("part")),), (1, False)),
        witness=witness,
    )
    shown = {"x": thing, "y": holder}
    thing.part = Thing(flag=True, tensor=torch.ones(2), list=[1])
    for _ in range(4):
        assert made.check(shown)
    armed[0] = True
    assert not made.check(shown)
    assert not armed[0]


@TIERS
def test_what_it_frees_is_not_read(witness: bool) -> None:
    """In a process of its own for all of them, which a read of freed memory may end."""
    program = (
        "from tests import test_user_code as t\n"
        f"for name in t.BY_NAME:\n    print(name, flush=True)\n    t.free_what_is_read_next(name, {witness})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"at {done.stdout.split()[-1:]}: {done.stderr[-2000:]}"
    assert done.stdout.split() == list(BY_NAME)


def test_a_telling_guard_runs_no_code() -> None:
    """A guard that tells entries apart is asked before all others, where nothing is held."""
    ran: list[int] = []
    owner = {StrangeKey(lambda: ran.append(1), "kk"): 1, a_name(): 2}
    made = checker(equals(X.child(Access.DICT_ITEM, "kk"), 2))
    ran.clear()
    assert made.check({"x": owner})
    by_the_program = len(ran)
    made.ask_first(program_of(equals(X.child(Access.DICT_ITEM, "kk"), 3)).rows, 100)
    ran.clear()
    assert made.check({"x": owner})
    assert len(ran) == by_the_program
