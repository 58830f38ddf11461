"""``aot_function``: the arguments of a call, their tree, and which versions they make."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from functorch.compile import nop
from torch.utils import _pytree as pytree

import unified_guards

from .helpers import Keywords, check, ones


def test_a_second_call_like_the_first_is_a_hit() -> None:
    compiled = check(lambda x: x + 1, (ones(3),), compiles=1)
    info = compiled.cache_info()
    assert (info.hits, info.misses, info.entries) == (2, 1, 1)


CHANGES = {
    "size": ((ones(3),), (ones(4),)),
    "rank": ((ones(3),), (ones(3, 1),)),
    "stride": ((ones(3, 4),), (ones(4, 3).t(),)),
    "dtype": ((ones(3),), (ones(3, dtype=torch.float64),)),
    "requires_grad": ((ones(3),), (ones(3, requires_grad=True),)),
    "parameter": ((ones(3, requires_grad=True),), (torch.nn.Parameter(ones(3)),)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_metadata_gets_a_version_of_its_own(change: str) -> None:
    check(lambda x: x * 2, *CHANGES[change], compiles=2)


CONSTANTS = {
    "int": (2, 3),
    "bool": (True, False),
    "int and bool": (1, True),
    "float": (0.5, 1.5),
    "signed zero": (0.0, -0.0),
    "None": (None, 2),
    "str": ("sum", "mean"),
    "bytes": (b"a", b"b"),
    "complex": (1j, 2j),
    "dtype": (torch.float32, torch.float64),
    "device": (torch.device("cpu"), torch.device("meta")),
    "slice": (slice(0, 2), slice(1, 3)),
    "range": (range(2), range(3)),
    "Ellipsis": (..., None),
    "frozenset": (frozenset({1}), frozenset({2})),
    "function": (torch.sin, torch.cos),
    "type": (int, float),
    "enum": (unified_guards.guards.ir.Access.ATTR, unified_guards.guards.ir.Access.TYPE),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_an_argument_that_is_no_tensor_comes_out_as_it_came(kind: str) -> None:
    one, other = CONSTANTS[kind]
    compiled = unified_guards.aot_function(lambda x, value: (x + 1, value), nop)
    for value in (one, other, one, other):
        result, given = compiled(ones(3), value)
        assert type(given) is type(value)
        assert given is value or repr(given) == repr(value)
        torch.testing.assert_close(result, ones(3) + 1)
    assert compiled.cache_info().entries <= 2  # one, where Dynamo hands it through without looking at it
    assert compiled.cache_info().eager == {}


def test_a_dtype_device_or_slice_can_be_used() -> None:
    check(
        lambda x, dtype, part: x.to(dtype)[part] * 2,
        (ones(4), torch.float64, slice(0, 2)),
        (ones(4), torch.float32, slice(0, 2)),
        (ones(4), torch.float32, slice(1, 4)),
        compiles=3,
    )


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Box:
    content: Any
    label: str


pytree.register_dataclass(Box)


class Pair:
    def __init__(self, a: Any, b: Any) -> None:
        self.a = a
        self.b = b


pytree.register_pytree_node(Pair, lambda p: ([p.a, p.b], None), lambda children, _: Pair(*children))

TREES = {
    "tuple": (ones(2), (ones(3), 2)),
    "list": [ones(2), [ones(3)]],
    "dict": {"a": ones(2), "b": {"c": ones(3)}},
    "OrderedDict": collections.OrderedDict(a=ones(2), b=ones(3)),
    "defaultdict": collections.defaultdict(list, {"a": ones(2)}),
    "deque": collections.deque([ones(2), ones(3)]),
    "namedtuple": Point(ones(2), ones(3)),
    "registered dataclass": Box(ones(2), "label"),
    "int keys": {0: ones(2), 1: ones(3)},
    "torch.Size": (ones(6), torch.Size([2, 3])),
    "empty": {"a": [], "b": (), "c": ones(2)},
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_comes_in_and_goes_out_with_its_structure(kind: str) -> None:
    def function(tree: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, lambda x: x * 2, tree)

    check(function, (TREES[kind],), compiles=1)


def test_a_registered_class_of_the_user_comes_in_and_goes_out() -> None:
    compiled = unified_guards.aot_function(lambda pair: Pair(pair.a + pair.b, pair.a), nop)
    for _ in range(2):
        result = compiled(Pair(ones(2), ones(2)))
        assert type(result) is Pair
        torch.testing.assert_close((result.a, result.b), (ones(2) * 2, ones(2)))
    assert compiled.cache_info().hits == 2


STRUCTURES = [
    ([ones(2), ones(2)],),
    ((ones(2), ones(2)),),
    ([ones(2)],),
    ([ones(2), ones(2), ones(2)],),
    ({"a": ones(2), "b": ones(2)},),
    ({"b": ones(2), "a": ones(2)},),
    ({"a": ones(2), "c": ones(2)},),
    (collections.OrderedDict(a=ones(2), b=ones(2)),),
]


def test_another_structure_is_another_version() -> None:
    def function(tree: Any) -> Any:
        leaves = list(tree.values()) if isinstance(tree, dict) else list(tree)
        return type(tree).__name__, leaves[0] * 2, [leaf + at for at, leaf in enumerate(leaves)]

    check(function, *STRUCTURES, compiles=len(STRUCTURES))


def test_keyword_arguments_are_told_by_name_and_order() -> None:
    def function(x: torch.Tensor, **scales: Any) -> Any:
        return [x * value for value in scales.values()], list(scales)

    check(
        function,
        (ones(2), Keywords(a=ones(2), b=ones(2) * 2)),
        (ones(2), Keywords(b=ones(2) * 2, a=ones(2))),
        (ones(2), Keywords(a=ones(2))),
        (ones(2),),
        compiles=4,
    )


def test_no_tensor_at_all() -> None:
    check(lambda n: torch.arange(n) * 2, (3,), (4,), compiles=2)


def test_no_argument_at_all() -> None:
    check(lambda: torch.zeros(3) + 1, (), compiles=1)


def test_a_result_without_tensors() -> None:
    check(lambda x: (x.shape[0], "text", None, 1.5), (ones(3),), (ones(4),), compiles=2)


def test_a_flat_tuple_stays_a_tuple_and_a_single_tensor_a_tensor() -> None:
    compiled = check(lambda x: (x + 1, x + 2), (ones(3),), compiles=1)
    assert type(compiled(ones(3))) is tuple
    assert isinstance(check(lambda x: x + 1, (ones(3),))(ones(3)), torch.Tensor)
