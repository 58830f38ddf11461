"""A guard set travels as JSON: what comes back, and what cannot travel becomes opaque."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
import traceback
import types
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch._C._dynamo import guards as native

from unified_guards.guards import semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.guards.serialize import VERSION, dumps, loads

from ..corpus import ENTRIES
from ..corpus.compiled import Frame
from ..corpus.functions import global_helper
from ..corpus.objects import Frozen
from ..corpus.values import Color
from ..guards import equals, exists, local, type_is
from ..shapes import shape
from .making import ROOT, ROWS, X, golden, item, lifted, set_of

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
