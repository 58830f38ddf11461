"""What this version of Python tells of a change: every way to change what a check remembers must reach the next check.

How it is told differs from version to version (dict tags, dict watchers, the values of an instance that has no dict).
"""

from __future__ import annotations

import collections
import operator
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from unified_guards import _C
from unified_guards.guards.ir import Access, Test, guard

from .guards import X, checker, equals

#: So often that the interpreter has specialised the code that makes the change, and another object has the address.
ROUNDS = 60


class Holder:
    """Has a dict in the dict of its own."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Base:
    below = 1


class Plain(Base):
    """Its instances need no dict."""

    shared = 1

    def __init__(self) -> None:
        self.a = 1
        self.b = "b"


class Other(Plain):
    pass


def settle(made: _C.Checker, root: object) -> None:
    for _ in range(3):
        assert made.exact({"x": root})
        assert made.check({"x": root})


def expect(made: _C.Checker, root: object, change: Callable[[], object], restore: Callable[[], object]) -> None:
    """The check misses after each change, and holds again when that is undone."""
    for _ in range(ROUNDS):
        settle(made, root)
        change()
        assert not made.exact({"x": root})
        assert not made.check({"x": root})
        restore()


# ---- dicts --------------------------------------------------------------------------------------------------------


def of_instance() -> dict[str, Any]:
    """Shares its keys with the dicts of other instances."""
    return Plain().__dict__


def by_code(statement: str) -> Callable[[dict[str, Any]], None]:
    """As the globals of a function."""

    def change(found: dict[str, Any]) -> None:
        exec(statement, found)
        found.pop("__builtins__", None)

    return change


def cleared_and_refilled(found: dict[str, Any]) -> None:
    """An empty dict takes over the keys of another one as they are."""
    found.clear()
    found.update({"a": 2, "b": "b"})


def cleared_by_popitem(found: dict[str, Any]) -> None:
    while found:
        found.popitem()


DICT_CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "item": lambda found: operator.setitem(found, "a", 2),
    "new item": lambda found: operator.setitem(found, "c", 2),
    "del": lambda found: operator.delitem(found, "a"),
    "update": lambda found: found.update({"a": 2}),
    "update by name": lambda found: found.update(a=2),
    "update from pairs": lambda found: found.update([("a", 2)]),
    "|=": lambda found: found.__ior__({"a": 2}),
    "init": lambda found: dict.__init__(found, a=2),
    "pop": lambda found: found.pop("a"),
    "popitem": cleared_by_popitem,
    "setdefault": lambda found: found.setdefault("c", 2),
    "clear": lambda found: found.clear(),
    "clear and update": cleared_and_refilled,
    "a global": by_code("global a\na = 2"),
    "no global": by_code("global a\ndel a"),
}


def refill(found: dict[str, Any], content: dict[str, Any]) -> None:
    found.clear()
    found.update(content)


@pytest.mark.parametrize("change", DICT_CHANGES.values(), ids=DICT_CHANGES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": 1, "b": "b"},
        lambda: {3: 3, "a": 1, "b": "b"},
        of_instance,
        lambda: collections.OrderedDict(a=1, b="b"),
        lambda: collections.defaultdict(list, a=1, b="b"),
    ],
    ids=["names", "keys of any kind", "of an instance", "ordered", "default"],
)
def test_a_changed_dict(
    make: Callable[[], dict[str, Any]], change: Callable[[dict[str, Any]], object], request: pytest.FixtureRequest
) -> None:
    held = make()
    if type(held) is not dict and "global" in request.node.callspec.id:
        pytest.skip("globals are plain dicts")
    content, root = dict(held), Holder(held)
    source = X.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "held")
    made = checker(
        guard(Test.DICT_LENGTH, (source,), (len(held),)), equals(source.child(Access.DICT_ITEM, "a"), held["a"])
    )
    expect(made, root, lambda: change(held), lambda: refill(held, content))


@pytest.mark.parametrize("change", ["set", "delete", "add"])
def test_a_dict_changed_through_its_owner(change: str) -> None:
    owner: Any = Plain()
    held = owner.__dict__
    source = X.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "held")
    made = checker(guard(Test.DICT_LENGTH, (source,), (2,)), equals(source.child(Access.DICT_ITEM, "a"), 1))

    def changed() -> None:
        if change == "delete":
            del owner.a
        elif change == "set":
            owner.a = 2
        else:
            owner.z = 2

    expect(made, Holder(held), changed, lambda: refill(held, {"a": 1, "b": "b"}))


def test_a_dict_where_another_one_was() -> None:
    root = Holder({"a": 1})
    made = checker(equals(X.child(Access.ATTR, "held").child(Access.DICT_ITEM, "a"), 1))
    for _ in range(ROUNDS):
        settle(made, root)
        root.held = None
        root.held = {"a": 2}
        assert not made.check({"x": root})
        root.held = None
        root.held = {"a": 1}


def test_the_dict_of_an_instance_where_another_one_was() -> None:
    root = Plain()
    made = checker(equals(X.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "a"), 1))
    for _ in range(ROUNDS):
        settle(made, root)
        root.__dict__ = {}
        root.__dict__ = {"a": 2}
        assert not made.check({"x": root})
        root.__dict__ = {}
        root.__dict__ = {"a": 1}


def test_a_dict_of_another_class_where_the_dict_of_an_instance_was() -> None:
    class Dict(dict[str, int]):
        __slots__ = ()

    made = checker(guard(Test.TYPE_IS, (X.child(Access.GENERIC_DICT),), (id(dict), "dict")))
    root = Plain()
    for _ in range(ROUNDS):
        root.__dict__ = {}
        spare = [{} for _ in range(300)]  # type: ignore[var-annotated]
        settle(made, root)
        address = id(root.__dict__)
        del spare  # more than the interpreter keeps for the next dicts
        root.__dict__ = Dict()
        others = [Dict() for _ in range(300)]
        for other in others:
            if id(other) == address:
                root.__dict__ = other
        assert not made.exact({"x": root})
        assert not made.check({"x": root})


# ---- instances ----------------------------------------------------------------------------------------------------


def set_a(value: object) -> Callable[[Any], None]:
    def change(thing: Any) -> None:
        thing.a = value

    return change


def replace_dict(thing: Any) -> None:
    thing.__dict__ = {"a": 2, "b": "b"}


def through_dict(thing: Any) -> None:
    thing.__dict__["a"] = 2


def many_more(thing: Any) -> None:
    """More than the keys of its class have room for."""
    for i in range(40):
        setattr(thing, f"more{i}", i)
    thing.a = 2


INSTANCE_CHANGES: dict[str, Callable[[Any], object]] = {
    "attribute": set_a(2),
    "no attribute": lambda thing: delattr(thing, "a"),
    "object's own": lambda thing: object.__setattr__(thing, "a", 2),
    "another dict": replace_dict,
    "through its dict": through_dict,
    "vars": lambda thing: vars(thing).update(a=2),
    "many more": many_more,
    "no dict": lambda thing: delattr(thing, "__dict__"),
}


@pytest.mark.parametrize("change", INSTANCE_CHANGES.values(), ids=INSTANCE_CHANGES)
@pytest.mark.parametrize("has_dict", [False, True], ids=["inline", "dict"])
def test_a_changed_instance(change: Callable[[Any], object], has_dict: bool) -> None:
    made = checker(equals(X.child(Access.ATTR, "a"), 1), equals(X.child(Access.ATTR, "b"), "b"))
    for _ in range(ROUNDS):
        thing = Plain()
        if has_dict:
            assert thing.__dict__
        settle(made, thing)
        change(thing)
        assert not made.exact({"x": thing})
        assert not made.check({"x": thing})


@pytest.mark.parametrize("has_dict", [False, True], ids=["inline", "dict"])
def test_an_instance_that_changes_and_changes_back(has_dict: bool) -> None:
    made = checker(equals(X.child(Access.ATTR, "a"), 1))
    thing = Plain()
    if has_dict:
        assert thing.__dict__
    expect(made, thing, lambda: set_a(2)(thing), lambda: set_a(1)(thing))


def test_an_instance_whose_dict_is_made_and_dropped() -> None:
    """Python 3.12 takes a dict that nobody else has back into the instance."""
    made = checker(equals(X.child(Access.ATTR, "a"), 1))
    thing = Plain()

    def change() -> None:
        thing.__dict__["a"] = 2
        assert thing.a == 2

    def restore() -> None:
        thing.a = 1
        assert thing.__dict__["a"] == thing.a

    expect(made, thing, change, restore)


def test_an_absent_attribute_that_comes() -> None:
    made = checker(guard(Test.NO_ATTR, (X,), ("late",)))
    thing: Any = Plain()
    thing.late = 1
    del thing.late
    expect(made, thing, lambda: setattr(thing, "late", 1), lambda: delattr(thing, "late"))


def test_an_instance_of_another_class() -> None:
    made = checker(equals(X.child(Access.ATTR, "shared"), 1))
    thing = Plain()
    Other.shared = 2
    try:

        def set_class(kind: type) -> None:
            thing.__class__ = kind

        expect(made, thing, lambda: set_class(Other), lambda: set_class(Plain))
    finally:
        del Other.shared


# ---- classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_dict", [False, True], ids=["inline", "dict"])
@pytest.mark.parametrize(("owner", "name"), [(Plain, "shared"), (Base, "below")], ids=["its own", "of its base"])
def test_a_changed_class(owner: type, name: str, has_dict: bool) -> None:
    made = checker(equals(X.child(Access.ATTR, name), 1))
    thing = Plain()
    if has_dict:
        assert thing.__dict__
    expect(made, thing, lambda: setattr(owner, name, 2), lambda: setattr(owner, name, 1))


def test_the_dict_of_a_class() -> None:
    source = X.child(Access.TYPE).child(Access.TYPE_DICT).child(Access.DICT_ITEM, "shared")
    made = checker(equals(source, 1))
    expect(made, Plain(), lambda: setattr(Plain, "shared", 2), lambda: setattr(Plain, "shared", 1))


def test_a_class_with_other_bases() -> None:
    class First(Base):
        found = 1

    class Second(Base):
        found = 2

    class Derived(First):
        pass

    made = checker(equals(X.child(Access.ATTR, "found"), 1))
    expect(
        made,
        Derived(),
        lambda: setattr(Derived, "__bases__", (Second,)),
        lambda: setattr(Derived, "__bases__", (First,)),
    )


# ---- names that are found whatever object they are ----------------------------------------------------------------

MARKS = ["_dynamo_static_indices", "_dynamo_weak_dynamic_indices"]
FLAG = "_has_dynamo_dim_marking"


class Name(str):
    """A key that is no plain string."""


def another(name: str) -> str:
    """An equal string that is another object, and not interned."""
    return "".join(list(name))


def without_marks() -> _C.Checker:
    return checker(guard(Test.DIM_MARKING, (X,), ({"_dynamo_dynamic_indices": {0}}, MARKS, {})))


def without_a_name() -> _C.Checker:
    return checker(guard(Test.NO_ATTR, (X,), (MARKS[0],)))


def set_in_dict(make: Callable[[str], str]) -> Callable[[Any], None]:
    def add(thing: Any) -> None:
        thing.__dict__[make(MARKS[0])] = {0}

    return add


def set_among_many(thing: Any) -> None:
    for at in range(40):
        setattr(thing, f"many_{at}", at)
    setattr(thing, MARKS[0], {0})


def set_on_class(thing: Any) -> None:
    setattr(type(thing), MARKS[0], {0})


def set_on_base(thing: Any) -> None:
    setattr(type(thing).__mro__[1], MARKS[0], {0})


def given_a_getattr(thing: Any) -> None:
    type(thing).__getattr__ = lambda self, name: {0}


WAYS = {
    "interned": set_in_dict(str),
    "another object": set_in_dict(another),
    "a subclass of str": set_in_dict(Name),
    "set": lambda thing: setattr(thing, MARKS[0], {0}),
    "set by another string": lambda thing: setattr(thing, another(MARKS[0]), {0}),
    "among many": set_among_many,
    "on the class": set_on_class,
    "on its base": set_on_base,
    "by a __getattr__": given_a_getattr,
}


@pytest.mark.parametrize("has_dict", [False, True], ids=["inline", "dict"])
@pytest.mark.parametrize("make", [without_marks, without_a_name])
@pytest.mark.parametrize("way", WAYS)
def test_an_absent_name_that_comes(way: str, make: Callable[[], _C.Checker], has_dict: bool) -> None:
    class Below:
        pass

    class Marked(Below):
        def __init__(self) -> None:
            setattr(self, FLAG, True)

    made = make()
    for _ in range(3):
        thing = Marked()
        assert vars(thing) if has_dict else True
        assert made.exact({"x": thing})
        assert made.check({"x": thing})
    WAYS[way](thing)
    assert not made.exact({"x": thing})
    assert not made.check({"x": thing})


FLAG_COMES: dict[str, Callable[[Any], None]] = {
    "on the object": lambda thing: setattr(thing, FLAG, True),
    "in its dict": lambda thing: thing.__dict__.update({another(FLAG): True}),
    "on the class": lambda thing: setattr(type(thing), FLAG, True),
    "on its base": lambda thing: setattr(type(thing).__mro__[1], FLAG, True),
    "by a __getattr__": given_a_getattr,
}


@pytest.mark.parametrize("way", FLAG_COMES)
def test_a_flag_of_markings_that_comes(way: str) -> None:
    class Below:
        pass

    class Marked(Below):
        def __init__(self) -> None:
            setattr(self, MARKS[0], {0})

    made = without_marks()
    for _ in range(3):
        thing = Marked()
        assert made.exact({"x": thing})
        assert made.check({"x": thing})
    FLAG_COMES[way](thing)
    assert not made.exact({"x": thing})
    assert not made.check({"x": thing})


# ---- what is remembered at all ------------------------------------------------------------------------------------


@pytest.mark.skipif(not _C.DICT_SLOTS, reason="nothing is known of this version of Python")
@pytest.mark.skipif(not _C.TYPE_VERSIONS, reason="no version of a type is believed there")
@pytest.mark.parametrize("has_dict", [False, True], ids=["inline", "dict"])
def test_attributes_of_an_instance_are_remembered(has_dict: bool) -> None:
    if has_dict and not _C.dicts_are_versioned():
        pytest.skip("this Python does not tell of every change of a dict")
    made = checker(
        equals(X.child(Access.ATTR, "a"), 1),
        equals(X.child(Access.ATTR, "shared"), 1),
        guard(Test.NO_ATTR, (X,), ("absent",)),
    )
    thing: Any = Plain()
    thing.absent = 1
    del thing.absent
    if has_dict:
        assert thing.__dict__
    settle(made, thing)
    assert made.witness is not None and made.witness["facts"] > 0
    assert made.witness["live"] <= 1  # the root


def test_several_threads_may_be_the_first_to_ask() -> None:
    """Finding out what this Python tells runs Python, which lets other threads go on."""
    code = """
import sys, threading
from unified_guards import _C
sys.setswitchinterval(1e-6)
start = threading.Barrier(4)
def ask():
    start.wait()
    _C.dicts_are_versioned()
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not _C.TYPE_VERSIONS, reason="no version of a type is believed there")
def test_a_class_has_a_version_until_it_was_changed_too_often() -> None:
    class Changed:
        pass

    assert _C.has_version(Changed)
    for value in range(1_100):
        Changed.value = value
        vars(Changed), Changed().value
    assert _C.has_version(Changed) is (sys.version_info < (3, 13))
