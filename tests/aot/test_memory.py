"""``aot_function``: what is kept alive and what is not."""

from __future__ import annotations

import gc
import weakref

import torch
from functorch.compile import nop

import unified_guards

from .helpers import ones


def test_an_object_known_by_address_takes_its_version_with_it() -> None:
    class Setting:
        shift = 1

    compiled = unified_guards.aot_function(lambda x, kind: x + kind.shift, nop)
    compiled(ones(2), Setting)
    assert compiled.cache_info().entries == 1
    del Setting
    gc.collect()
    assert compiled.cache_info().entries == 0


def test_arguments_are_not_kept() -> None:
    compiled = unified_guards.aot_function(lambda xs: xs[0] + 1, nop)
    x = ones(2)
    watch = weakref.ref(x)
    compiled([x])
    del x
    gc.collect()
    assert watch() is None


def test_a_model_that_holds_its_own_compiled_function_can_be_collected() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(ones(2))
            self.fast = unified_guards.aot_function(self.slow, nop)

        def slow(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    model = Model()
    model.fast(ones(2))
    assert model.fast.cache_info().entries == 1
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None
