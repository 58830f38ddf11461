"""Values that are equal and not the same: bools and ints, signs of zeros, orders."""

from __future__ import annotations

import collections
import copy
import math
from collections.abc import Callable
from typing import Any

import torch

from ...harness import TORCH
from ..cases import Case, case, ones


def changing(function: Callable[..., Any], before: Any, after: Any, named: str, stale: bool = True) -> Case:
    """A case whose second argument becomes another one."""
    given = [before]

    def change() -> None:
        given[0] = after

    return Case(function, lambda call: call(ones(), copy.copy(given[0])), change, named, stale=stale)


def counts_bools(x: torch.Tensor, items: Any) -> torch.Tensor:
    return x + sum(type(item) is bool for item in items)


def signs(x: torch.Tensor, items: Any) -> torch.Tensor:
    for item in items:
        x = x * math.copysign(2, item)
    return x


@case
def bool_and_int_in_a_set() -> Case:
    return changing(counts_bools, {True}, {1}, "is exactly {True}")


@case
def bool_and_int_in_a_frozenset() -> Case:
    return changing(counts_bools, frozenset({1, 2}), frozenset({True, 2}), "is exactly frozenset({1, 2})")


@case
def sign_of_a_zero_in_a_frozenset() -> Case:
    return changing(signs, frozenset({0.0}), frozenset({-0.0}), "is exactly frozenset({0.0})")


@case
def sign_of_a_zero() -> Case:
    return changing(lambda x, z: x * math.copysign(2, z), 0.0, -0.0, "== 0.0 bit by bit", stale=TORCH < (2, 15))


@case
def sign_of_a_zero_in_a_tuple() -> Case:
    return changing(signs, (1.0, -0.0), (1.0, 0.0), "== -0.0 bit by bit", stale=TORCH < (2, 15))


@case
def sign_of_a_nan() -> Case:
    function = lambda x, z: x * math.copysign(2, z)  # noqa: E731
    return changing(function, math.nan, -math.nan, "== nan bit by bit", stale=TORCH < (2, 15))


@case
def order_of_an_ordered_dict() -> Case:
    items = collections.OrderedDict(a=1, b=2)

    def folded(x: torch.Tensor, items: dict[str, int]) -> torch.Tensor:
        for value in items.values():
            x = x * 2 + value
        return x

    return Case(folded, lambda call: call(ones(), items), lambda: items.move_to_end("a"), ".keys()) == ('a', 'b')")
