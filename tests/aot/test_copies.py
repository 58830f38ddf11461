"""Copies of what the AOT entry points return, and methods that are compiled."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from functorch.compile import nop
from torch import nn

import unified_guards

from .helpers import Counting, ones


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Model(nn.Module):
    """Holds its own compiled method."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(ones(2))
        self.fast = unified_guards.aot_function(self.slow, nop)

    def slow(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.fast(x)


def test_a_copy_of_a_module_has_parameters_and_versions_of_its_own() -> None:
    compiled = unified_guards.aot_module(nn.Linear(2, 2), nop)
    compiled(ones(2))
    copied = copy.deepcopy(compiled)
    assert copied.cache_info().entries == 0
    with torch.no_grad():
        copied.orig_module.weight.zero_()
        copied.orig_module.bias.zero_()
    assert copied(ones(2)).tolist() == [0.0, 0.0]
    torch.testing.assert_close(compiled(ones(2)), compiled.orig_module(ones(2)))
    assert (compiled.cache_info().entries, copied.cache_info().entries) == (1, 1)


def test_a_copy_of_a_model_compiles_the_method_of_the_copy() -> None:
    model = Model()
    model(ones(2))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            copied.weight.fill_(3)
        assert copied(ones(2)).tolist() == [3.0, 3.0]
        assert model(ones(2)).tolist() == [1.0, 1.0]


def test_a_copy_has_the_same_options() -> None:
    counting = Counting()
    compiled = unified_guards.aot_function(doubled, counting, dynamic=True, recompile_limit=1, max_entries=1)
    for copied in (copy.copy(compiled), copy.deepcopy(compiled)):
        for size in (2, 3, 4):
            assert copied(ones(size)).tolist() == [2.0] * size
        assert copied.cache_info().max_entries == 1
    assert len(counting.graphs) == 2
    assert compiled.cache_info().entries == 0


def test_a_pickle_is_the_function_and_its_compilers() -> None:
    compiled = unified_guards.aot_function(doubled, nop)
    compiled(ones(2))
    again = pickle.loads(pickle.dumps(compiled))
    assert again.cache_info().entries == 0
    assert again(ones(2)).tolist() == [2.0, 2.0]


class Scaler:
    def __init__(self, scale: int) -> None:
        self.scale = scale

    def slow(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale

    fast = unified_guards.aot_function(slow, nop)


def test_a_method_is_bound_to_its_object() -> None:
    Scaler.fast.cache_clear()
    for scale in (2, 3, 2):
        assert Scaler(scale).fast(ones(1)).item() == scale
        assert Scaler.fast(Scaler(scale), ones(1)).item() == scale
    assert Scaler.fast.cache_info().eager == {}
