"""``aot_function``: what cannot be compiled runs eagerly, and errors are the user's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .helpers import branch, ones


def test_what_cannot_be_guarded_runs_eagerly_and_is_counted() -> None:
    compiled = unified_guards.aot_function(lambda x, it: x + next(it), nop)
    it = iter([1, 2, 3])
    assert [int(compiled(torch.zeros(1), it)) for _ in range(3)] == [1, 2, 3]
    assert sum(compiled.cache_info().eager.values()) == 3


def test_a_numpy_argument_runs_eagerly() -> None:
    numpy = pytest.importorskip("numpy", reason="the argument is numpy's")
    array = numpy.ones(3, dtype=numpy.float32)
    compiled = unified_guards.aot_function(lambda x, a: x + torch.from_numpy(a), nop)
    torch.testing.assert_close(compiled(ones(3), array), ones(3) * 2)
    array += 1
    torch.testing.assert_close(compiled(ones(3), array), ones(3) * 3)


def test_a_container_argument_that_is_written_to_is_written_to() -> None:
    def function(x: torch.Tensor, results: list[Any]) -> torch.Tensor:
        results.append(x * 2)
        return x + 1

    compiled = unified_guards.aot_function(function, nop)
    results: list[Any] = []
    compiled(ones(2), results)
    torch.testing.assert_close(results, [ones(2) * 2])
    assert "container" in next(iter(compiled.cache_info().eager))


def test_an_object_of_a_class_that_is_not_registered_comes_out_new_each_time() -> None:
    class Holder:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

    compiled = unified_guards.aot_function(lambda x: Holder(x + 1), nop)
    one, other = compiled(ones(2)), compiled(ones(2) * 2)
    assert type(one) is type(other) is Holder
    torch.testing.assert_close((one.value, other.value), (ones(2) * 2, ones(2) * 3))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_branch_on_data_runs_eagerly_and_names_its_line(dynamic: bool) -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x.sum() > 0 else x * 3, nop, dynamic=dynamic)
    for value in (1.0, -1.0):
        torch.testing.assert_close(
            compiled(torch.tensor([value, value])), torch.tensor([value, value]) * (2.5 - value / 2)
        )
        compiled(torch.tensor([value, value]))
    ((reason, times),) = compiled.cache_info().eager.items()
    assert times == 4
    assert compiled.cache_info().misses == 1  # and so not traced again
    assert "values of tensors" in reason
    assert "test_untraceable.py" in reason


def test_an_error_of_the_function_is_the_users() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("mine")

    compiled = unified_guards.aot_function(function, nop)
    with pytest.raises(KeyError, match="mine"):
        compiled(ones(2))


def test_an_error_of_a_compiler_is_the_users() -> None:
    def compiler(graph: Any, inputs: Any) -> Any:
        raise LookupError("no such backend")

    with pytest.raises(LookupError, match="no such backend"):
        unified_guards.aot_function(lambda x: x + 1, compiler)(ones(2))


def test_wrong_words_get_a_message_that_helps() -> None:
    with pytest.raises(TypeError, match="fw_compiler must be a function of a graph module"):
        unified_guards.aot_function(branch, "inductor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'eager' or 'error'"):
        unified_guards.aot_function(branch, nop, on_recompile_limit="evict")
    with pytest.raises(ValueError, match="positive int"):
        unified_guards.aot_function(branch, nop, recompile_limit=0)


def test_an_error_of_the_compiler_of_the_backward_is_the_users() -> None:
    """Torch compiles it when it is first run."""

    def fails(*_: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        unified_guards.aot_function(torch.sin, nop, fails)(ones(2, requires_grad=True)).sum().backward()
