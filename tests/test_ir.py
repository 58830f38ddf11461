"""The GuardSet as a value: interning, text, JSON, provenance, lifetime and lowering."""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import pickle
import re
import subprocess
import sys
import textwrap
import traceback
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._C._dynamo import guards as native

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.guards import ir, semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.guards.serialize import VERSION, dumps, loads
from unified_guards.lower.rows import CannotLower, lower, make_checker

from .corpus import ENTRIES
from .corpus.compiled import Frame
from .corpus.functions import global_helper
from .corpus.objects import Frozen
from .corpus.values import Color
from .guards import equals, exists, local, type_is
from .shapes import shape

ROOT = __file__.rpartition("tests")[0]
DYNAMO = Provenance("dynamo", "a part of code")


def item(key: object, base: Source | None = None) -> Source:
    return (base or local()).child(Access.DICT_ITEM, key)


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((item, DYNAMO) for item in guards)


def lifted(function: Callable[..., Any], *args: Any, **options: Any) -> GuardSet:
    """The guards of a function's only cache entry."""
    torch._dynamo.reset()
    with unified_guards.installed():
        torch.compile(function, backend="eager", **options)(*args)
    (report,) = unified_guards.explain(function).frames
    assert report.guard_set is not None
    return report.guard_set


# -- interning ---------------------------------------------------------------------------------------------------------

KEYS = ["a", 1, 2.5, None, True, b"a", (1, "a"), 1 + 2j, slice(1, 2), -0.0, 0.0, (True,), (1,), int, 10**30, "1"]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_the_same_path_is_the_same_object(key: object) -> None:
    assert item(key) is item(copy.copy(key))


def test_keys_that_differ_are_different_sources() -> None:
    sources = [item(key) for key in KEYS]
    assert len({id(source) for source in sources}) == len(KEYS)


@pytest.mark.parametrize("access", [Access.DICT_ITEM, Access.ITEM, Access.ATTR, Access.GENERIC_ATTR])
def test_the_way_of_access_is_part_of_the_path(access: Access) -> None:
    others = {Access.DICT_ITEM, Access.ITEM, Access.ATTR, Access.GENERIC_ATTR} - {access}
    assert all(local().child(access, "a") is not local().child(other, "a") for other in others)


def test_the_base_is_part_of_the_path() -> None:
    assert item("a", local("x")) is not item("a", local("y"))


def test_depth_counts_the_steps_from_the_frame() -> None:
    assert [Source.frame().depth, local().depth, item("a").depth] == [0, 1, 2]


VALUES = [3, True, 3.0, 0.0, -0.0, float("inf"), "3", None, (3,), (3.0,), (True,), b"3", slice(0, 3), 3j]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_same_guard_is_the_same_object(value: object) -> None:
    assert equals(local(), value) is equals(local(), copy.deepcopy(value))


def test_guards_that_differ_in_a_value_are_different() -> None:
    guards = [equals(local(), value) for value in VALUES]
    assert len(set(guards)) == len(VALUES)


def test_guards_on_mutable_values_are_the_same_only_for_the_same_object() -> None:
    value = [1]
    assert equals(local(), value) is equals(local(), value)
    assert equals(local(), value) is not equals(local(), [1])


@pytest.mark.parametrize(
    "wrap", [float, lambda value: (value,), lambda value: complex(value, 0)], ids=["", "tuple", "complex"]
)
def test_guards_on_two_nans_are_two_guards(wrap: Callable[[float], Any]) -> None:
    """A NaN is equal to nothing but itself: another one must not take its place."""
    first, second = wrap(float("nan")), wrap(float("nan"))
    guards = [equals(local(), first), equals(local(), second)]
    assert guards[0] is not guards[1]
    for found, value in zip(guards, (first, second), strict=True):
        assert make_checker(lower(set_of(found))).check({"x": value})


def test_the_order_of_related_sources_matters() -> None:
    x, y = local("x"), local("y")
    assert guard(Test.SAME, (x, y)) is not guard(Test.SAME, (y, x))
    assert guard(Test.SAME, (x, y)) is guard(Test.SAME, (x, y))


@pytest.mark.parametrize(("node", "name"), [(local(), "key"), (equals(local(), 3), "params")], ids=["source", "guard"])
def test_a_node_cannot_be_changed(node: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(node, name, getattr(node, name))
    with pytest.raises(AttributeError):
        node.another = 1


@pytest.mark.parametrize("node", [local(), equals(local(), 3)], ids=["source", "guard"])
def test_a_node_refuses_to_be_pickled_and_says_what_to_do(node: object) -> None:
    with pytest.raises(TypeError, match="to_json"):
        pickle.dumps(node)


# -- sets --------------------------------------------------------------------------------------------------------------


def test_sets_of_the_same_guards_are_equal_whoever_made_them() -> None:
    first = GuardSet([(equals(local(), 3), Provenance("dynamo"))])
    second = GuardSet([(equals(local(), 3), Provenance("aot"))])
    assert first == second
    assert hash(first) == hash(second)


def test_sets_in_another_order_differ() -> None:
    one, two = equals(local("x"), 3), equals(local("y"), 3)
    assert set_of(one, two) != set_of(two, one)


def test_a_set_is_not_equal_to_a_list_of_its_guards() -> None:
    one = equals(local(), 3)
    assert set_of(one) != [one]


def test_a_guard_that_comes_twice_is_kept_once_with_both_provenances() -> None:
    one = equals(local(), 3)
    both = GuardSet([(one, Provenance("dynamo")), (one, Provenance("aot"))])
    assert list(both) == [one]
    assert both.provenance(one) == (Provenance("dynamo"), Provenance("aot"))
    assert both.counts_by_provenance() == {"dynamo": 1, "aot": 1}


def test_entries_rebuild_the_set() -> None:
    one, two = equals(local("x"), 3), equals(local("y"), 3)
    first = GuardSet([(one, Provenance("dynamo")), (two, Provenance("aot")), (one, Provenance("shape_env"))])
    second = GuardSet(first.entries())
    assert second == first
    assert list(second.entries()) == list(first.entries())


def test_the_provenance_of_a_stranger_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        set_of(equals(local(), 3)).provenance(equals(local(), 4))


def test_membership_is_by_guard() -> None:
    assert equals(local(), 3) in set_of(equals(local(), 3))
    assert equals(local(), 4) not in set_of(equals(local(), 3))


def test_sources_include_those_on_the_way() -> None:
    assert set_of(equals(item("b", item("a")), 3)).sources() == {
        Source.frame(),
        local(),
        item("a"),
        item("b", item("a")),
    }


# -- text --------------------------------------------------------------------------------------------------------------

TEXTS = {
    "L['x']": local(),
    "L['x']['a']": item("a"),
    "L['x'].a": local().child(Access.ATTR, "a"),
    "object.__getattribute__(L['x'], 'a')": local().child(Access.GENERIC_ATTR, "a"),
    "G['a']": item("a", Source.frame().child(Access.GLOBALS, {})),
    "L['x'].__dict__": local().child(Access.GENERIC_DICT),
    "type(L['x']).__mro__": local().child(Access.TYPE).child(Access.TYPE_MRO),
    "L['x'].size()[1]": local().child(Access.TENSOR_SIZE, 1),
    "list(L['x'])[0]": local().child(Access.DICT_KEY_AT, 0),
    "list(L['x'].values())[0]": local().child(Access.DICT_VALUE_AT, 0),
    "L['x']()": local().child(Access.WEAKREF_CALL),
    "len(L['x'])": local().child(Access.CALL1, len),
    "<frame>": Source.frame(),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_source_reads_like_python(text: str) -> None:
    assert str(TEXTS[text]) == text


X, Y = local("x"), local("y")
ROWS = X.child(Access.TENSOR_SIZE, 0)
GUARD_TEXTS = {
    "list(L['x']) is ('a', 1), in order": guard(Test.KEYS, (X,), (("a", 1),)),
    "L['x'].size()[0] > 2 * L['y'] + 10": shape("v0 > 2*v1 + 10", ROWS, Y),
    "L['x'] is exactly (1, True)": guard(Test.DEEP_EQUALS, (X,), ((1, True),)),
    "L['x'] is tests.corpus.functions.global_helper": guard(
        Test.IS_TARGET, (X,), (weakref.ref(global_helper), "tests.corpus.functions.global_helper")
    ),
    "no two of (L['x'], L['y']) share memory": guard(Test.UNIQUE_STORAGE, (X, Y)),
    "L['y'] shares the memory of L['x']": guard(Test.SHARES_STORAGE, (X, Y)),
}


@pytest.mark.parametrize("text", GUARD_TEXTS)
def test_a_guard_reads_like_python(text: str) -> None:
    assert str(GUARD_TEXTS[text]) == text


@pytest.mark.parametrize("text", GUARD_TEXTS)
def test_a_guard_made_again_is_the_same_object(text: str) -> None:
    made = GUARD_TEXTS[text]
    assert guard(made.test, made.sources, copy.deepcopy(made.params)) is made


@pytest.mark.parametrize("access", list(Access), ids=lambda access: access.name)
def test_every_access_has_a_text(access: Access) -> None:
    assert Source.frame().child(access, 0).text is not None


GOLDEN = """\
type(L['d']) is dict
L['d']['a'] == 3
type(L['d']['b']) is list
len(L['d']['b']) == 1
L['d']['b'][0] == 'text'
L['x'] is torch.Tensor float32[2, 3] strides (3, 1) device -1
L['x'] is marked no further than {}
L['flag'] is True
"""


def golden(x: torch.Tensor, flag: bool, d: dict[str, Any]) -> torch.Tensor:
    return x * d["a"] if flag and d["b"][0] == "text" else x


def about_locals(guard_set: GuardSet) -> str:
    return "".join(f"{item}\n" for item in guard_set if item.source is not Source.frame())


@pytest.mark.skipif(compat.TORCH < (2, 13), reason="torch 2.11 guards the marking of dimensions otherwise")
def test_the_text_of_a_small_function() -> None:
    assert about_locals(lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})) == GOLDEN


def test_the_text_repeats_from_compile_to_compile_and_holds_no_addresses() -> None:
    texts = [about_locals(lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})) for _ in range(2)]
    assert texts[0] == texts[1]
    assert not re.search(r"0x[0-9a-f]{6}", texts[0])


def test_the_text_of_a_set_names_the_makers() -> None:
    stack = traceback.StackSummary.from_list([("model.py", 7, "forward", None)])
    text = str(GuardSet([(equals(local(), 3), Provenance("dynamo", "code", stack))]))
    assert text == "L['x'] == 3  # dynamo, model.py:7"


# -- provenance --------------------------------------------------------------------------------------------------------


def test_a_guard_knows_the_line_that_made_it() -> None:
    def function(x: torch.Tensor, d: dict[str, int]) -> torch.Tensor:
        x = x + 1
        return x * d["a"]  # this line

    guard_set = lifted(function, torch.ones(2), {"a": 3})
    (maker,) = guard_set.provenance(equals(item("a", local("d")), 3))
    assert maker.maker == "dynamo"
    assert maker.file == __file__
    assert maker.line == function.__code__.co_firstlineno + 2
    assert "L['d']['a'] == 3" in maker.code


def test_shape_guards_are_the_shape_envs() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.size(0) > 3 else x

    counts = lifted(function, torch.ones(8), dynamic=True).counts_by_provenance()
    assert counts["shape_env"] >= 1
    assert counts["dynamo"] >= 1


def test_provenance_without_a_stack_has_no_line() -> None:
    assert (Provenance("aot").file, Provenance("aot").line, str(Provenance("aot"))) == (None, None, "aot")


# -- lifetime ----------------------------------------------------------------------------------------------------------


def test_nodes_die_with_their_set() -> None:
    guard_set = set_of(equals(item("only here"), 3))
    nodes = [weakref.ref(next(iter(guard_set))), weakref.ref(item("only here"))]
    assert all(node() is not None for node in nodes)
    del guard_set
    gc.collect()
    assert [node() for node in nodes] == [None, None]


def test_the_tables_of_nodes_do_not_grow() -> None:
    gc.collect()
    before = len(ir._sources), len(ir._guards)
    for count in range(100):
        set_of(equals(item(f"unlike any other {count}"), count))
    gc.collect()
    assert (len(ir._sources), len(ir._guards)) == before


def test_a_base_lives_as_long_as_what_is_below_it() -> None:
    below = item("b", item("a", local("held by its child")))
    gc.collect()
    assert str(below) == "L['held by its child']['a']['b']"


def test_a_set_pins_no_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def function(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m(x)

    guard_set = lifted(function, model, torch.ones(1, 2))
    watched = weakref.ref(model)
    del model
    torch._dynamo.reset()
    gc.collect()
    assert len(guard_set) > 5
    assert watched() is None


def test_a_checker_pins_no_model() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    model = Own()
    guard_set = lifted(lambda m, x: m(x), model, torch.ones(2))
    checker = make_checker(lower(guard_set))
    watched = weakref.ref(model)
    checker.check({"m": model, "x": torch.ones(2)})
    del model
    torch._dynamo.reset()
    gc.collect()
    assert watched() is None
    assert not checker.check({"m": Own(), "x": torch.ones(3)})


# -- lowering ----------------------------------------------------------------------------------------------------------

OP_NAMES = {number: name for name, number in _C.OPS.items()}
ACCESSORS = set(range(_C.OPS["DICT_VALUE_AT"] + 1))


#: Checked on the frame, whatever they are about.
WHOLE_FRAME = (Test.SHAPE, Test.EXPRESSION)


def op_names(guard_set: GuardSet) -> list[str]:
    return [OP_NAMES[row[0]] for row in lower(guard_set).rows]


@pytest.mark.parametrize("name", ENTRIES)
def test_parents_come_before_children(name: str) -> None:
    program = lower(Frame(ENTRIES[name]()).guard_set)
    shapes = program.meaning[len(program.rows) :]
    assert all(isinstance(item, Guard) and item.test is Test.EXPRESSION for item in shapes)
    registers: list[Source] = [Source.frame()]
    for (op, base, *_), meaning in zip(program.rows, program.meaning, strict=False):
        assert base < len(registers), "reads a register that nothing wrote"
        if op in ACCESSORS:
            assert isinstance(meaning, Source)
            assert meaning.base is registers[base], "reads another source than the parent"
            registers[base + 1 :] = [meaning]
        elif isinstance(meaning, Guard) and len(meaning.sources) == 1 and meaning.test not in WHOLE_FRAME:
            assert registers[base] is meaning.source or op == _C.OPS["TORCH_FUNCTION_OFF"]


def test_an_accessor_is_emitted_once_for_all_guards_below_it() -> None:
    below = [equals(item(key, item("d")), key) for key in ("a", "b", "c")]
    assert op_names(set_of(*below)) == [
        "TORCH_FUNCTION_OFF",
        "DICT_ITEM",
        "DICT_ITEM",
        *("DICT_ITEM", "EQUALS") * 3,
    ]


def test_guards_on_the_frame_run_under_the_callers_torch_function_state() -> None:
    ambient = guard(Test.DUAL_LEVEL, (Source.frame(),), (-1,))
    assert op_names(set_of(ambient, equals(local(), 3)))[:2] == ["DUAL_LEVEL", "TORCH_FUNCTION_OFF"]


def test_shape_guards_of_one_function_are_one_call() -> None:
    def function(f_locals: dict[str, Any]) -> bool:
        return True

    shapes = [guard(Test.SHAPE, (Source.frame(),), (function, text)) for text in ("a < b", "b < c")]
    assert op_names(set_of(*shapes)).count("PREDICATE") == 1


def test_existence_is_the_accessor_itself() -> None:
    assert op_names(set_of(exists(local()))) == ["TORCH_FUNCTION_OFF", "DICT_ITEM"]


def test_an_opaque_guard_is_refused_with_its_reason() -> None:
    opaque = guard(Test.OPAQUE, (local(),), ("came from far away",))
    with pytest.raises(CannotLower, match="came from far away"):
        lower(set_of(opaque))


def test_every_test_but_the_opaque_one_can_be_lowered_or_is_a_relation() -> None:
    from unified_guards.lower.rows import _ROWS

    elsewhere = ir.RELATIONAL | {Test.EXISTS, Test.SHAPE}
    assert set(_ROWS) | elsewhere == set(Test)


def test_every_access_can_be_lowered() -> None:
    for access in set(Access) - {Access.FRAME}:
        lower(set_of(exists(Source.frame().child(access, 0))))


def test_all_expressions_are_one_code_at_the_end() -> None:
    x, y, z = (local(name) for name in "xyz")
    first, second = shape("v0 < v1", x, y), shape("v0 < v1", y, z)
    program = lower(set_of(first, guard(Test.SAME, (z, x)), second, equals(x, 1)))
    names = [OP_NAMES[row[0]] for row in program.rows]
    assert names.count("SHAPES") == 1
    assert names[-1] == "SHAPES"
    assert program.meaning[len(names) :] == [first, second]


def test_a_source_is_gathered_where_the_walk_leaves_it() -> None:
    a, b = item("a"), item("b")
    program = lower(set_of(equals(a, 1), equals(b, 2)), [b, local(), a])
    assert [OP_NAMES[row[0]] for row in program.rows] == [
        *("TORCH_FUNCTION_OFF", "DICT_ITEM", "DICT_ITEM", "EQUALS", "GATHER"),
        *("DICT_ITEM", "EQUALS", "GATHER", "GATHER"),
    ]
    gathered = [
        (row[2], meaning)
        for row, meaning in zip(program.rows, program.meaning, strict=True)
        if OP_NAMES[row[0]] == "GATHER"
    ]
    assert gathered == [(2, a), (0, b), (1, local())]


def test_a_gathered_source_without_a_guard_is_reached() -> None:
    assert [OP_NAMES[row[0]] for row in lower(GuardSet([]), [item("a"), item("a")]).rows] == [
        *("TORCH_FUNCTION_OFF", "DICT_ITEM", "DICT_ITEM", "GATHER", "GATHER")
    ]


def test_a_negative_index_is_never_there() -> None:
    guard_set = set_of(equals(local().child(Access.LIST_ITEM, -1), 3))
    assert not make_checker(lower(guard_set)).check({"x": [3]})
    assert not semantics.evaluate(guard_set, {"x": [3]})


def test_the_empty_set_holds() -> None:
    assert make_checker(lower(GuardSet([]))).check({})
    assert semantics.evaluate(GuardSet([]), {})


# -- JSON --------------------------------------------------------------------------------------------------------------

FACTS = TensorFacts(id(torch.Tensor), 2**40 + 1, 6, -1, False, (2, None), (1, None), False, "torch.Tensor", "float32")
PORTABLE: dict[str, Guard] = {
    f"value {re.sub(' at 0x.*>', '>', repr(value))}": equals(local(), value)
    for value in [
        *(3, -(2**70), True, None, 2.5, -0.0, float("inf"), float("-inf"), float("nan"), "täxt\ud800", b"\x00\xff"),
        *(1 + 2j, complex(math.nan, -0.0), (1, ("a", 2.5)), (), slice(1, None), range(3), torch.Size([2, 3])),
        *(frozenset({1, 2}), torch.float32, torch.device("meta"), torch.strided, torch.channels_last, Color.RED),
        *(int, nn.Linear, dict, Frozen, types.FunctionType, len, math.sin, global_helper, torch.nn, math),
        *([1, [2]], {"a": [1], 2: None}, {1, "a"}),
    ]
} | {
    "exists": exists(local()),
    "type": type_is(local(), dict),
    "type of the user": guard(Test.TYPE_IS, (local(),), (id(Frozen), "tests.corpus.objects.Frozen")),
    "type of functions": guard(Test.TYPE_IS, (local(),), (id(types.FunctionType), "function")),
    "None": guard(Test.IS, (local(),), (id(None), "None")),
    "not None": guard(Test.IS_NOT, (local(),), (id(None), "None")),
    "a module": guard(Test.IS, (local(),), (id(torch.nn), "torch.nn")),
    "a function": guard(Test.IS, (local(),), (id(global_helper), "tests.corpus.functions.global_helper")),
    "bits": guard(Test.SAME_BITS, (local(),), (-0.0,)),
    "deep equality": guard(Test.DEEP_EQUALS, (local(),), ([1, (True, {-0.0})],)),
    "what a weak reference leads to": guard(
        Test.IS_TARGET, (local(),), (weakref.ref(global_helper), "tests.corpus.functions.global_helper")
    ),
    "length": guard(Test.LENGTH, (local(),), (3, True)),
    "tuple iterator": guard(Test.TUPLE_ITER_LEN, (local(),), (2, id(type(iter(()))))),
    "range iterator": guard(Test.RANGE_ITER, (local(),), (0, 4, 2, id(type(iter(range(0)))))),
    "keys": guard(Test.MAPPING_KEYS, (local(),), (("a", 1),)),
    "exact keys": guard(Test.KEYS, (local(),), (("a", 1, (True, 2.0)),)),
    "contains": guard(Test.DICT_CONTAINS, (local(),), ((1, "a"), False)),
    "no attribute": guard(Test.NO_ATTR, (local(),), ("a",)),
    "mode stack": guard(Test.MODE_STACK, (Source.frame(),), ((nn.Linear, int),)),
    "global state": guard(Test.GLOBAL_STATE, (Source.frame(),), (native.GlobalStateGuard(),)),
    "inference mode": guard(Test.INFERENCE_MODE, (Source.frame(),), (True,)),
    "default device": guard(Test.DEFAULT_DEVICE, (Source.frame(),), (torch.device("meta"),)),
    "marking": guard(Test.DIM_MARKING, (local(),), ({"_dynamo_dynamic_indices": {0}}, ["a"], {"b": (None, "c")})),
    "tensor": guard(Test.TENSOR, (local(),), (FACTS,)),
    "predicate": guard(Test.PREDICATE, (local(),), (callable, "callable(x)")),
    "unique": guard(Test.UNIQUE, (local("x"), local("y"), local("z"))),
    "same": guard(Test.SAME, (local("x"), local("y"))),
    "overlap": guard(Test.OVERLAP, (local("x"), local("y")), (1,)),
    "no shared memory": guard(Test.UNIQUE_STORAGE, (local("x"), local("y"), local("z"))),
    "shared memory": guard(Test.SHARES_STORAGE, (local("x"), local("y"))),
    "an expression": shape("v0 <= max(v1, 4) and not math.isnan(v1)", X, ROWS),
    "a deep source": equals(item((1, "a"), local().child(Access.ATTR, "b").child(Access.LIST_ITEM, 2)), 3),
    "an imported module": exists(Source.frame().child(Access.CONSTANT, torch.nn).child(Access.ATTR, "a")),
    "a callable on the way": exists(local().child(Access.CALL1, len)),
}


@pytest.mark.parametrize("name", PORTABLE)
def test_json_gives_back_the_very_guard(name: str) -> None:
    guard_set = set_of(PORTABLE[name])
    assert list(loads(dumps(guard_set))) == [PORTABLE[name]]


@pytest.mark.parametrize("name", PORTABLE)
def test_json_alone_is_enough_to_make_the_guard_again(name: str) -> None:
    """Not only while the guard that was written is still alive."""
    text = dumps(set_of(PORTABLE[name]))
    from unified_guards.guards import serialize

    serialize._written.clear()
    (made,) = loads(text)
    assert made.test is PORTABLE[name].test
    assert dumps(set_of(made)) == text


def test_json_keeps_order_and_provenance() -> None:
    stack = traceback.StackSummary.from_list([("a.py", 3, "outer", None), ("b.py", 4, "inner", None)])
    one, two = equals(local("x"), 3), equals(local("y"), 4)
    guard_set = GuardSet(
        [
            (two, Provenance("dynamo", "code 1", stack)),
            (one, Provenance("aot")),
            (two, Provenance("shape_env", "code 2")),
        ]
    )
    loaded = GuardSet.from_json(guard_set.to_json())
    assert loaded == guard_set
    assert list(loaded.entries()) == list(guard_set.entries())
    assert loaded.provenance(two)[0].line == 4


CODE = local.__code__
STAYING = {
    "an address": guard(Test.IS, (local(),), (id(PORTABLE), "that dict")),
    "a weak reference": guard(Test.IS_TARGET, (local(),), (weakref.ref(CODE), "that code")),
    "a dead weak reference": guard(Test.IS_TARGET, (local(),), (weakref.ref(lambda: None), "a function")),
    "a lambda": guard(Test.PREDICATE, (local(),), (lambda x: True, "x is fine")),
    "a dict version": guard(Test.DICT_VERSION, (local(),), (7,)),
    "hooks": guard(Test.SAVED_HOOKS, (Source.frame(),), ((1, 2), lambda x: True)),
    "compiled code": guard(Test.SHAPE_CALL, (local(),), (1, 0, 1234, "x > 2", None)),
    "an own object": equals(local(), object()),
    "a key of its own": equals(item(object()), 3),
    "a lambda on the way": equals(local().child(Access.CALL1, lambda x: x), 3),
    "a local class": type_is(local(), type("Local", (), {})),
    "a built-in method": equals(local(), PORTABLE.setdefault),
}
UNREACHABLE = {"a key of its own", "a lambda on the way"}


@pytest.mark.parametrize("name", STAYING)
def test_what_cannot_travel_becomes_opaque_with_the_reason(name: str) -> None:
    (loaded,) = loads(dumps(set_of(STAYING[name])))
    assert loaded.test is Test.OPAQUE
    source = STAYING[name].source
    assert loaded.sources == ((source.base if name in UNREACHABLE else source),)
    assert len(loaded.params[0]) > 10
    assert not re.search(r" at 0x", loaded.params[0])


def test_an_opaque_guard_never_holds() -> None:
    loaded = loads(dumps(set_of(STAYING["a lambda"])))
    assert semantics.evaluate(set_of(STAYING["a lambda"]), {"x": 1})
    assert not semantics.evaluate(loaded, {"x": 1})


def test_a_value_that_contains_itself_is_opaque() -> None:
    endless: list[Any] = []
    endless.append(endless)
    (loaded,) = loads(dumps(set_of(guard(Test.DIM_MARKING, (local(),), ({}, endless, {})))))
    assert loaded.test is Test.OPAQUE


def test_one_guard_that_stays_does_not_keep_the_others() -> None:
    portable = equals(local("y"), 3)
    loaded = loads(dumps(set_of(STAYING["a key of its own"], portable)))
    assert [item.test for item in loaded] == [Test.OPAQUE, Test.EQUALS]
    assert list(loaded)[1] is portable


def test_a_name_that_is_not_found_makes_its_guard_opaque() -> None:
    text = dumps(set_of(PORTABLE["type of the user"])).replace("objects:Frozen", "objects:Melted")
    (loaded,) = loads(text)
    assert loaded.test is Test.OPAQUE
    assert "Melted" in loaded.params[0]


def test_a_name_of_something_else_makes_its_guard_opaque() -> None:
    text = dumps(set_of(PORTABLE["type of the user"])).replace("tests.corpus.objects:Frozen", "os:fork")
    text = text.replace("os:fork", "os:path")  # calls itself posixpath
    (loaded,) = loads(text)
    assert loaded.test is Test.OPAQUE


def test_captured_globals_stand_for_the_given_ones() -> None:
    scope = {"g": 3}
    guard_set = set_of(equals(item("g", Source.frame().child(Access.GLOBALS, scope)), 3))
    text = dumps(guard_set)
    loaded = loads(text)
    assert semantics.evaluate(guard_set, {})
    assert not semantics.evaluate(loaded, {})
    assert semantics.evaluate(loaded, {}, {"g": 3})
    assert not semantics.evaluate(loaded, {}, {"g": 4})
    assert dumps(loaded) == text


@pytest.mark.parametrize("name", ENTRIES)
def test_a_compiled_set_is_stable_after_one_trip(name: str) -> None:
    guard_set = Frame(ENTRIES[name]()).guard_set
    loaded = loads(dumps(guard_set))
    assert list(loads(dumps(loaded)).entries()) == list(loaded.entries())
    assert loads(dumps(loaded)) == loaded


def test_a_compiled_set_without_globals_comes_back_equal() -> None:
    guard_set = lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})
    loaded = loads(dumps(guard_set))
    assert loaded == guard_set
    assert list(loaded.entries()) == list(guard_set.entries())


def test_a_set_means_the_same_in_another_process() -> None:
    guard_set = lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})
    script = """
        import sys, torch
        from unified_guards import GuardSet
        from unified_guards.guards import semantics
        guard_set = GuardSet.from_json(sys.stdin.read())
        good = {"x": torch.ones(2, 3), "flag": True, "d": {"a": 3, "b": ["text"]}}
        assert semantics.evaluate(guard_set, good), semantics.explain_failure(guard_set, good)
        for name, other in {"x": torch.ones(3, 3), "flag": False, "d": {"a": 4, "b": ["text"]}}.items():
            assert not semantics.evaluate(guard_set, {**good, name: other}), name
        print(guard_set.to_json(), end="")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        input=dumps(guard_set),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == dumps(guard_set)


GOOD: dict[str, Any] = json.loads(dumps(set_of(equals(item("a"), 3))))
MALFORMED: dict[str, Any] = {
    "not JSON": "{",
    "not an object": "[]",
    "no version": {key: value for key, value in GOOD.items() if key != "unified_guards"},
    "another version": GOOD | {"unified_guards": VERSION + 1},
    "another torch": GOOD | {"torch": "1.0"},
    "no sources": {key: value for key, value in GOOD.items() if key != "sources"},
    "sources that are no table": GOOD | {"sources": 3},
    "a source of two fields": GOOD | {"sources": [["FRAME", None]]},
    "an unknown access": GOOD | {"sources": [["FRAME", None, None], ["TELEPATHY", "x", 0], ["DICT_ITEM", "a", 1]]},
    "a base that comes later": GOOD | {"sources": [["FRAME", None, None], ["LOCAL", "x", 2], ["DICT_ITEM", "a", 1]]},
    "a negative base": GOOD | {"sources": [["FRAME", None, None], ["LOCAL", "x", -1], ["DICT_ITEM", "a", 1]]},
    "a path from nowhere": GOOD | {"sources": [["LOCAL", "x", None]] * 3},
    "a name that is a number": GOOD | {"sources": [["FRAME", None, None], ["LOCAL", 1, 0], ["DICT_ITEM", "a", 1]]},
    "an unknown test": GOOD | {"guards": [["GUESS", [2], [3], [["dynamo", "", None]]]]},
    "a source out of range": GOOD | {"guards": [["EQUALS", [3], [3], [["dynamo", "", None]]]]},
    "no source": GOOD | {"guards": [["EQUALS", [], [3], [["dynamo", "", None]]]]},
    "too many params": GOOD | {"guards": [["EQUALS", [2], [3, 4], [["dynamo", "", None]]]]},
    "an expression that is none": GOOD | {"guards": [["EXPRESSION", [2], ["exit()"], [["dynamo", "", None]]]]},
    "an expression of more": GOOD | {"guards": [["EXPRESSION", [2], ["v0 < v1"], [["dynamo", "", None]]]]},
    "a wrong param": GOOD | {"guards": [["LENGTH", [2], ["3", True], [["dynamo", "", None]]]]},
    "an unknown kind of value": GOOD | {"guards": [["EQUALS", [2], [{"pickle": "x"}], [["dynamo", "", None]]]]},
    "a value of two kinds": GOOD | {"guards": [["EQUALS", [2], [{"int": "1", "float": "1"}], [["dynamo", "", None]]]]},
    "a bare array": GOOD | {"guards": [["EQUALS", [2], [[1]], [["dynamo", "", None]]]]},
    "a broken number": GOOD | {"guards": [["EQUALS", [2], [{"float": "many"}], [["dynamo", "", None]]]]},
    "a wrong dtype": GOOD | {"guards": [["EQUALS", [2], [{"torch": "save"}], [["dynamo", "", None]]]]},
    "no provenance": GOOD | {"guards": [["EQUALS", [2], [3], []]]},
    "a stack out of range": GOOD | {"guards": [["EQUALS", [2], [3], [["dynamo", "", 5]]]]},
    "a stack that is no table": GOOD | {"stacks": [[1]]},
    "a wrong provenance": GOOD | {"guards": [["EQUALS", [2], [3], [[1, 2, None]]]]},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json_is_a_value_error_that_says_so(name: str) -> None:
    text = MALFORMED[name]
    with pytest.raises(ValueError, match=r"not the JSON of a GuardSet that can be read here: .+"):
        loads(text if isinstance(text, str) else json.dumps(text))


def test_the_error_for_another_version_names_both() -> None:
    with pytest.raises(ValueError, match=f"version {VERSION + 1}.*version {VERSION}"):
        loads(json.dumps(GOOD | {"unified_guards": VERSION + 1}))


def test_what_is_good_about_the_malformed_ones_is_accepted() -> None:
    assert list(loads(json.dumps(GOOD))) == [equals(item("a"), 3)]
