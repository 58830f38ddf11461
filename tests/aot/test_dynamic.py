"""``aot_function``: symbolic sizes and integers."""

from __future__ import annotations

import torch
from functorch.compile import nop

import unified_guards

from .helpers import branch, check, ones


def test_dynamic_compiles_once_for_each_branch() -> None:
    check(branch, *((ones(size),) for size in (3, 8, 4, 5, 100, 2)), compiles=2, dynamic=True)


def test_by_default_every_size_is_a_version() -> None:
    check(branch, (ones(3),), (ones(8),), (ones(9),), compiles=3)


def test_dynamic_none_is_static_first_and_then_only_what_changed() -> None:
    compiled = check(lambda x: x * 2, *((ones(size, 7),) for size in (3, 8, 4, 5)), compiles=2, dynamic=None)
    text = str(compiled.explain())
    assert "float32[*, 7]" in text
    assert "float32[3, 7]" in text


def test_an_integer_is_symbolic_when_dynamic() -> None:
    check(lambda x, n: x * n if n > 3 else x + n, *((ones(2), n) for n in (5, 6, 7, 2, 3)), compiles=2, dynamic=True)


def test_zero_and_one_stay_special() -> None:
    check(lambda x, n: x.sum() * n, *((ones(size), n) for size in (0, 1, 2, 3) for n in (0, 1, 2)), dynamic=True)


def test_an_integer_that_is_too_large_is_not_taken_for_one_that_fits() -> None:
    compiled = unified_guards.aot_function(lambda x, n: (x, n % 7), nop, dynamic=True)
    for n in (5, 2**62, 2**70, -(2**70)):
        assert compiled(ones(2), n)[1] == n % 7


def test_equal_sizes_may_part() -> None:
    compiled = check(
        lambda a, b: (a * 2, b * 3),
        (ones(4), ones(4)),
        (ones(5), ones(5)),
        (ones(4), ones(5)),
        compiles=2,
        dynamic=True,
    )
    assert any("size()[0] ==" in str(reason) for reason in compiled.recompiles())


def test_an_integer_whose_type_is_asked_for_is_not_symbolic() -> None:
    check(lambda x, n: x * 2 if isinstance(n, int) else x * 3, *((ones(2), n) for n in (5, 6, 0.5)), dynamic=True)


def test_a_view_of_a_strided_input_that_was_written_to() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x.reshape(-1, 1)

    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for step in (2, 3, 2):
        mine, theirs = torch.arange(12.0), torch.arange(12.0)
        torch.testing.assert_close(compiled(mine[::step]), function(theirs[::step]))
        torch.testing.assert_close(mine, theirs)


def test_a_size_that_tracing_made_constant_is_guarded() -> None:
    check(lambda x: [x * at for at in range(x.shape[0])], *((ones(n),) for n in (3, 4, 3)), compiles=2, dynamic=True)


def test_symbolic_strides() -> None:
    x = torch.arange(60.0).reshape(6, 10)
    check(lambda x: x * 2 if x.stride(0) > 8 else x * 3, (x,), (x[:, :7],), (x[:, :7].contiguous(),), dynamic=True)


def test_symbolic_sizes_in_the_result() -> None:
    check(lambda x: (x.shape[0] * 2, x + 1), (ones(3),), (ones(5),), (ones(6),), compiles=1, dynamic=True)
