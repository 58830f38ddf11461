"""A plain value becomes another one: one recompile for each distinct value or type."""

from __future__ import annotations

import copy
import functools
import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo

from ..harness import TORCH, assert_same, ones, static
from .values import Colour, Level, MyInt, MyStr, OtherPlain, Pair, Plain, negate, twice


def equal_copy(value: Any) -> Any:
    """An equal object, not the same one where the type allows two."""
    if type(value) is str:
        return "".join(list(value))
    if type(value) in (int, float, complex):
        return type(value)(repr(value))
    return copy.deepcopy(value)


class ChangedValues:
    """One recompile per distinct value or type of a Python argument, none for an equal one."""

    CONSTANTS = {
        "int": (1000, 1001),
        "negative_int": (-7, -8),
        "huge_int": (2**70, 2**70 + 1),
        "zero_and_one": (0, 1),
        "one_and_true": (1, True),
        "one_and_float": (1, 1.0),
        "bool": (True, False),
        "false_and_none": (False, None),
        "float": (1.5, 2.5),
        "infinity": (float("inf"), float("-inf")),
        "complex": (1 + 2j, 1 - 2j),
        "str": ("left_side", "right_side"),
        "unicode": ("grün", "grue\u0308n"),
        "bytes": (b"left", b"right"),
        "none_to_value": (None, 2),
        "value_to_none": ("some", None),
        "dtype": (torch.float32, torch.float64),
        "device": (torch.device("cpu"), torch.device("meta")),
        "layout": (torch.strided, torch.sparse_coo),
        "memory_format": (torch.contiguous_format, torch.channels_last),
        "size": (torch.Size([2, 3]), torch.Size([3, 2])),
        "enum": (Colour.RED, Colour.BLUE),
        "int_enum": (Level.LOW, Level.HIGH),
        "int_subclass": (MyInt(5), MyInt(6)),
        "str_subclass": (MyStr("a"), "a"),
        "tuple": ((1, "a"), (1, "b")),
        "nested_tuple": ((1, (2, 3)), (1, (2, 4))),
        "tuple_length": ((1, 2), (1, 2, 3)),
        "namedtuple": (Pair(1, 2), Pair(1, 3)),
        "namedtuple_and_tuple": (Pair(1, 2), (1, 2)),
        "list": ([1, 2], [1, 3]),
        "list_and_tuple": ([1, 2], (1, 2)),
        "dict": ({"a": 1}, {"a": 2}),
        "set": ({1, 2}, {1, 3}),
        "frozenset": (frozenset({"a"}), frozenset({"b"})),
        "range": (range(5), range(6)),
        "slice": (slice(0, 2), slice(0, 3)),
        "type": (int, float),
        "class": (Plain, OtherPlain),
        "builtin": (math.sin, math.cos),
        "module": (math, types),
    }

    @pytest.mark.parametrize("name", CONSTANTS)
    def test_recompiles_for(self, name: str) -> None:
        if TORCH < (2, 13) and name in ("int_subclass", "str_subclass", "module"):
            pytest.skip("torch before 2.13 does not trace a function that is given such a value")
        first, second = self.CONSTANTS[name]
        known, same = (first if name == "module" else equal_copy(first) for _ in range(2))
        kind = type(first)

        def function(x: torch.Tensor, value: Any) -> torch.Tensor:
            return x * 2 if type(value) is kind and value == known else x * 3

        watched = static(function)
        watched.expect(1, ones(), first)
        watched.expect(1, ones(), same)
        watched.expect(2, ones(), second)
        watched.expect(2, ones(), first)
        watched.expect(2, ones(), second)

    def test_not_a_number_is_a_value_of_its_own(self) -> None:
        def function(x: torch.Tensor, value: float) -> torch.Tensor:
            return x * 2 if math.isnan(value) else x * value

        watched = static(function)
        watched.expect(1, ones(), float("nan"))
        watched.expect(1, ones(), float("nan"))
        watched.expect(2, ones(), 1.0)
        bitwise = TORCH >= (2, 15)  # tells one NaN from another
        watched.expect(3 if bitwise else 2, ones(), math.copysign(float("nan"), -1.0))
        watched.expect(3 if bitwise else 2, ones(), 1.0)

    def test_complex_not_a_number(self) -> None:
        def function(x: torch.Tensor, value: complex) -> torch.Tensor:
            return x * 2 if value != value else x * 3

        watched = static(function)
        watched.expect(1, ones(), complex("nan"))
        watched.expect(1, ones(), complex("nan"))
        watched.expect(2, ones(), 1j)

    def test_signed_zero(self) -> None:
        def function(x: torch.Tensor, value: float) -> torch.Tensor:
            return x * math.copysign(2.0, value)

        watched = static(function)
        watched.expect(1, ones(), 0.0)
        if TORCH >= (2, 15):
            watched.expect(2, ones(), -0.0)
        else:  # 0.0 == -0.0, so older versions reuse the graph and differ from eager
            assert_same(watched.compiled(ones(), -0.0), ones() * 2)
            assert watched.graphs == 1

    def test_function_argument(self) -> None:
        def function(x: torch.Tensor, body: Callable) -> torch.Tensor:
            return body(x)

        watched = static(function)
        watched.expect(1, ones(), negate)
        watched.expect(1, ones(), negate)
        watched.expect(2, ones(), twice)
        watched.expect(2, ones(), negate)

    def test_partial_argument(self) -> None:
        def function(x: torch.Tensor, body: Callable) -> torch.Tensor:
            return body(x)

        watched = static(function)
        watched.expect(1, ones(), functools.partial(torch.add, other=1))
        watched.expect(1, ones(), functools.partial(torch.add, other=1))
        watched.expect(2, ones(), functools.partial(torch.add, other=2))
        watched.expect(3, ones(), functools.partial(torch.sub, other=2))

    def test_bound_method_argument(self) -> None:
        def function(x: torch.Tensor, body: Callable) -> torch.Tensor:
            return body(x)

        watched = static(function)
        watched.expect(1, ones(), Plain(scale=2).apply)
        watched.expect(1, ones(), Plain(scale=2).apply)
        watched.expect(2, ones(), Plain(scale=3).apply)

    def test_keyword_and_variadic_arguments(self) -> None:
        def function(x: torch.Tensor, *rest: int, scale: int = 1, **others: int) -> torch.Tensor:
            for number in rest:
                x = x + number
            return x * scale + sum(others.values())

        watched = static(function)
        watched.expect(1, ones())
        watched.expect(1, ones(), scale=1)
        watched.expect(2, ones(), 5)
        watched.expect(3, ones(), 5, 6)
        watched.expect(4, ones(), 5, scale=2)
        watched.expect(5, ones(), 5, scale=2, extra=7)
        watched.expect(6, ones(), 5, scale=2, other=7)
        watched.expect(6, ones(), 5, scale=2)

    def test_argument_that_is_not_used_is_not_guarded(self) -> None:
        watched = static(lambda x, unused: x + 1)
        watched.expect(1, ones(), "a")
        watched.expect(1, ones(), object())
        watched.expect(1, ones(), None)

    def test_numpy_array_and_scalar(self) -> None:
        def function(x: torch.Tensor, other: Any) -> torch.Tensor:
            return x + torch.as_tensor(other)

        watched = static(function)
        watched.expect(1, ones(), np.ones(3, dtype=np.float32))
        watched.expect(1, ones(), np.zeros(3, dtype=np.float32))
        watched.expect(2, ones(), np.ones(1, dtype=np.float32))
        watched.expect(3, ones(), np.ones(3, dtype=np.float64))
