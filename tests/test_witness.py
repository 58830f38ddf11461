"""What the native checker remembers of a passing check, what makes it ask again, and what it holds on to."""

from __future__ import annotations

import copy
import enum
import functools
import gc
import inspect
import subprocess
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import attribute_getters
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.lower.rows import Program, lower, make_checker

CHECKOUT = Path(__file__).resolve().parents[1]
X = Source.frame().child(Access.LOCAL, "x")
Y = Source.frame().child(Access.LOCAL, "y")

#: Whether guards on dicts can be answered by facts: without, the same tests hold, by evaluation.
VERSIONED = _C.dicts_are_versioned()
NEEDS_VERSIONS = pytest.mark.skipif(not VERSIONED, reason="no free dict watcher: guards on dicts are evaluated")


class Thing:
    """An object with attributes, as a module is."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Thing):
    """Another class of the same layout."""


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIFIED_GUARDS_WITNESS", raising=False)


# -- building ----------------------------------------------------------------------------------------------------------


def program_of(*guards: Guard) -> Program:
    return lower(GuardSet((item, Provenance("dynamo")) for item in guards))


def checker(*guards: Guard, witness: bool = True) -> _C.Checker:
    return make_checker(program_of(*guards), witness=witness)


def item(name: str, source: Source = X) -> Source:
    """An entry of the instance's dict, as Dynamo reads attributes."""
    return source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, name)


def attr(name: str, source: Source = X) -> Source:
    return source.child(Access.ATTR, name)


def equals(source: Source, value: object) -> Guard:
    return guard(Test.EQUALS, (source,), (value,))


def same(source: Source, value: object) -> Guard:
    return guard(Test.IS, (source,), (id(value), "the same"))


def is_of(source: Source, kind: type) -> Guard:
    return guard(Test.TYPE_IS, (source,), (id(kind), kind.__name__))


def without(source: Source, name: str) -> Guard:
    return guard(Test.NO_ATTR, (source,), (name,))


def tensor_like(source: Source, value: torch.Tensor) -> Guard:
    keys, dtype, index, requires_grad = _C.tensor_facts(value, None)
    sizes, strides, name = tuple(value.size()), tuple(value.stride()), type(value).__name__
    facts = TensorFacts(
        id(type(value)), keys, dtype, index, requires_grad, sizes, strides, False, name, str(value.dtype)
    )
    return guard(Test.TENSOR, (source,), (facts,))


def says_yes(source: Source, function: Callable[[Any], object]) -> Guard:
    return guard(Test.PREDICATE, (source,), (lambda value: (function(value), True)[1], "it says so"))


def told(made: _C.Checker, name: str) -> Any:
    assert made.witness is not None
    return made.witness[name]


def recorded(made: _C.Checker, shown: dict[str, Any]) -> _C.Checker:
    """The checker after the two checks that it takes to remember."""
    for _ in range(2):
        assert made.check(shown)
    return made


def holds(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """The verdict, which both tiers must agree on."""
    verdict = made.check(shown)
    assert made.exact(shown) is verdict
    return verdict


def held_by(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """Whether one more check passes by what is remembered, and records nothing."""
    held, taken = told(made, "held"), told(made, "recorded")
    assert holds(made, shown)
    return bool(told(made, "held") == held + 1 and told(made, "recorded") == taken)


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_check_that_passes_twice_is_remembered() -> None:
    thing: Any = Thing(flag=True)
    made, shown = checker(equals(item("flag"), True)), {"x": thing}
    seen = []
    for _ in range(4):
        assert made.check(shown)
        seen.append((told(made, "recorded"), told(made, "held")))
    assert seen == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_check_that_fails_is_not_remembered() -> None:
    made, shown = checker(equals(item("flag"), True)), {"x": Thing(flag=False)}
    for _ in range(4):
        assert not made.check(shown)
    assert (told(made, "roots"), told(made, "held")) == (0, 0)


# Fails on 7a57238: Witnesses::record() counts before it knows the verdict. (It is also tried on every miss: nothing
# makes a root rest whose checks fail.)
def test_a_check_that_fails_is_not_counted_as_recorded() -> None:
    made, shown = checker(equals(item("flag"), True)), {"x": Thing(flag=False)}
    for _ in range(4):
        assert not made.check(shown)
    assert told(made, "recorded") == 0


@NEEDS_VERSIONS
def test_nothing_is_live_of_what_hangs_below_a_module() -> None:
    net = torch.nn.Linear(2, 2)
    weight = item("_parameters").child(Access.DICT_ITEM, "weight")
    made = checker(is_of(X, torch.nn.Linear), equals(item("training"), True), tensor_like(weight, net.weight))
    recorded(made, {"x": net})
    meaning = program_of(
        is_of(X, torch.nn.Linear), equals(item("training"), True), tensor_like(weight, net.weight)
    ).meaning
    live = [str(meaning[row]) for row in told(made, "live_rows")]
    assert not [text for text in live if "L['x'].__dict__" in text]
    assert told(made, "facts") > 0
    assert told(made, "tensors") == 1


def test_the_collector_may_take_a_root_and_its_checker_together() -> None:
    """It calls what is to be called when a root dies after it has found both; the checker may be the first to go."""
    gc.collect()
    gc.freeze()  # everything else: going through it takes most of a second each time
    try:
        for _ in range(200):
            thing = Thing(flag=True)
            made = checker(equals(item("flag"), True))
            recorded(made, {"x": thing})
            thing.checker, thing.itself = made, thing  # type: ignore[attr-defined]
            holder = [made]
            weakref.finalize(thing, holder.clear)
            del thing, made, holder
            gc.collect()
    finally:
        gc.unfreeze()


def test_a_tensor_that_is_an_argument_is_live() -> None:
    thing, first = Thing(flag=True), torch.ones(3)
    set_ = (equals(item("flag"), True), tensor_like(Y, first))
    made, meaning = checker(*set_), program_of(*set_).meaning
    recorded(made, {"x": thing, "y": first})
    assert str(set_[1]) in [str(meaning[row]) for row in told(made, "live_rows")]
    assert told(made, "tensors") == 0


def test_a_fresh_tensor_argument_costs_nothing_that_is_remembered() -> None:
    thing: Any = Thing(flag=True)
    made = recorded(
        checker(equals(item("flag"), True), tensor_like(Y, torch.ones(3))), {"x": thing, "y": torch.ones(3)}
    )
    for _ in range(3):
        assert held_by(made, {"x": thing, "y": torch.ones(3)})
    assert not holds(made, {"x": thing, "y": torch.ones(4)})


@NEEDS_VERSIONS
def test_a_counter_on_a_module_repairs_its_own_dict_alone() -> None:
    parts = [Thing(flag=True, calls=0) for _ in range(40)]
    guards = [equals(item("flag", item(f"part{i}")), True) for i in range(40)]
    thing: Any = Thing(**{f"part{i}": part for i, part in enumerate(parts)})
    made = recorded(checker(*guards), {"x": thing})
    before = made.witness
    assert before is not None
    for _ in range(10):
        parts[7].calls += 1
        assert held_by(made, {"x": thing})
    after = made.witness
    assert after is not None
    assert after["repaired"] == before["repaired"] + 10
    assert [after[name] for name in ("roots", "facts", "tensors", "live", "recorded")] == [
        before[name] for name in ("roots", "facts", "tensors", "live", "recorded")
    ]
    assert holds(made, {"x": thing})
    assert told(made, "repaired") == after["repaired"]


def test_two_objects_are_remembered_side_by_side() -> None:
    made = checker(equals(item("flag"), True))
    one, two = Thing(flag=True), Thing(flag=True)
    recorded(made, {"x": one})
    recorded(made, {"x": two})
    assert told(made, "roots") == 2
    assert held_by(made, {"x": one}) and held_by(made, {"x": two})
    two.flag = False
    assert holds(made, {"x": one}) and not holds(made, {"x": two})


# -- what moves a verdict ----------------------------------------------------------------------------------------------

#: A change yields what is shown to the guards and the guards, and, resumed, changes something that they look at. One
#: that yields again undoes it.
Step = tuple[dict[str, Any], list[Guard]] | None
Change = Callable[[], Iterator[Step]]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__.replace("_", " ")] = function
    return function


@change
def an_item_of_a_dict_is_another() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    yield {"x": thing}, [equals(item("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def an_item_of_a_dict_is_removed() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    yield {"x": thing}, [equals(item("flag"), True)]
    del thing.flag
    yield None
    thing.flag = True


@change
def an_item_is_added_to_a_dict() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [guard(Test.DICT_LENGTH, (item("table"),), (1,))]
    thing.table["b"] = 2
    yield None
    del thing.table["b"]


@change
def a_key_comes_into_a_dict_that_lacked_it() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [guard(Test.DICT_CONTAINS, (item("table"),), ("b", False))]
    thing.table["b"] = 2


@change
def the_keys_of_a_dict_change_places() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1, "b": 2})
    yield {"x": thing}, [guard(Test.KEYS, (item("table"),), (("a", "b"),))]
    thing.table["a"] = thing.table.pop("a")


@change
def a_dict_is_emptied() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [equals(item("table").child(Access.DICT_ITEM, "a"), 1)]
    thing.table.clear()


@change
def a_dict_in_a_dict_is_another() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [equals(item("table").child(Access.DICT_ITEM, "a"), 1)]
    thing.table = {"a": 2}


@change
def the_dict_of_an_instance_is_another() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    before = vars(thing)
    yield {"x": thing}, [equals(item("flag"), True)]
    thing.__dict__ = {"flag": False}
    yield None
    thing.__dict__ = before


@change
def the_class_of_an_object_is_another() -> Iterator[Step]:
    thing: Any = Thing(part=Thing())
    yield {"x": thing}, [is_of(item("part"), Thing)]
    thing.part.__class__ = Other
    yield None
    thing.part.__class__ = Thing


def kind_of(**attributes: Any) -> type:
    return type("Kind", (Thing,), attributes)


@change
def an_attribute_of_a_class_is_set() -> Iterator[Step]:
    kind: Any = kind_of(flag=True)
    yield {"x": kind()}, [equals(attr("flag"), True)]
    kind.flag = False
    yield None
    kind.flag = True


@change
def an_attribute_of_a_base_is_set() -> Iterator[Step]:
    base: Any = kind_of(flag=True)
    kind: Any = type("Derived", (base,), {})
    yield {"x": kind()}, [equals(attr("flag"), True)]
    base.flag = False


@change
def an_instance_hides_an_attribute_of_its_class() -> Iterator[Step]:
    thing: Any = kind_of(flag=True)()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    del thing.flag


@change
def an_item_of_the_dict_of_a_class_is_set() -> Iterator[Step]:
    kind: Any = kind_of(flag=True)
    yield {"x": kind()}, [equals(X.child(Access.TYPE).child(Access.TYPE_DICT).child(Access.DICT_ITEM, "flag"), True)]
    kind.flag = False


@change
def the_bases_of_a_class_are_others() -> Iterator[Step]:
    one, two = kind_of(flag=True), kind_of(flag=False)
    kind: Any = type("Derived", (one,), {})
    yield {"x": kind()}, [equals(attr("flag"), True)]
    kind.__bases__ = (two,)
    yield None
    kind.__bases__ = (one,)


@change
def the_order_of_resolution_is_another() -> Iterator[Step]:
    one, two = kind_of(), kind_of()
    kind: Any = type("Derived", (one,), {})
    yield {"x": kind()}, [same(X.child(Access.TYPE).child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, 1), one)]
    kind.__bases__ = (two,)


@change
def a_property_is_put_before_an_attribute() -> Iterator[Step]:
    kind: Any = kind_of()
    thing: Any = kind(flag=True)
    yield {"x": thing}, [equals(attr("flag"), True)]
    kind.flag = property(lambda self: False)


@change
def a_getattribute_is_put_into_a_class() -> Iterator[Step]:
    kind: Any = kind_of()
    yield {"x": kind(flag=True)}, [equals(attr("flag"), True)]
    kind.__getattribute__ = lambda self, name: False


class Inline:
    """Its instances keep their values without a dict, from Python 3.11 on."""

    def __init__(self) -> None:
        self.flag = True
        self.other = 1


@change
def a_value_of_an_instance_without_a_dict_is_another() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def a_value_of_an_instance_without_a_dict_is_removed() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    del thing.flag


@change
def an_instance_gets_its_dict_and_another_value_in_it() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    vars(thing)["flag"] = False


class Slotted:
    __slots__ = ("flag",)

    def __init__(self) -> None:
        self.flag = True


@change
def a_slot_is_written() -> Iterator[Step]:
    thing = Slotted()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def a_slot_is_emptied() -> Iterator[Step]:
    thing = Slotted()
    yield {"x": thing}, [equals(attr("flag"), True)]
    del thing.flag


def closing_over(value: object) -> types.FunctionType:
    def function(a: int = 1, *, b: int = 2) -> object:
        return value

    assert isinstance(function, types.FunctionType)
    return function


@change
def a_cell_holds_something_else() -> Iterator[Step]:
    function = closing_over(1)
    cell = X.child(Access.FUNC_CLOSURE).child(Access.TUPLE_ITEM, 0)
    yield {"x": function}, [equals(attr("cell_contents", cell), 1)]
    assert function.__closure__ is not None
    function.__closure__[0].cell_contents = 2
    yield None
    function.__closure__[0].cell_contents = 1


@change
def a_cell_is_emptied() -> Iterator[Step]:
    function = closing_over(1)
    cell = X.child(Access.FUNC_CLOSURE).child(Access.TUPLE_ITEM, 0)
    yield {"x": function}, [equals(attr("cell_contents", cell), 1)]
    assert function.__closure__ is not None
    del function.__closure__[0].cell_contents


@change
def the_code_of_a_function_is_another() -> Iterator[Step]:
    function = closing_over(1)
    before = function.__code__
    yield {"x": function}, [same(X.child(Access.FUNC_CODE), before)]
    function.__code__ = before.replace(co_name="another")
    yield None
    function.__code__ = before


@change
def the_defaults_of_a_function_are_others() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_DEFAULTS).child(Access.TUPLE_ITEM, 0), 1)]
    function.__defaults__ = (2,)


@change
def the_defaults_of_a_function_are_gone() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_DEFAULTS).child(Access.TUPLE_ITEM, 0), 1)]
    function.__defaults__ = None


@change
def the_keyword_defaults_of_a_function_are_others() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_KWDEFAULTS).child(Access.DICT_ITEM, "b"), 2)]
    function.__kwdefaults__ = {"b": 3}


@change
def a_keyword_default_of_a_function_is_another() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_KWDEFAULTS).child(Access.DICT_ITEM, "b"), 2)]
    function.__kwdefaults__["b"] = 3


@change
def a_list_grows() -> Iterator[Step]:
    thing: Any = Thing(items=[1])
    yield {"x": thing}, [guard(Test.LENGTH, (item("items"),), (1, False))]
    thing.items.append(2)
    yield None
    thing.items.pop()


@change
def a_list_is_emptied() -> Iterator[Step]:
    thing: Any = Thing(items=[1])
    yield {"x": thing}, [equals(item("items").child(Access.LIST_ITEM, 0), 1)]
    thing.items.clear()


@change
def an_item_of_a_list_is_another() -> Iterator[Step]:
    thing: Any = Thing(items=[1, 2])
    yield {"x": thing}, [equals(item("items").child(Access.LIST_ITEM, 1), 2)]
    thing.items[1] = 3
    yield None
    thing.items[1] = 2


@change
def a_tuple_is_another() -> Iterator[Step]:
    thing: Any = Thing(pair=(1, 2))
    yield {"x": thing}, [equals(item("pair").child(Access.TUPLE_ITEM, 1), 2)]
    thing.pair = (1, 3)


@change
def an_object_in_a_tuple_changes() -> Iterator[Step]:
    part: Any = Thing(flag=True)
    thing: Any = Thing(pair=(1, part))
    yield {"x": thing}, [equals(item("flag", item("pair").child(Access.TUPLE_ITEM, 1)), True)]
    part.flag = False


@change
def a_set_grows() -> Iterator[Step]:
    thing: Any = Thing(items={1})
    yield {"x": thing}, [guard(Test.LENGTH, (item("items"),), (1, True))]
    thing.items.add(2)


@change
def the_target_of_a_weak_reference_dies() -> Iterator[Step]:
    target = Thing()
    thing: Any = Thing(reference=weakref.ref(target))
    yield {"x": thing}, [is_of(item("reference").child(Access.WEAKREF_CALL), Thing)]
    del target


@change
def the_target_of_a_weak_reference_among_globals_dies() -> Iterator[Step]:
    target = Thing()
    scope = {"name": weakref.ref(target)}
    yield {}, [is_of(Source.frame().child(Access.GLOBALS, scope).child(Access.GLOBAL_WEAKREF, "name"), Thing)]
    del target


@change
def a_global_is_another() -> Iterator[Step]:
    scope = {"name": 1}
    yield {}, [equals(Source.frame().child(Access.GLOBALS, scope).child(Access.DICT_ITEM, "name"), 1)]
    scope["name"] = 2
    yield None
    scope["name"] = 1


@change
def what_an_identity_is_about_is_another() -> Iterator[Step]:
    target = Thing()
    thing: Any = Thing(part=target)
    yield {"x": thing}, [guard(Test.IS_TARGET, (item("part"),), (weakref.ref(target), "it"))]
    thing.part = Thing()


@change
def a_gradient_is_another() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    yield {"x": Thing(weight=weight)}, [same(item("weight").child(Access.GRAD), weight.grad)]
    weight.grad = torch.zeros(2)


@change
def a_gradient_is_gone() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    yield {"x": Thing(weight=weight)}, [tensor_like(item("weight").child(Access.GRAD), weight.grad)]
    weight.grad = None


@change
def a_gradient_is_there() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    yield {"x": Thing(weight=weight)}, [same(item("weight").child(Access.GRAD), None)]
    weight.grad = torch.ones(2)
    yield None
    weight.grad = None


def _tensor_is_changed(by: Callable[[torch.Tensor], object]) -> Change:
    def changes() -> Iterator[Step]:
        weight = torch.ones(2)
        yield {"x": Thing(weight=weight)}, [tensor_like(item("weight"), weight)]
        by(weight)

    return changes


TENSOR_CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "data of another size": lambda weight: setattr(weight, "data", torch.ones(3)),
    "data of another dtype": lambda weight: setattr(weight, "data", torch.ones(2, dtype=torch.float64)),
    "resize_": lambda weight: weight.resize_(5),
    "set_": lambda weight: weight.set_(torch.ones(4).untyped_storage(), 1, (1,), (2,)),
    "requires_grad_": lambda weight: weight.requires_grad_(),
    "swap_tensors": lambda weight: torch.utils.swap_tensors(weight, torch.ones(3)),
    "swap_tensors with a parameter": lambda weight: torch.utils.swap_tensors(weight, torch.nn.Parameter(torch.ones(2))),
    "unsqueeze_": lambda weight: weight.unsqueeze_(0),
}
CHANGES |= {f"a tensor is changed by {name}": _tensor_is_changed(by) for name, by in TENSOR_CHANGES.items()}


@change
def a_tensor_is_another() -> Iterator[Step]:
    thing: Any = Thing(weight=torch.ones(2))
    yield {"x": thing}, [tensor_like(item("weight"), torch.ones(2))]
    thing.weight = torch.ones(3)
    yield None
    thing.weight = torch.ones(2)


@change
def a_tensor_is_marked_dynamic() -> Iterator[Step]:
    weight = torch.ones(2)
    yield (
        {"x": Thing(weight=weight)},
        [
            tensor_like(item("weight"), weight),
            guard(Test.DYNAMIC_INDICES, (item("weight"),), ("_dynamo_dynamic_indices", set())),
        ],
    )
    torch._dynamo.mark_dynamic(weight, 0)


@change
def a_tensor_is_marked_further_than_expected() -> Iterator[Step]:
    weight = torch.ones(2)
    names = ["_dynamo_dynamic_indices", "_dynamo_unbacked_indices", "_dynamo_static_indices"]
    yield (
        {"x": Thing(weight=weight)},
        [
            tensor_like(item("weight"), weight),
            guard(Test.DIM_MARKING, (item("weight"),), ({}, names, {})),
        ],
    )
    torch._dynamo.mark_dynamic(weight, 0)
    weight._has_dynamo_dim_marking = True  # torch 2.11 does not say so, and has no such guard


def renamed(owner: Any, name: str, shown: object, source: Source = X) -> Iterator[Step]:
    before = getattr(owner, name)
    yield {"x": shown}, [equals(attr(name, source), before)]
    setattr(owner, name, "another")
    yield None
    setattr(owner, name, before)


def function() -> None: ...


@change
def a_function_has_another_name() -> Iterator[Step]:
    return renamed(function, "__name__", function)


@change
def a_function_has_another_qualified_name() -> Iterator[Step]:
    return renamed(function, "__qualname__", function)


@change
def a_class_has_another_name() -> Iterator[Step]:
    return renamed(Other, "__name__", Other(), X.child(Access.TYPE))


@change
def a_class_has_another_qualified_name() -> Iterator[Step]:
    return renamed(Other, "__qualname__", Other(), X.child(Access.TYPE))


@change
def a_metaclass_answers_for_the_name_of_a_class() -> Iterator[Step]:
    meta = type("Meta", (type,), {})
    kind = meta("Kind", (), {})
    yield {"x": kind}, [equals(attr("__name__"), "Kind")]
    kind.__class__ = type("Another", (type,), {"__name__": property(lambda _: "Another")})
    yield None
    kind.__class__ = meta


@change
def a_member_of_an_enumeration_is_another() -> Iterator[Step]:
    colors: Any = enum.Enum("Color", ["RED", "BLUE"])
    red = colors.RED
    yield {"x": colors}, [same(attr("RED"), red)]
    type.__setattr__(colors, "RED", colors.BLUE)
    yield None
    type.__setattr__(colors, "RED", red)


@change
def a_class_is_asked_by_its_metaclass_from_now_on() -> Iterator[Step]:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return 2  # only asked for what a class lacks

    kind = Meta("Kind", (), {"size": 1})
    yield {"x": kind}, [equals(attr("size"), 1)]
    Meta.__getattribute__ = lambda cls, name: 3
    yield None
    del Meta.__getattribute__


@change
def a_class_loses_what_its_metaclass_then_gives() -> Iterator[Step]:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return 2

    kind = Meta("Kind", (), {"size": 1})
    yield {"x": kind}, [equals(attr("size"), 1)]
    del kind.size
    yield None
    kind.size = 1


def with_attribute() -> tuple[type, type, object]:
    """A class, the class of one of its attributes, and that attribute."""
    inner = type("Inner", (), {})
    value = inner()
    return type("Kind", (), {"value": value}), inner, value


def becoming_a_descriptor(shown: object, inner: Any, value: object) -> Iterator[Step]:
    yield {"x": shown}, [same(attr("value"), value)]
    inner.__get__ = lambda *_: None
    yield None
    del inner.__get__


@change
def an_attribute_of_a_class_becomes_a_descriptor() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    return becoming_a_descriptor(kind, inner, value)


@change
def an_attribute_of_a_class_is_of_a_class_of_descriptors() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    yield {"x": kind}, [same(attr("value"), value)]
    value.__class__ = type("Descriptor", (), {"__get__": lambda *_: None})
    yield None
    value.__class__ = inner


@change
def an_attribute_of_a_class_is_given_by_a_descriptor_to_instances() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    return becoming_a_descriptor(kind(), inner, value)


@change
def an_attribute_of_a_class_goes_before_one_of_the_instance() -> Iterator[Step]:
    kind, inner, _ = with_attribute()
    made: Any = kind()
    vars(made)["value"] = 1
    yield {"x": made}, [equals(attr("value"), 1)]
    inner.__get__ = lambda *_: 2
    inner.__set__ = lambda *_: None
    yield None
    del inner.__set__


@change
def what_a_cached_property_has_kept_is_replaced() -> Iterator[Step]:
    kind = type("Kind", (), {"value": functools.cached_property(lambda _: 1)})
    kind.value.__set_name__(kind, "value")
    made: Any = kind()
    vars(made)["value"] = 1
    yield {"x": made}, [equals(attr("value"), 1)]
    vars(made)["value"] = 2
    yield None
    vars(made)["value"] = 1


# Attribute hooks of known forms. Each class is made anew, because the tests change it.


def config_class() -> type:
    class Config:
        attribute_map = {"hidden": "width"}

        def __init__(self) -> None:
            self.width, self.hidden_too, self.depth = 1, 2, 3
            vars(self)["hidden"] = 4  # never found: the name goes to `width`

        def __getattribute__(self, key: str) -> Any:
            if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
                key = super().__getattribute__("attribute_map")[key]
            return super().__getattribute__(key)

    return Config


def config() -> Any:
    made = config_class()()
    vars(made)
    attribute_getters.learn([made])
    return made


@change
def what_a_name_is_mapped_to_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    made.width = 5
    yield None
    made.width = 1


@change
def a_map_of_names_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    type(made).attribute_map = {"hidden": "depth"}


@change
def a_map_of_names_has_another_entry() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    type(made).attribute_map["hidden"] = "depth"
    yield None
    type(made).attribute_map["hidden"] = "width"


@change
def a_map_of_names_is_hidden_by_one_of_the_instance() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    vars(made)["attribute_map"] = {"hidden": "depth"}


@change
def the_code_of_a_hook_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]

    hook = type(made).__getattribute__

    def outer(__class__: Any) -> Any:
        def another(self: Any, key: str) -> Any:
            return (7, __class__)[0]  # as many free variables as the hook has

        return another

    hook.__code__ = outer(None).__code__


@change
def the_cell_of_a_hook_holds_another_class() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]
    type(made).__getattribute__.__closure__[0].cell_contents = int


@change
def super_is_hidden_by_a_global() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]

    class Pretends:
        def __init__(self, *_: Any) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            return lambda key: {} if key == "attribute_map" else 9

    globals()["super"] = Pretends
    yield None
    del globals()["super"]


def unless_class() -> type:
    class Deferred:
        def __init__(self) -> None:
            self.flag = True
            self.delegate = None

        def __getattribute__(self, key: str) -> Any:
            delegate = super().__getattribute__("__dict__").get("delegate")
            if delegate is not None:
                return getattr(delegate, key)
            return super().__getattribute__(key)

    return Deferred


@change
def an_instance_gets_somebody_who_answers_for_it() -> Iterator[Step]:
    made = unless_class()()
    vars(made)
    attribute_getters.learn([made])
    yield {"x": made}, [equals(attr("flag"), True)]
    made.delegate = Thing(flag=False)


def property_class() -> type:
    class Wrapped:
        def __init__(self) -> None:
            self._flag, self._other = True, False

        @property
        def flag(self) -> bool:
            return self._flag

    return Wrapped


def wrapped() -> Any:
    made = property_class()()
    vars(made)
    attribute_getters.learn([made], ["flag"])
    return made


@change
def what_a_property_returns_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    made._flag = False
    yield None
    made._flag = True


@change
def a_property_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    type(made).flag = property(lambda self: self._other)


@change
def the_code_of_a_property_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    vars(type(made))["flag"].fget.__code__ = (lambda self: self._other).__code__


@change
def what_a_property_returns_becomes_a_property_itself() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    type(made)._flag = property(lambda self: False)


def _module_gets(by: Callable[[Any], object]) -> Change:
    def changes() -> Iterator[Step]:
        net = type("Net", (torch.nn.Linear,), {})(2, 2)
        attribute_getters.learn([net])
        yield {"x": net}, [without(X, "extra")]
        by(net)

    return changes


CHANGES |= {
    f"a module that lacked an attribute gets {name}": _module_gets(by)
    for name, by in {
        "a parameter": lambda net: net.register_parameter("extra", torch.nn.Parameter(torch.ones(1))),
        "a buffer": lambda net: net.register_buffer("extra", torch.ones(1)),
        "a submodule": lambda net: net.add_module("extra", torch.nn.ReLU()),
        "an attribute": lambda net: setattr(net, "extra", 1),
        "one of its class": lambda net: setattr(type(net), "extra", 1),
        "other parameters": lambda net: setattr(net, "_parameters", {"extra": torch.nn.Parameter(torch.ones(1))}),
        "a getattr": lambda net: setattr(type(net), "__getattr__", lambda self, name: 1),
    }.items()
}


@change
def an_object_that_lacked_an_attribute_gets_it() -> Iterator[Step]:
    thing: Any = Thing()
    yield {"x": thing}, [without(X, "extra")]
    thing.extra = 1
    yield None
    del thing.extra


# On Python 3.12 whatever reads attributes fails on 7a57238, because all of it is evaluated: inline_slot() takes the
# word without its lowest bit for the address of the values, which is the word plus one there; words_hold() says no.
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_moves_the_verdict(name: str) -> None:
    changes = CHANGES[name]()
    first = next(changes)
    assert first is not None
    shown, guards = first
    made = recorded(checker(*guards), shown)
    if VERSIONED and _C.DICT_SLOTS:
        live = [str(program_of(*guards).meaning[row]) for row in told(made, "live_rows")]
        assert str(guards[0]) not in live, "the guard is evaluated on every check"
    assert held_by(made, shown)
    undone = next(changes, first)  # the generator ends, unless it has something to undo
    try:
        assert not holds(made, shown)
        assert made.last_failure is not None
    finally:
        next(changes, None)
    if undone is None:
        for _ in range(3):
            assert holds(made, shown)


@pytest.mark.parametrize("name", CHANGES)
def test_without_a_witness_the_verdicts_are_the_same(name: str) -> None:
    changes = CHANGES[name]()
    first = next(changes)
    assert first is not None
    shown, guards = first
    made = checker(*guards, witness=False)
    recorded(made, shown)
    next(changes, None)
    try:
        assert not made.check(shown)
    finally:
        next(changes, None)
    assert made.witness is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="every instance has a dict")
def test_the_dict_of_an_instance_is_not_made() -> None:
    thing = Inline()
    made = recorded(checker(equals(attr("flag"), True)), {"x": thing})
    assert held_by(made, {"x": thing})
    assert not [part for part in gc.get_referents(thing) if type(part) is dict]


def test_a_change_that_nothing_looks_at_is_no_miss() -> None:
    thing: Any = Thing(flag=True, other=1)
    made = recorded(checker(equals(item("flag"), True)), {"x": thing})
    thing.other = 2
    thing.more = 3
    assert held_by(made, {"x": thing})


# -- the same address again --------------------------------------------------------------------------------------------


def test_another_number_at_the_same_address_is_noticed() -> None:
    thing: Any = Thing(scale=float("1.5"))
    made = recorded(checker(equals(item("scale"), float("1.5"))), {"x": thing})
    assert held_by(made, {"x": thing})
    for step in range(20):
        thing.scale = 0
        thing.scale = float(step)
        assert not holds(made, {"x": thing})


def test_another_number_at_the_same_address_in_a_list_is_noticed() -> None:
    """A list has no version: its items are pointers, and the allocator gives out the same memory again."""
    thing: Any = Thing(items=[float("1.5")])
    made = recorded(checker(equals(item("items").child(Access.LIST_ITEM, 0), float("1.5"))), {"x": thing})
    assert held_by(made, {"x": thing})
    for step in range(20):
        thing.items[0] = None
        thing.items[0] = float(step)
        assert not holds(made, {"x": thing})


def test_another_object_at_the_same_address_in_a_list_is_noticed() -> None:
    thing: Any = Thing(items=[Thing(flag=True)])
    made = recorded(checker(equals(item("flag", item("items").child(Access.LIST_ITEM, 0)), True)), {"x": thing})
    where = id(thing.items[0])
    again = 0
    for _ in range(50):
        thing.items[0] = None
        thing.items[0] = Thing(flag=False)
        again += id(thing.items[0]) == where
        assert not holds(made, {"x": thing})
    assert again, "the allocator never gave out the same memory"


def test_another_root_at_the_same_address_is_noticed() -> None:
    made = checker(equals(item("flag"), True))
    for _ in range(50):
        thing: Any = Thing(flag=True)
        recorded(made, {"x": thing})
        assert held_by(made, {"x": thing})
        del thing
        assert not holds(made, {"x": Thing(flag=False)})


# -- attribute hooks ---------------------------------------------------------------------------------------------------


def known(kind: type, name: str = "__getattribute__") -> bool:
    attribute_getters.learn([kind()], ["flag"])
    found = vars(kind)[name]
    return _C.knows_attribute_hook((found.fget if isinstance(found, property) else found).__code__)


def test_each_form_is_known() -> None:
    assert known(config_class())
    assert known(unless_class())
    assert known(property_class(), "flag")
    attribute_getters.learn([torch.nn.Linear(1, 1)])
    assert _C.knows_attribute_hook(torch.nn.Module.__getattr__.__code__)


class OtherOperator:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key not in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map").get(key, key)
        return super().__getattribute__(key)


class ExtraStatement:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        key = key.lower()
        return super().__getattribute__(key)


class TwoNames:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("another_map")[key]
        return super().__getattribute__(key)


class Unless:
    def __getattribute__(self, key: str) -> Any:
        found = super().__getattribute__("__dict__").get("delegate")
        if found is None:
            return super().__getattribute__("delegate")
        return super().__getattribute__(key)


class Computes:
    @property
    def flag(self) -> bool:
        return not self._flag

    _flag = False


class LooksElsewhere:
    def __getattr__(self, name: str) -> Any:
        if "_parts" in self.__dict__:
            parts = self.__dict__["_others"]
            if name in parts:
                return parts[name]
        raise AttributeError(name)


class ReturnsAtLast:
    def __getattr__(self, name: str) -> Any:
        if "_parts" in self.__dict__:
            parts = self.__dict__["_parts"]
            if name in parts:
                return parts[name]
        return None


class TakesMore:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str, extra: Any = super) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        return super().__getattribute__(key)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (OtherOperator, "__getattribute__"),
        (ExtraStatement, "__getattribute__"),
        (TwoNames, "__getattribute__"),
        (Unless, "__getattribute__"),
        (Computes, "flag"),
        (LooksElsewhere, "__getattr__"),
        (ReturnsAtLast, "__getattr__"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_only_looks_like_a_form_is_not_known(kind: type, name: str) -> None:
    assert not known(kind, name)


def test_a_hook_with_another_default_answers_right() -> None:
    thing: Any = TakesMore()
    vars(thing)["flag"] = True
    attribute_getters.learn([thing])
    made = recorded(checker(equals(attr("flag"), True)), {"x": thing})
    assert holds(made, {"x": thing})
    TakesMore.attribute_map = {"flag": "other"}
    try:
        vars(thing)["other"] = False
        assert not holds(made, {"x": thing})
    finally:
        TakesMore.attribute_map = {}


def test_a_hook_without_source_is_not_known() -> None:
    scope: dict[str, Any] = {"Any": Any}
    exec(inspect.getsource(config_class), scope)
    assert not known(scope["config_class"]())


def test_a_hook_whose_source_is_not_what_it_runs_is_not_known(tmp_path: Any, monkeypatch: Any) -> None:
    text = (
        "class Config:\n"
        "    attribute_map = {}\n"
        "    def __getattribute__(self, key):\n"
        "        if key != 'attribute_map' and key in super().__getattribute__('attribute_map'):\n"
        "            key = super().__getattribute__('attribute_map')[key]\n"
        "        return super().__getattribute__(key)\n"
    )
    (tmp_path / "edited_config.py").write_text(
        text.replace(" in super()", " not in super()").replace("[key]\n", ".get(key, key)\n")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_config

    (tmp_path / "edited_config.py").write_text(text)
    assert not known(edited_config.Config)
    del sys.modules["edited_config"]


# -- many roots --------------------------------------------------------------------------------------------------------


def test_many_roots_are_bounded_and_their_verdicts_right() -> None:
    made = checker(equals(item("flag"), True))
    things = [Thing(flag=True) for _ in range(300)]
    sizes = []
    for _ in range(4):
        assert all(holds(made, {"x": thing}) for thing in things)
        sizes.append(made.nbytes)
    assert 200 < told(made, "roots") <= 256
    assert sizes[-1] == sizes[-2] < 1 << 20
    for thing in things[::7]:
        thing.flag = False
    assert [holds(made, {"x": thing}) for thing in things] == [at % 7 != 0 for at in range(300)]


def test_a_root_that_dies_gives_its_memory_back() -> None:
    made = checker(equals(item("flag"), True))
    things = [Thing(flag=True) for _ in range(100)]
    for thing in things:
        recorded(made, {"x": thing})
    assert told(made, "roots") == 100
    before = told(made, "nbytes")
    del things[:], thing
    gc.collect()
    assert told(made, "roots") <= 1
    assert told(made, "nbytes") < before / 2


# Fails on 7a57238: Witnesses::current_ still points to the entry after the check, so that forget() keeps it.
def test_the_root_that_was_checked_last_gives_its_memory_back() -> None:
    made = checker(equals(item("flag"), True))
    thing: Any = Thing(flag=True)
    recorded(made, {"x": thing})
    before = told(made, "nbytes")
    del thing
    assert told(made, "roots") == 0
    assert told(made, "nbytes") < before


def test_nothing_that_is_remembered_is_kept_alive() -> None:
    weight, part, function = torch.ones(2), Thing(flag=True), closing_over(1)
    net = Thing(weight=weight, part=part, items=[part], function=function)
    made = checker(
        tensor_like(item("weight"), weight),
        equals(item("flag", item("part")), True),
        equals(attr("flag", item("items").child(Access.LIST_ITEM, 0)), True),
        same(item("function").child(Access.FUNC_CODE), function.__code__),
    )
    recorded(made, {"x": net})
    assert held_by(made, {"x": net})
    gone = [weakref.ref(one) for one in (net, weight, part, function)]
    del net, weight, part, function
    assert [reference() for reference in gone] == [None] * 4


def test_a_dict_that_is_remembered_is_not_kept_alive() -> None:
    class Table(dict[str, Any]):
        pass

    thing: Any = Thing(table=Table(a=1))
    made = recorded(checker(guard(Test.DICT_LENGTH, (item("table"),), (1,))), {"x": thing})
    gone = weakref.ref(thing.table)
    thing.table = None
    assert gone() is None
    assert not holds(made, {"x": thing})


def test_a_checker_may_die_before_its_roots() -> None:
    thing: Any = Thing(flag=True)
    made = recorded(checker(equals(item("flag"), True)), {"x": thing})
    assert weakref.getweakrefcount(thing) == 1
    del made
    gc.collect()
    assert weakref.getweakrefcount(thing) == 0
    del thing


# -- when everything changes -------------------------------------------------------------------------------------------


def test_what_changes_on_every_call_is_left_to_the_exact_tier() -> None:
    thing: Any = Thing(**{f"part{i}": Thing(flag=True) for i in range(10)})
    guards = [equals(item("flag", item(f"part{i}")), True) for i in range(10)]
    made = recorded(checker(*guards), {"x": thing})

    def change_all() -> None:
        for i in range(10):
            setattr(thing, f"part{i}", Thing(flag=True))

    def work() -> int:
        return int(told(made, "recorded") + told(made, "repaired"))

    for _ in range(200):
        change_all()
        assert holds(made, {"x": thing})
    before = work()
    for _ in range(200):
        change_all()
        assert holds(made, {"x": thing})
    assert work() - before < 10
    change_all()
    for _ in range(600):
        assert holds(made, {"x": thing})
    assert held_by(made, {"x": thing})
    thing.part3.flag = False
    assert not holds(made, {"x": thing})


# -- switched off ------------------------------------------------------------------------------------------------------


def test_a_checker_without_a_witness_has_the_exact_tier_alone() -> None:
    made = _C.Checker(program_of(equals(item("flag"), True)).rows, None, False)
    assert made.witness is None
    thing: Any = Thing(flag=True)
    assert [made.check({"x": thing}) for _ in range(3)] == [True] * 3
    thing.flag = False
    assert not made.check({"x": thing})


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.negate = False

    def forward(self, x: torch.Tensor) -> Any:
        return -self.layer(x) if self.negate else self.layer(x)


def compiled_net() -> tuple[Net, Any]:
    net = Net()
    compiled = torch.compile(net, backend="eager")
    for _ in range(4):
        compiled(torch.ones(1, 2))
    return net, compiled


@pytest.mark.parametrize(("value", "off"), [("0", True), ("1", False), (None, False)])
def test_the_environment_switches_it_off(value: str | None, off: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("UNIFIED_GUARDS_WITNESS", raising=False)
    else:
        monkeypatch.setenv("UNIFIED_GUARDS_WITNESS", value)
    with unified_guards.installed():
        net, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
        assert (frame.roots == 0) is off
        net.negate = True
        assert torch.equal(compiled(torch.ones(1, 2)), -net.layer(torch.ones(1, 2)))


# -- code of the user's within a check ---------------------------------------------------------------------------------


def test_a_guard_that_changes_what_is_guarded_is_seen_by_that_check() -> None:
    thing: Any = Thing(flag=True)
    at = [0]

    def turn(_: object) -> None:
        at[0] += 1
        if at[0] == 3:
            thing.flag = False

    made = checker(equals(item("flag"), True), says_yes(X, turn))
    assert [made.check({"x": thing}) for _ in range(5)] == [True, True, False, False, False]


def test_a_guard_may_ask_the_same_checker() -> None:
    thing, other = Thing(flag=True), Thing(flag=False)
    seen: list[bool] = []

    def ask(value: object) -> None:
        if value is thing:
            seen.append(made.check({"x": other}))

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(4):
        assert made.check({"x": thing})
    assert seen == [False] * 4


def test_a_guard_may_ask_the_same_checker_about_the_same_object() -> None:
    thing: Any = Thing(flag=True)
    inside = [False]

    def ask(value: object) -> None:
        if not inside[0]:
            inside[0] = True
            made.check({"x": thing})
            inside[0] = False

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(5):
        assert made.check({"x": thing})
    thing.flag = False
    assert not made.check({"x": thing})


def test_a_guard_may_ask_about_many_other_objects() -> None:
    """The places of roots are handed out again while one of them is being checked."""
    thing: Any = Thing(flag=True)
    others = [Thing(flag=True) for _ in range(300)]

    def ask(value: object) -> None:
        if value is thing:
            assert all(made.check({"x": other}) for other in others)

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(4):
        assert made.check({"x": thing})
    thing.flag = False
    assert not made.check({"x": thing})


def replace_what_is_read_later() -> None:
    thing: Any = Thing(part=Thing(flag=True), tensor=torch.ones(2))

    def replace(_: object) -> None:
        thing.part, thing.tensor = Thing(flag=True), torch.ones(2)

    made = checker(
        says_yes(item("part"), replace),
        equals(item("flag", item("part")), True),
        tensor_like(item("tensor"), torch.ones(2)),
    )
    for _ in range(20):
        assert made.check({"x": thing})
    thing.part = Thing(flag=False)
    made.check({"x": thing})
    thing.tensor = torch.ones(3)
    made.check({"x": thing})
    assert holds(made, {"x": thing})  # the predicate has put both back


def free_what_is_checked() -> None:
    made = checker(says_yes(X, lambda value: shown.pop("x", None)), equals(item("flag"), True))
    for _ in range(5):
        shown: dict[str, Any] = {"x": Thing(flag=True)}
        assert made.check(shown)
    assert not made.check({})


# Both fail on 7a57238: Evaluation::run() goes on reading what it has only borrowed, after a predicate has freed it.
# This can crash, which is why they have a process of their own.
@pytest.mark.parametrize("run", [replace_what_is_read_later, free_what_is_checked], ids=lambda run: run.__name__)
def test_a_guard_may_free_what_is_read_after_it(run: Callable[[], None]) -> None:
    program = f"from tests import test_witness\ntest_witness.{run.__name__}()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_property_may_change_what_is_guarded() -> None:
    class Restless:
        def __init__(self) -> None:
            self.calls = 0

        @property
        def flag(self) -> bool:
            self.calls += 1
            return self.calls < 5

    thing = Restless()
    made = checker(equals(attr("flag"), True))
    assert [made.check({"x": thing}) for _ in range(6)] == [True] * 4 + [False] * 2


def test_a_guard_that_raises_misses_and_holds_again() -> None:
    raises = [False]

    def ask(value: object) -> bool:
        if raises[0]:
            raise ValueError("no")
        return True

    thing: Any = Thing(flag=True)
    made = checker(equals(item("flag"), True), guard(Test.PREDICATE, (X,), (ask, "ask(x)")))
    recorded(made, {"x": thing})
    raises[0] = True
    assert not holds(made, {"x": thing})
    raises[0] = False
    assert holds(made, {"x": thing})


# -- the state of the thread, relations --------------------------------------------------------------------------------


def _autocast(on: bool) -> None:
    torch.set_autocast_enabled("cpu", on)


@pytest.mark.parametrize(
    ("switch", "usual"),
    [
        (torch.set_grad_enabled, True),
        (_autocast, False),
        (torch.use_deterministic_algorithms, False),
    ],
    ids=["grad mode", "autocast", "deterministic"],
)
def test_the_state_of_the_thread_moves_the_verdict(switch: Callable[[bool], object], usual: bool) -> None:
    thing: Any = Thing(flag=True)
    made = checker(guard(Test.GLOBAL_STATE, (Source.frame(),), (_C.GlobalState(),)), equals(item("flag"), True))
    recorded(made, {"x": thing})
    for _ in range(3):
        assert held_by(made, {"x": thing})
        switch(not usual)
        try:
            assert not holds(made, {"x": thing})
        finally:
            switch(usual)
        assert holds(made, {"x": thing})


def test_every_guard_on_the_state_of_the_thread_is_asked() -> None:
    """The second takes any state, as one that torch's own guard judges may; the first does not."""
    frame, thing = (Source.frame(),), Thing(flag=True)
    states = [guard(Test.GLOBAL_STATE, frame, (state,)) for state in (_C.GlobalState(), _C.GlobalState(lambda: True))]
    made = recorded(checker(*states, equals(item("flag"), True)), {"x": thing})
    with torch.no_grad():
        assert not made.exact({"x": thing})
        assert not made.check({"x": thing})


def test_the_keys_of_tensors_follow_the_state_of_the_thread() -> None:
    weight = torch.ones(2)
    made = recorded(checker(tensor_like(item("weight"), weight)), shown := {"x": Thing(weight=weight)})
    assert held_by(made, shown)
    with torch.inference_mode():
        made.check(shown)
        assert made.check(shown) is made.exact(shown)
    assert held_by(made, shown)


def test_a_fresh_tensor_must_differ_from_those_that_are_remembered() -> None:
    weights = [torch.ones(2), torch.ones(2)]
    thing: Any = Thing(one=weights[0], two=weights[1])
    unique = guard(Test.UNIQUE, (item("one"), item("two"), Y))
    made = recorded(checker(unique), {"x": thing, "y": torch.ones(2)})
    assert held_by(made, {"x": thing, "y": torch.ones(2)})
    for weight in weights:
        assert not holds(made, {"x": thing, "y": weight})
    assert holds(made, {"x": thing, "y": torch.ones(2)})


def test_many_fresh_tensors_must_differ_from_each_other_and_from_what_is_remembered() -> None:
    names = [f"y{at}" for at in range(20)]
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    fresh = tuple(Source.frame().child(Access.LOCAL, name) for name in names)

    def shown(**others: torch.Tensor) -> dict[str, Any]:
        return {"x": thing, **{name: torch.ones(2) for name in names}, **others}

    made = recorded(checker(guard(Test.UNIQUE, (item("one"), item("two"), *fresh))), shown())
    assert held_by(made, shown())
    twice = torch.ones(2)
    for name in names[1:]:
        assert not holds(made, shown(y0=twice, **{name: twice}))
        assert not holds(made, shown(**{name: thing.two}))
        assert held_by(made, shown())


def test_two_that_are_remembered_become_the_same() -> None:
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    two = thing.two
    made = recorded(checker(guard(Test.UNIQUE, (item("one"), item("two")))), {"x": thing})
    assert held_by(made, {"x": thing})
    thing.two = thing.one
    assert not holds(made, {"x": thing})
    thing.two = two
    assert holds(made, {"x": thing})


def test_two_that_are_remembered_are_no_longer_the_same() -> None:
    weight = torch.ones(2)
    thing: Any = Thing(one=weight, two=weight)
    made = recorded(checker(guard(Test.SAME, (item("one"), item("two")))), {"x": thing})
    assert held_by(made, {"x": thing})
    thing.two = torch.ones(2)
    assert not holds(made, {"x": thing})
    thing.two = weight
    assert holds(made, {"x": thing})


def test_an_argument_is_the_same_as_one_that_is_remembered() -> None:
    weight = torch.ones(2)
    thing: Any = Thing(one=weight)
    made = recorded(checker(guard(Test.SAME, (item("one"), Y))), {"x": thing, "y": weight})
    assert holds(made, {"x": thing, "y": weight})
    assert not holds(made, {"x": thing, "y": torch.ones(2)})
    thing.one = torch.ones(2)
    assert not holds(made, {"x": thing, "y": weight})


# -- what a failing check says -----------------------------------------------------------------------------------------


def failure_of(guards: list[Guard], shown: dict[str, Any], spoil: Callable[[], object], afterwards: Any = None) -> str:
    program = program_of(*guards)
    made = recorded(make_checker(program), shown)
    assert held_by(made, shown)
    spoil()
    assert not made.check(shown if afterwards is None else afterwards)
    assert made.last_failure is not None
    return str(program.meaning[made.last_failure])


def test_a_fact_that_fails_names_its_guard() -> None:
    thing: Any = Thing(one=1, two=2, three=3)
    guards = [equals(item(name), value) for name, value in vars(thing).items()]
    assert failure_of(guards, {"x": thing}, lambda: setattr(thing, "two", 5)) == "L['x'].__dict__['two'] == 2"


def test_a_missing_item_names_its_source() -> None:
    thing: Any = Thing(one=1, two=2)
    guards = [equals(item(name), value) for name, value in vars(thing).items()]
    assert failure_of(guards, {"x": thing}, lambda: delattr(thing, "two")) == "L['x'].__dict__['two']"


def test_a_tensor_that_fails_names_its_guard() -> None:
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    guards = [tensor_like(item(name), torch.ones(2)) for name in ("one", "two")]
    assert failure_of(guards, {"x": thing}, lambda: thing.two.resize_(3)) == str(guards[1])


def test_an_anchor_that_fails_names_its_guard() -> None:
    thing, part = Thing(flag=True, more=1), Thing(flag=True)
    guards = [equals(item("flag"), True), equals(item("more"), 1), equals(item("flag", Y), True)]
    other = {"x": thing, "y": Thing(flag=False)}
    assert failure_of(guards, {"x": thing, "y": part}, lambda: None, other) == str(guards[2])


def test_an_anchor_of_another_class_names_its_guard() -> None:
    thing: Any = Thing(flag=True, more=1)
    guards = [equals(item("flag"), True), equals(item("more"), 1), is_of(Y, Thing), equals(item("flag", Y), True)]
    other = {"x": thing, "y": Other(flag=True)}
    assert failure_of(guards, {"x": thing, "y": Thing(flag=True)}, lambda: None, other) == str(guards[2])


def test_the_state_of_the_thread_that_fails_names_its_guard() -> None:
    guards = [guard(Test.GLOBAL_STATE, (Source.frame(),), (_C.GlobalState(),)), equals(item("flag"), True)]
    try:
        assert failure_of(guards, {"x": Thing(flag=True)}, lambda: torch.set_grad_enabled(False)) == str(guards[0])
    finally:
        torch.set_grad_enabled(True)


# -- what is told of it ------------------------------------------------------------------------------------------------


def test_stats_count_what_was_held_repaired_and_recorded() -> None:
    before = unified_guards.stats()
    thing: Any = Thing(flag=True, other=0)
    made = recorded(checker(equals(item("flag"), True)), {"x": thing})
    thing.other = 1
    assert made.check({"x": thing})
    after = unified_guards.stats()
    assert after.witness_recorded - before.witness_recorded == told(made, "recorded") == 1
    assert after.witness_held - before.witness_held == told(made, "held") == 1
    assert after.witness_repaired - before.witness_repaired == told(made, "repaired")
    assert f"witness: {after.witness_held} checks passed by what was remembered" in str(after)
    assert (after.witness_off is None) is VERSIONED


def test_explain_says_what_is_remembered() -> None:
    with unified_guards.installed():
        _, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
    assert frame.roots == 1
    assert frame.tensors == 2
    assert frame.facts > 10
    assert 0 < frame.witness_nbytes < frame.program_nbytes
    assert any(str(live).startswith("L['x']") for live in frame.live)
    assert (
        f"  remembers of one object: {frame.facts} facts and 2 tensors to compare, in {frame.witness_nbytes} bytes; "
        f"evaluates {len(frame.live)} instructions on every check" in frame.summary().splitlines()
    )


def test_explain_says_of_how_many_objects() -> None:
    with unified_guards.installed():
        layers = [torch.nn.Linear(2, 2) for _ in range(3)]
        run = torch.compile(lambda layer, x: layer(x), backend="eager")
        for _ in range(3):
            for layer in layers:
                run(layer, torch.ones(1, 2))
        (frame,) = unified_guards.explain(run).frames
    assert frame.roots == 3
    assert "remembers of 3 objects: " in frame.summary()


def test_explain_says_nothing_of_it_when_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_WITNESS", "0")
    with unified_guards.installed():
        _, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
    assert (frame.roots, frame.facts, frame.tensors, frame.live, frame.witness_nbytes) == (0, 0, 0, (), 0)
    assert "remembers" not in frame.summary()


# -- whole programs ----------------------------------------------------------------------------------------------------


def test_a_compiled_module_is_compiled_again_when_it_has_changed() -> None:
    with unified_guards.installed():
        net, compiled = compiled_net()
        held = unified_guards.stats().witness_held
        compiled(torch.ones(1, 2))
        assert unified_guards.stats().witness_held == held + 1
        net.layer = copy.deepcopy(net.layer)
        with torch.no_grad():
            net.layer.weight.add_(1)
        x = torch.ones(1, 2)
        assert torch.equal(compiled(x), net.layer(x))
        net.layer.weight = torch.nn.Parameter(torch.ones(3, 2))
        net.layer.bias = torch.nn.Parameter(torch.ones(3))
        assert compiled(x).shape == (1, 3)


def test_a_training_step_is_remembered() -> None:
    with unified_guards.installed():
        net, compiled = compiled_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(6):
            held = unified_guards.stats().witness_held
            optimizer.zero_grad(set_to_none=True)
            compiled(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            assert step < 2 or unified_guards.stats().witness_held > held


# -- no watcher --------------------------------------------------------------------------------------------------------

TAKES_ALL_WATCHERS = """
import ctypes

import torch  # takes one of the eight itself, and cannot be imported without
import torch._dynamo

callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
ignore = callback(lambda event, table, key, value: 0)
add = ctypes.pythonapi.PyDict_AddWatcher
add.argtypes = [callback]
for _ in range(8):
    try:
        add(ignore)
    except RuntimeError:
        break

import unified_guards


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.negate = False

    def forward(self, x):
        return -x if self.negate else x + 0


unified_guards.install()
net = Net()
compiled = torch.compile(net, backend="eager")
for _ in range(5):
    assert compiled(torch.ones(1)).item() == 1
net.negate = True
assert compiled(torch.ones(1)).item() == -1
net.negate = False
assert compiled(torch.ones(1)).item() == 1
assert "no free dict watcher" in unified_guards.stats().witness_off, unified_guards.stats()
assert "dicts are evaluated on every check: " in str(unified_guards.stats())
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 dicts have version tags, and no watchers")
def test_without_a_free_watcher_verdicts_are_right_and_stats_say_why() -> None:
    done = subprocess.run([sys.executable, "-c", TAKES_ALL_WATCHERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
