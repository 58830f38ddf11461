"""Dicts of which one entry changes on every call: facts are on the entries that guards read, and on nothing else."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unified_guards import _C
from unified_guards.dynamo import attribute_getters
from unified_guards.guards.ir import Access, Guard, Source, Test, guard

from ..guards import X, attr, checker, equals, item, tensor_like, without
from .building import CHECKOUT, NEEDS_VERSIONS, Thing, holds, recorded, told

NEEDS_TABLES = pytest.mark.skipif(not _C.DICT_TABLES, reason="how dicts lie in memory is not known there")

#: What changes on every call; no guard asks for it.
COUNTER = "calls"


class Shared:
    """Its instances share a table of keys, from Python 3.11 on."""


class Large:
    """Its instances have more attributes than a shared table has room for."""


def shared() -> Any:
    one = Shared()
    one.flag, one.scale, one.calls, one.part = True, 1.5, 0, Thing(deep=True)  # type: ignore[attr-defined]
    return one


def large() -> Any:
    one = Large()
    for at in range(60):
        setattr(one, f"other{at}", at)
    one.flag, one.scale, one.calls, one.part = True, 1.5, 0, Thing(deep=True)  # type: ignore[attr-defined]
    return one


MAKERS = {"shared": shared, "large": large}


def count(entries: dict[str, Any]) -> None:
    entries[COUNTER] = entries.get(COUNTER, 0) + 1


def kinds(made: _C.Checker) -> set[str]:
    return set(told(made, "fact_kinds"))


def moving(made: _C.Checker, shown: dict[str, Any], entries: dict[str, Any]) -> _C.Checker:
    """The checker after the checks that it takes to find that the dict changes between any two."""
    recorded(made, shown)
    for _ in range(6):
        count(entries)
        assert holds(made, shown)
    return made


def passes_by_facts(made: _C.Checker, shown: dict[str, Any], entries: dict[str, Any], times: int = 5) -> bool:
    """Whether checks hold by facts of which none moves, while the dict changes."""
    before, held, moved = made.witness, told(made, "held"), _C.moved_facts()
    assert before is not None
    for _ in range(times):
        count(entries)
        assert made.check(shown)
    names = ("recorded", "repaired", "facts")
    same = all(told(made, name) == before[name] for name in names)
    return same and told(made, "held") == held + times and _C.moved_facts() == moved


# -- what it costs -----------------------------------------------------------------------------------------------------


@NEEDS_TABLES
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("read", [attr, item], ids=["getattr", "by the dict"])
def test_a_counter_on_an_object_moves_no_fact(make: Callable[[], Any], read: Callable[..., Source]) -> None:
    one = make()
    made = moving(checker(equals(read("flag"), True), equals(attr("deep", read("part")), True)), {"x": one}, vars(one))
    assert passes_by_facts(made, {"x": one}, vars(one))
    assert {"dict table", "dict entry"} <= kinds(made)


@NEEDS_TABLES
def test_a_counter_on_a_module_moves_no_fact() -> None:
    net: Any = torch.nn.Linear(2, 2)
    net.calls = 0
    attribute_getters.learn([net])
    weight = item("_parameters").child(Access.DICT_ITEM, "weight")
    guards = equals(item("training"), True), tensor_like(weight, net.weight), without(X, "hook")
    made = moving(checker(*guards), {"x": net}, vars(net))
    assert passes_by_facts(made, {"x": net}, vars(net))
    net.hook = 1
    assert not holds(made, {"x": net})


@NEEDS_TABLES
def test_a_global_that_is_counted_up_moves_no_fact() -> None:
    scope: dict[str, Any] = {"number": 3, COUNTER: 0, "thing": Thing(flag=True)}
    globals_of = Source.frame().child(Access.GLOBALS, scope)
    guards = (
        equals(globals_of.child(Access.DICT_ITEM, "number"), 3),
        equals(item("flag", globals_of.child(Access.DICT_ITEM, "thing")), True),
        guard(Test.DICT_CONTAINS, (globals_of,), ("absent", False)),
    )
    made = moving(checker(*guards), {}, scope)
    assert passes_by_facts(made, {}, scope)
    scope["absent"] = 1
    assert not holds(made, {})


@NEEDS_TABLES
def test_a_counter_of_one_part_costs_the_others_nothing() -> None:
    parts = [Thing(flag=True, calls=0) for _ in range(40)]
    thing: Any = Thing(**{f"part{i}": part for i, part in enumerate(parts)})
    made = checker(*(equals(item("flag", item(f"part{i}")), True) for i in range(40)))
    moving(made, {"x": thing}, vars(parts[7]))
    assert passes_by_facts(made, {"x": thing}, vars(parts[7]))
    assert told(made, "fact_kinds").count("dict version") == 40  # of the thing, and of the 39 others


@NEEDS_TABLES
def test_the_items_of_a_dict_with_attributes_are_no_entries_of_its_instance_dict() -> None:
    class Config(dict):  # type: ignore[type-arg]
        pass

    config: Any = Config(flag=True)
    config.scale = 1.5
    shown = {"x": Thing(config=config)}
    found = item("config")
    made = checker(equals(attr("scale", found), 1.5), equals(found.child(Access.DICT_ITEM, "flag"), True))
    moving(made, shown, vars(config))
    assert told(made, "fact_kinds").count("dict entry") == 2  # key and value of one
    config["flag"] = False
    assert not holds(made, shown)


@NEEDS_VERSIONS
def test_a_dict_that_changes_now_and_then_is_believed_by_its_version() -> None:
    one = shared()
    made = recorded(checker(equals(item("flag"), True)), {"x": one})
    for _ in range(20):
        for _ in range(2):
            count(vars(one))
            assert holds(made, {"x": one})
        assert holds(made, {"x": one})
    assert "dict version" in kinds(made)
    assert "dict table" not in kinds(made)


@NEEDS_TABLES
def test_what_is_known_of_one_root_serves_the_next() -> None:
    made = checker(equals(item("flag"), True))
    first, second = shared(), shared()
    moving(made, {"x": first}, vars(first))
    recorded(made, {"x": second})
    assert passes_by_facts(made, {"x": second}, vars(second))


LOOPS = """
    import torch, unified_guards as ug

    def f(x):
        return torch.relu(x) + SCALE

    SCALE = 1
    ug.install()
    compiled = torch.compile(f, backend="eager")

    def counts():
        now = ug.stats()
        return now.checks, now.witness_held + now.witness_repaired

    def loop():
        for step in range(40):
            last = compiled(torch.ones(3))

    loop()
    before = counts()
    loop()
    within = counts()
    for step in range(40):
        last = compiled(torch.ones(3))
    after = counts()
    print(*(b - a for a, b in zip(before, within)), *(b - a for a, b in zip(within, after)))
"""


@NEEDS_TABLES
def test_a_loop_at_the_level_of_a_module_passes_by_facts_as_one_in_a_function_does() -> None:
    run = [sys.executable, "-c", textwrap.dedent(LOOPS)]
    found = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    checks, held, checks_of_module, held_of_module = map(int, found.stdout.split())
    assert checks == checks_of_module == 40
    assert held == 40
    assert held_of_module >= held - 2  # that the dict moves is found in the first three


# -- what is noticed ---------------------------------------------------------------------------------------------------


class Name(str):
    """A key that is no exact string, and equal to one."""

    __slots__ = ()


def spelt(name: str) -> str:
    """An equal string that is another object."""
    return "".join(list(name))


def refilled(entries: dict[str, Any], **others: Any) -> None:
    """Another table of as many keys in the same order."""
    before = dict(entries)
    entries.clear()
    entries.update(before | others)


def emptied_from_the_end(entries: dict[str, Any], then: dict[str, Any]) -> None:
    """The same table, in which the entries are used again for others."""
    while entries:
        entries.popitem()
    for name, value in then.items():
        entries[name] = value


def grown(entries: dict[str, Any]) -> None:
    for at in range(300):
        entries[f"grown{at}"] = at
    for at in range(300):
        del entries[f"grown{at}"]


def general(entries: Any) -> None:
    """From here on the table has keys of any kind."""
    entries[7] = 7
    del entries[7]


def moved_to_the_end(entries: dict[str, Any], name: str, value: Any) -> None:
    del entries[name]
    entries[name] = value


# Each is done to a dict that has "flag" (True), "scale" (1.5) and "part", and leaves another flag, or none.
NOTICED: dict[str, Callable[[dict[str, Any]], object]] = {
    "another value": lambda d: d.update(flag=False),
    "an equal value of another type": lambda d: d.update(flag=1),
    "deleted": lambda d: d.pop("flag"),
    "deleted and put back as another": lambda d: moved_to_the_end(d, "flag", False),
    "an equal key that is another object": lambda d: (d.pop("flag"), d.update({spelt("flag"): False})),
    "an equal key of a subclass": lambda d: (d.pop("flag"), d.update({Name("flag"): False})),
    "cleared": lambda d: d.clear(),
    "refilled": lambda d: refilled(d, flag=False),
    "another name in its entry": lambda d: emptied_from_the_end(d, {"other": True, "scale": 1.5}),
    "entries in another order": lambda d: emptied_from_the_end(d, dict(reversed((d | {"flag": False}).items()))),
    "grown and then another value": lambda d: (grown(d), d.update(flag=False)),
    "a table of any keys and then another value": lambda d: (general(d), d.update(flag=False)),
}
#: Each leaves what the dict maps as it is.
UNNOTICED: dict[str, Callable[[dict[str, Any]], object]] = {
    "refilled": refilled,
    "grown": grown,
    "a table of any keys": general,
    "deleted and put back": lambda d: moved_to_the_end(d, "flag", d["flag"]),
    "an equal key that is another object": lambda d: (d.pop("flag"), d.update({spelt("flag"): True})),
    "another order": lambda d: emptied_from_the_end(d, dict(reversed(d.items()))),
}


def a_dict() -> tuple[Any, dict[str, Any], Source]:
    entries = {"flag": True, "scale": 1.5, COUNTER: 0, "part": Thing(deep=True)}
    return Thing(entries=entries), entries, item("entries")


def entry(name: str, source: Source) -> Source:
    return source.child(Access.DICT_ITEM, name)


Subject = tuple[dict[str, Any], dict[str, Any], Callable[[str], Source], Source]


@pytest.fixture(params=["a dict", *MAKERS])
def subject(request: pytest.FixtureRequest) -> Subject:
    """What is shown, the dict in it, how an entry of it is read, and where the dict is."""
    if request.param == "a dict":
        thing, entries, source = a_dict()
        return {"x": thing}, entries, lambda name: entry(name, source), source
    one = MAKERS[request.param]()
    return {"x": one}, vars(one), attr, X.child(Access.GENERIC_DICT)


@pytest.mark.parametrize("name", NOTICED)
def test_a_change_of_an_entry_is_noticed(name: str, subject: Subject) -> None:
    shown, entries, read, _ = subject
    made = moving(checker(equals(read("flag"), True)), shown, entries)
    NOTICED[name](entries)
    assert not holds(made, shown)
    entries.pop("flag", None)
    entries["flag"] = True
    for _ in range(6):
        count(entries)
        assert holds(made, shown)
    entries["flag"] = False
    assert not holds(made, shown)


@pytest.mark.parametrize("name", UNNOTICED)
def test_a_change_that_leaves_an_entry_is_no_miss(name: str, subject: Subject) -> None:
    shown, entries, read, _ = subject
    made = moving(checker(equals(read("flag"), True)), shown, entries)
    for _ in range(3):
        UNNOTICED[name](entries)
        assert holds(made, shown)
        count(entries)
        assert holds(made, shown)
    entries["flag"] = False
    assert not holds(made, shown)


def test_another_number_at_the_same_address_is_noticed(subject: Subject) -> None:
    shown, entries, read, _ = subject
    made = moving(checker(equals(read("scale"), 1.5)), shown, entries)
    for step in range(20):
        entries["scale"] = 0
        entries["scale"] = float(step)
        assert not holds(made, shown)


def test_another_object_at_the_same_address_is_noticed(subject: Subject) -> None:
    shown, entries, read, _ = subject
    made = moving(checker(equals(item("deep", read("part")), True)), shown, entries)
    again = 0
    for _ in range(50):
        where = id(entries["part"])
        entries["part"] = None
        entries["part"] = Thing(deep=False)
        again += id(entries["part"]) == where
        assert not holds(made, shown)
    assert again, "the allocator never gave out the same memory"


def test_another_dict_at_the_same_address_is_noticed(subject: Subject) -> None:
    """Its type is compared, too: an entry may hold a list where the dict was, or a dict of a subclass."""
    shown, entries, read, _ = subject
    entries["part"] = {"deep": True}
    made = moving(checker(equals(entry("deep", read("part")), True)), shown, entries)
    again = 0
    makers: list[Callable[[], Any]] = [lambda: {"deep": False}, list, lambda: {"deep": 1}, dict]
    for step in range(80):
        where = id(entries["part"])
        entries["part"] = None
        entries["part"] = makers[step % 4]()
        again += id(entries["part"]) == where
        assert not holds(made, shown)
    assert again, "the allocator never gave out the same memory"


@NEEDS_TABLES
def test_the_type_of_a_dict_in_an_entry_comes_before_its_version() -> None:
    """What holds the entry is not believed by its version, so there may be something else at its address."""
    thing, entries, source = a_dict()
    entries["part"] = {"deep": True}
    made = moving(checker(equals(entry("deep", entry("part", source)), True)), {"x": thing}, entries)
    found = told(made, "fact_kinds")
    assert found[found.index("dict entry") :] == ["dict entry", "dict entry", "type", "dict version"]


def test_another_instance_dict_at_the_same_address_is_noticed() -> None:
    """Both have the keys that instances share, and each has values of its own."""
    one = shared()
    made = moving(checker(equals(attr("flag"), True)), {"x": one}, vars(one))
    again = 0
    for _ in range(20):
        where = id(vars(one))
        one.__dict__ = {}
        others = [shared() for _ in range(3)]
        for other in others:
            other.flag = False
        dicts = [vars(other) for other in others]
        same = [found for found in dicts if id(found) == where]
        again += len(same)
        one.__dict__ = (same or dicts)[0]
        del others, dicts, same
        assert not holds(made, {"x": one})
        one.flag = True
        for _ in range(5):
            count(vars(one))
            assert holds(made, {"x": one})
    assert again, "the allocator never gave out the same memory"


def test_a_table_that_is_freed_and_made_again_is_noticed(subject: Subject) -> None:
    """Tables of one size take each other's places in memory."""
    shown, entries, read, _ = subject
    made = moving(checker(equals(read("flag"), True), without(X, "absent")), shown, entries)
    before = dict(entries)
    for step in range(60):
        entries.clear()
        kept = [dict.fromkeys(before, False) for _ in range(step % 3)]
        entries.update(before)
        assert holds(made, shown)
        entries.clear()
        del kept
        entries.update({name: value for name, value in before.items() if name != "flag"} | {"flog": True})
        assert not holds(made, shown)


# -- names that are not there ------------------------------------------------------------------------------------------


class Hiding:
    """What its class has, an instance may hide."""

    flag = True


@NEEDS_TABLES
def test_an_attribute_of_the_class_is_read_while_the_instance_has_none() -> None:
    one: Any = Hiding()
    one.calls = 0
    made = moving(checker(equals(attr("flag"), True)), {"x": one}, vars(one))
    assert passes_by_facts(made, {"x": one}, vars(one))
    assert "dict search" in kinds(made)
    one.flag = False
    assert not holds(made, {"x": one})
    del one.flag
    assert holds(made, {"x": one})


@pytest.mark.parametrize("spell", [str, spelt, Name], ids=["the name", "an equal string", "a subclass"])
@pytest.mark.parametrize(
    "before",
    [lambda d: None, lambda d: emptied_from_the_end(d, {}), lambda d: d.clear(), grown, general],
    ids=["added", "in a freed entry", "in another table", "in a grown table", "among any keys"],
)
def test_a_name_that_comes_is_noticed(
    before: Callable[[dict[str, Any]], object], spell: Callable[[str], str], subject: Subject
) -> None:
    shown, entries, _, source = subject
    asked = guard(Test.DICT_CONTAINS, (source,), ("absent", False))
    made = moving(checker(asked), shown, entries)
    before(entries)
    entries[spell("absent")] = 1
    assert not holds(made, shown)
    del entries["absent"]
    for _ in range(4):
        count(entries)
        assert holds(made, shown)


def test_among_many_names_each_that_comes_is_noticed() -> None:
    """Searches go by many entries in a table that is nearly full."""
    thing, entries, source = a_dict()
    for size in (4, 9, 40, 85, 170, 400):
        for at in range(size):
            entries[f"filled{at}"] = at
        absent = [f"absent{at}" for at in range(12)]
        asked: list[Guard] = [guard(Test.DICT_CONTAINS, (source,), (name, False)) for name in absent]
        made = moving(checker(*asked), {"x": thing}, entries)
        for name in absent:
            entries[name] = 1
            assert not holds(made, {"x": thing})
            del entries[name]
            assert holds(made, {"x": thing})


# -- what depends on the dict as a whole -------------------------------------------------------------------------------


def test_the_number_of_entries_is_a_fact_of_its_own(subject: Subject) -> None:
    shown, entries, _, source = subject
    made = moving(checker(guard(Test.DICT_LENGTH, (source,), (len(entries),))), shown, entries)
    entries["more"] = 1
    assert not holds(made, shown)
    del entries["more"]
    assert holds(made, shown)
    entries.pop("scale")
    assert not holds(made, shown)


def test_keys_in_order_are_evaluated(subject: Subject) -> None:
    shown, entries, _, source = subject
    asked = guard(Test.KEYS, (source,), (tuple(entries),))
    made = moving(checker(asked), shown, entries)
    moved_to_the_end(entries, "flag", True)
    assert not holds(made, shown)


def test_the_value_at_a_place_is_evaluated(subject: Subject) -> None:
    shown, entries, _, source = subject
    at = list(entries).index("flag")
    made = moving(checker(equals(source.child(Access.DICT_VALUE_AT, at), True)), shown, entries)
    moved_to_the_end(entries, "flag", True)
    entries[next(iter(entries))] = None
    assert holds(made, shown) is (list(entries.values())[at] is True)


@pytest.mark.parametrize("kind", ["another dict", "a dict of a subclass"])
def test_another_instance_dict_is_noticed(kind: str) -> None:
    class Sneaky(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: str) -> Any:
            return False

    one = shared()
    made = moving(checker(equals(attr("flag"), True), equals(item("flag"), True)), {"x": one}, vars(one))
    for flag in (False, True, False):
        values = vars(one) | {"flag": flag}
        one.__dict__ = values if kind == "another dict" else Sneaky(values)
        assert holds(made, {"x": one}) is flag


def test_all_globals_are_cleared() -> None:
    scope: dict[str, Any] = {"number": 3, COUNTER: 0}
    number = Source.frame().child(Access.GLOBALS, scope).child(Access.DICT_ITEM, "number")
    made = moving(checker(equals(number, 3)), {}, scope)
    scope.clear()
    assert not holds(made, {})
    scope["number"] = 3
    assert holds(made, {})


def test_a_weak_reference_among_the_globals_is_another() -> None:
    import weakref

    kept = [Thing(flag=True), Thing(flag=False)]
    scope: dict[str, Any] = {"ref": weakref.ref(kept[0]), COUNTER: 0}
    target = Source.frame().child(Access.GLOBALS, scope).child(Access.GLOBAL_WEAKREF, "ref")
    made = moving(checker(equals(item("flag", target), True)), {}, scope)
    scope["ref"] = weakref.ref(kept[1])
    assert not holds(made, {})
    scope["ref"] = weakref.ref(kept[0])
    assert holds(made, {})
