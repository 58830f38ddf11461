"""Attacks on what is believed of single entries: other things where the first were freed, and long searches."""

from __future__ import annotations

import ctypes
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unified_guards.guards.ir import Access, Source, Test, guard

from ..guards import X, attr, checker, equals, item, tensor_like, without
from .building import Thing, holds, told
from .test_moving_dicts import COUNTER, NEEDS_TABLES, a_dict, count, entry, moving, spelt

MARK = ("_dynamo_dynamic_indices", frozenset())


def colliding(name: str, bits: int, how_many: int) -> list[str]:
    """Names whose hashes lead to the same place as this one's in a table with so many bits."""
    mask = (1 << bits) - 1
    alike = (f"k{i}" for i in itertools.count() if hash(f"k{i}") & mask == hash(name) & mask)
    return [sys.intern(one) for one in itertools.islice(alike, how_many)]


# -- tensors -----------------------------------------------------------------------------------------------------------


def class_like_tensors() -> type:
    """Its instances take as much memory as tensors do, and have nothing where these have their implementation."""
    for slots in range(8):
        names = ("__dict__", "__weakref__", *(f"slot{i}" for i in range(slots)))
        made = type("LikeATensor", (), {"__slots__": names})
        if made.__basicsize__ == torch.Tensor.__basicsize__:
            return made
    raise AssertionError("no class has instances of that size")


@NEEDS_TABLES
def test_the_type_of_a_tensor_in_an_entry_comes_before_its_instance_dict() -> None:
    """What holds the entry is not believed by its version, so there may be no tensor any more at that address."""
    thing, entries, source = a_dict()
    entries["part"] = marked = torch.ones(2)
    marked.attribute = 1  # type: ignore[attr-defined]
    assert marked.__dict__  # is made
    there = entry("part", source)
    asked = tensor_like(there, marked), guard(Test.DYNAMIC_INDICES, (there,), MARK)
    made = moving(checker(*asked), {"x": thing}, entries)
    found = told(made, "fact_kinds")
    assert found[found.index("dict entry") :] == ["dict entry", "dict entry", "type", "instance dict", "dict version"]


def test_no_tensor_is_read_where_a_tensor_was_freed() -> None:
    """A sanitizer sees what is read; without one, this says that there is a miss."""
    thing, entries, source = a_dict()
    entries["part"] = torch.ones(2)
    made = moving(checker(tensor_like(entry("part", source), entries["part"])), {"x": thing}, entries)
    where, again, like_tensors = id(entries["part"]), 0, class_like_tensors()
    for _ in range(500):
        entries["part"] = None
        entries["part"] = like_tensors()
        again += id(entries["part"]) == where
        assert not holds(made, {"x": thing})
    assert again, "the allocator never gave out the same memory"


def test_another_kind_of_tensor_where_one_was_freed() -> None:
    thing, entries, source = a_dict()
    entries["part"] = torch.ones(2)
    made = moving(checker(tensor_like(entry("part", source), entries["part"])), {"x": thing}, entries)
    where, again = id(entries["part"]), 0
    makers: list[Callable[[], torch.Tensor]] = [
        lambda: torch.ones(3),
        lambda: torch.ones(2, dtype=torch.int64),
        lambda: torch.ones(2, requires_grad=True),
        lambda: torch.nn.Parameter(torch.ones(2)),
    ]
    for step in range(800):
        entries["part"] = None
        entries["part"] = makers[step % 4]()
        again += id(entries["part"]) == where
        assert not holds(made, {"x": thing})
    if not again:
        pytest.skip("the allocator never gave out the same memory")


# -- searches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", [0, 1, 3, 5], ids=lambda n: f"{n} deleted")
@pytest.mark.parametrize("bits", [3, 4, 7, 8, 15])
def test_a_name_that_comes_at_the_end_of_a_chain_is_noticed(bits: int, deleted: int) -> None:
    """Names that lead to the same place stand one after the other; the last may take the place of one that is gone."""
    thing, entries, source = a_dict()
    for at in range(2**bits // 2 - 8 if bits > 4 else 0):
        entries[f"filled{at}"] = at
    chain = colliding("absent", min(bits, 10), 5 if bits > 3 else 1)
    entries.update(dict.fromkeys(chain))
    for name in chain[:deleted]:
        del entries[name]
    made = moving(checker(guard(Test.DICT_CONTAINS, (source,), ("absent", False))), {"x": thing}, entries)
    for spell in (str, spelt):
        entries[spell("absent")] = 1
        assert not holds(made, {"x": thing})
        del entries["absent"]
        for _ in range(5):
            count(entries)
            assert holds(made, {"x": thing})


def test_names_on_the_way_of_a_search_come_and_go() -> None:
    """They are equal to none that guards ask for, so each check holds, by whichever facts."""
    thing, entries, source = a_dict()
    chain = colliding("absent", 8, 12)
    asked = guard(Test.DICT_CONTAINS, (source,), ("absent", False)), equals(entry("flag", source), True)
    made = moving(checker(*asked), {"x": thing}, entries)
    for name in chain * 2:
        entries.pop(name) if name in entries else entries.update({name: 1})
        for _ in range(4):
            count(entries)
            assert holds(made, {"x": thing})
        entries["absent"] = 1
        assert not holds(made, {"x": thing})
        del entries["absent"]


def test_the_name_itself_at_the_address_of_one_that_a_search_came_by() -> None:
    """All indices are as they were, and so is the address of the key on the way."""
    thing, entries, source = a_dict()
    asked = checker(guard(Test.DICT_CONTAINS, (source,), ("absent", False)))
    ways = (f"k{i:05}" for i in itertools.count())
    way = next(name for name in ways if hash(name) & 7 == hash("absent") & 7)
    again, letters = 0, list("absent")
    for _ in range(20):
        key = spelt(way)
        where = id(key)
        entries.clear()
        entries.update({key: 1, COUNTER: 0})
        made = moving(asked, {"x": thing}, entries)
        entries.clear()
        del key
        key = "".join(letters)
        again += id(key) == where
        entries.update({key: 1, COUNTER: 0})
        assert not holds(made, {"x": thing})
        entries.clear()
        del key
    assert again, "the allocator never gave out the same memory"


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_table_is_copied_to_where_another_was() -> None:
    """A merge into an empty dict copies the table as it is, deleted entries included."""
    thing, entries, source = a_dict()
    guards = equals(entry("flag", source), True), guard(Test.DICT_CONTAINS, (source,), ("absent", False))
    made = moving(checker(*guards), {"x": thing}, entries)
    for changed in ({"flag": False}, {"absent": 1}, {"flag": 1}):
        before = dict(entries)
        other = before | changed
        entries.clear()
        entries |= other
        assert not holds(made, {"x": thing})
        entries.clear()
        entries.update(before)
        for _ in range(4):
            count(entries)
            assert holds(made, {"x": thing})


class Shared:
    """Its instances share a table of keys."""


def shared(**attributes: Any) -> Any:
    one = Shared()
    for name, value in attributes.items():
        setattr(one, name, value)
    return one


def test_another_instance_where_one_was_freed() -> None:
    """It has the same keys, and perhaps its dict and its values are where those of the first were."""
    holder: Any = Thing(one=None)
    made = checker(equals(attr("flag", item("one")), True))
    again = 0
    for _ in range(20):
        holder.one = shared(flag=True, calls=0)
        moving(made, {"x": holder}, vars(holder.one))
        where, holder.one = id(holder.one), None
        others = [shared(flag=False, calls=0) for _ in range(8)]
        for other in others:
            vars(other)
        same = [other for other in others if id(other) == where]
        again += len(same)
        holder.one = (same or others)[0]
        del other, others, same
        assert not holds(made, {"x": holder})
    assert again, "the allocator never gave out the same memory"


def test_keys_that_are_shared_gain_a_key_by_another_instance() -> None:
    one = shared(flag=True, calls=0)
    made = moving(checker(equals(attr("flag"), True), without(X, "gained")), {"x": one}, vars(one))
    other = shared(flag=False, calls=0, gained=1)
    for _ in range(5):
        count(vars(one))
        assert holds(made, {"x": one})
    one.gained = other.gained
    assert not holds(made, {"x": one})
    del one.gained
    for _ in range(5):
        count(vars(one))
        assert holds(made, {"x": one})
    one.gained = 2
    assert not holds(made, {"x": one})


def test_an_instance_becomes_one_of_another_class() -> None:
    class Other(Shared):
        @property
        def flag(self) -> bool:
            return False

    one = shared(flag=True, calls=0)
    made = moving(checker(equals(attr("flag"), True)), {"x": one}, vars(one))
    one.__class__ = Other
    assert not holds(made, {"x": one})
    one.__class__ = Shared
    assert holds(made, {"x": one})


def test_changes_by_the_c_api_are_noticed() -> None:
    thing, entries, source = a_dict()
    guards = equals(entry("flag", source), True), guard(Test.DICT_CONTAINS, (source,), ("absent", False))
    made = moving(checker(*guards), {"x": thing}, entries)
    api, key = ctypes.pythonapi, ctypes.py_object
    for name, value in (("flag", False), ("absent", 1), ("flag", 1)):
        before = entries.get(name)
        assert api.PyDict_SetItem(key(entries), key(name), key(value)) == 0
        assert not holds(made, {"x": thing})
        assert api.PyDict_DelItem(key(entries), key(name)) == 0
        assert holds(made, {"x": thing}) is (name != "flag")
        if before is not None:
            entries[name] = before
        assert holds(made, {"x": thing})


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def test_facts_on_entries_keep_nothing_alive() -> None:
    thing, entries, source = a_dict()
    made = moving(checker(equals(item("deep", entry("part", source)), True)), {"x": thing}, entries)
    part = weakref.ref(entries["part"])
    del entries["part"]
    assert part() is None
    assert not holds(made, {"x": thing})
    entries["part"] = Thing(deep=True)
    assert holds(made, {"x": thing})


def test_numbers_that_come_and_go_in_an_entry_are_not_kept() -> None:
    thing, entries, source = a_dict()
    made = moving(checker(guard(Test.TYPE_IS, (entry("scale", source),), (id(float), "float"))), {"x": thing}, entries)
    first = entries["scale"] = float("12.5")
    held = sys.getrefcount(first)
    for step in range(30):
        count(entries)
        assert holds(made, {"x": thing})
        entries["scale"] = step + 0.25
    assert sys.getrefcount(first) == held - 1


def test_several_roots_share_one_dict() -> None:
    scope: dict[str, Any] = {"number": 3, COUNTER: 0}
    number = Source.frame().child(Access.GLOBALS, scope).child(Access.DICT_ITEM, "number")
    roots = [Thing(flag=True) for _ in range(6)]
    made = checker(equals(number, 3), equals(item("flag"), True))
    for _ in range(8):
        for root in roots:
            count(scope)
            assert holds(made, {"x": root})
    scope["number"] = 4
    assert [holds(made, {"x": root}) for root in roots] == [False] * 6
    scope["number"] = 3
    roots[2].flag = False  # type: ignore[attr-defined]
    assert [holds(made, {"x": root}) for root in roots] == [True, True, False, True, True, True]
