"""What a result is: its class, its symbolic sizes, and what runs eagerly."""

from __future__ import annotations

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .helpers import ones


def test_a_tensor_made_to_require_grad_comes_out_so() -> None:
    compiled = unified_guards.aot_function(lambda: torch.zeros(2, requires_grad=True), nop)
    for _ in range(2):
        result = compiled()
        assert result.requires_grad
        assert result.is_leaf


def test_a_parameter_comes_out_as_one() -> None:
    compiled = unified_guards.aot_function(lambda x: torch.nn.Parameter(x * 2), nop)
    for _ in range(2):
        assert type(compiled(ones(2))) is torch.nn.Parameter


SYMBOLIC = {
    "key": lambda x: x * {3: 2, 4: 5, 6: 7}[x.shape[0]],
    "slice": lambda x: (x * 2, slice(0, x.shape[0])),
    "shape": lambda x: (x * 2, x.shape),
    "range": lambda x: [x * at for at in range(x.shape[0])],
    "half": lambda x: (x * 2, x.shape[0] / 2),
}


@pytest.mark.parametrize("use", SYMBOLIC)
def test_a_symbolic_size_is_an_int_to_python(use: str) -> None:
    function = SYMBOLIC[use]
    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for size in (3, 4, 6, 3):
        result, expected = compiled(ones(size)), function(ones(size))
        assert repr(result) == repr(expected)


UNTRACEABLE = {
    "numpy": lambda x: torch.from_numpy(x.numpy() * 2),
    "address": lambda x: x * (x.data_ptr() != 0),
    "branch on data": lambda x: x * 2 if x.sum() > 0 else x * 3,
    "item": lambda x: x * x[0].item(),
    "nonzero": lambda x: x.nonzero(),
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("what", UNTRACEABLE)
def test_what_cannot_be_traced_runs_eagerly_without_an_error(what: str, dynamic: bool) -> None:
    function = UNTRACEABLE[what]
    compiled = unified_guards.aot_function(function, nop, dynamic=dynamic)
    for value in (1.0, -1.0):
        torch.testing.assert_close(compiled(ones(3) * value), function(ones(3) * value))
    never = what in ("address", "branch on data")  # of the others Dynamo captures some
    assert sum(compiled.cache_info().eager.values()) in ((2,) if never else (0, 2))


@pytest.mark.parametrize("part", [(0, 4, 6, 9), (0, 8, 6, 9), (0, 8, 6, 12), (0, 6, 6, 9)], ids=str)
def test_memory_that_overlaps_when_dynamic(part: tuple[int, int, int, int]) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.mul_(2)
        return a + b.sum()

    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for start, stop, other, end in ((0, 5, 6, 9), part, (0, 5, 6, 9)):
        mine, theirs = torch.arange(20.0), torch.arange(20.0)
        result = compiled(mine[start:stop], mine[other:end])
        torch.testing.assert_close(result, function(theirs[start:stop], theirs[other:end]))
        torch.testing.assert_close(mine, theirs)
