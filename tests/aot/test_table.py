"""The table: what torch's entry points give, recorded, and that ours are right."""

from __future__ import annotations

import pytest
import torch
from functorch.compile import aot_function as torch_aot_function
from functorch.compile import nop

import unified_guards
from benchmarks import soundness

from .helpers import assert_like_eager

#: What torch 2.11, 2.13 and 2.15 give. When a torch gives something else, the table has to be written anew.
TORCH = {
    "a branch on a size, dynamic=True": [3, 3],
    "a branch on a size, dynamic=False": [3, 3],
    "a branch on a dtype": [2, 2],
    "requires_grad": [False, False],
    "one tensor twice, written to": [1, 1],
}


@pytest.mark.parametrize("row", soundness.ROWS, ids=lambda row: row.name)
def test_ours_is_right_where_torch_is_wrong(row: soundness.Row) -> None:
    theirs, ours, eager = soundness.columns(row)
    assert ours == eager
    assert theirs == TORCH[row.name]
    assert theirs != eager


@pytest.mark.parametrize("row", soundness.ROWS, ids=lambda row: row.name)
def test_gradients_are_right_too(row: soundness.Row) -> None:
    compiled = unified_guards.aot_function(row.function, nop, **row.options)
    for args in row.calls() + row.calls():
        floats = [
            x.detach().clone().requires_grad_() if row.function is not soundness._add_in_place else x for x in args
        ]
        assert_like_eager(row.function, compiled, *(floats if args[0] is not args[-1] or len(args) == 1 else args))


def test_a_function_that_writes_to_its_input_has_the_gradients_of_eager() -> None:
    def write(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a = a * 1
        a.add_(b)
        return a * b

    one = torch.ones(3, requires_grad=True)
    compiled = unified_guards.aot_function(write, nop)
    assert_like_eager(write, compiled, torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True))
    assert_like_eager(write, compiled, one, one)
    assert compiled.cache_info().entries == 2


def test_make_fx_fails_where_torchs_graph_is_wrong() -> None:
    theirs, ours, eager = soundness.make_fx_columns()
    assert theirs == [3, 3]
    assert eager == [3, 2]
    assert ours == [3, "GuardError: L['args'][0].size()[0] <= 4"]


def test_what_is_compared_is_torchs_own_entry_point() -> None:
    assert torch_aot_function.__module__.startswith("torch.")
