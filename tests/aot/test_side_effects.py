"""What a function writes beside its result is written once for each call."""

from __future__ import annotations

import collections
import random
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import unified_guards

from .helpers import ones
from .objects import Plain

COUNT: Any = 0
LATEST: Any = None


def _nonlocal_counter() -> tuple[Callable[..., Any], Callable[[], Any]]:
    count = 0

    def function(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return x * 2

    return function, lambda: count


def _global_counter() -> tuple[Callable[..., Any], Callable[[], Any]]:
    def function(x: torch.Tensor) -> torch.Tensor:
        global COUNT
        COUNT += 1
        return x * 2

    globals()["COUNT"] = 0
    return function, lambda: COUNT


def _container(make: Callable[[], Any], write: Callable[[Any], Any]) -> Callable[[], Any]:
    def prepare() -> tuple[Callable[..., Any], Callable[[], Any]]:
        target = make()

        def function(x: torch.Tensor) -> torch.Tensor:
            write(target)
            return x * 2

        return function, lambda: len(target)

    return prepare


def _count_item(target: Any) -> None:
    target["n"] = target.get("n", 0) + 1


def _attribute(make: Callable[[], Any]) -> Callable[[], Any]:
    def prepare() -> tuple[Callable[..., Any], Callable[[], Any]]:
        target = make()
        target.n = 0

        def function(x: torch.Tensor) -> torch.Tensor:
            target.n += 1
            return x * 2

        return function, lambda: target.n

    return prepare


def _own_attribute() -> tuple[Callable[..., Any], Callable[[], Any]]:
    def function(x: torch.Tensor) -> torch.Tensor:
        function.n += 1  # type: ignore[attr-defined]
        return x * 2

    function.n = 0  # type: ignore[attr-defined]
    return function, lambda: function.n  # type: ignore[attr-defined]


class WithSlot:
    __slots__ = ("n",)


EFFECTS = {
    "nonlocal": _nonlocal_counter,
    "global": _global_counter,
    "list": _container(list, lambda target: target.append(1)),
    "dict": _container(dict, lambda target: target.update({len(target): 1})),
    "deque": _container(collections.deque, lambda target: target.append(1)),
    "set": _container(lambda: set(range(100)), lambda target: target.pop()),
    "defaultdict": _container(lambda: collections.defaultdict(int), lambda target: target[len(target)]),
    "attribute": _attribute(lambda: Plain(1)),
    "attribute of a class": _attribute(lambda: type("Fresh", (), {})),
    "attribute of a module": _attribute(lambda: types.ModuleType("fresh")),
    "attribute of a namespace": _attribute(types.SimpleNamespace),
    "slot": _attribute(WithSlot),
    "attribute of the function": _own_attribute,
}


@pytest.mark.parametrize("kind", EFFECTS)
def test_an_effect_happens_once_for_each_call(kind: str) -> None:
    function, state = EFFECTS[kind]()
    reference, expected = EFFECTS[kind]()
    compiled = unified_guards.aot_function(function, nop)
    for _ in range(3):
        torch.testing.assert_close(compiled(ones(2)), reference(ones(2)))
    assert state() == expected()
    assert sum(compiled.cache_info().eager.values()) == 3
    assert compiled.cache_info().entries == 0


def test_a_global_that_is_only_written_is_written_by_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        global LATEST
        LATEST = x * 3
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for scale in (1, 5):
        compiled(ones(2) * scale)
        assert type(LATEST) is torch.Tensor
        torch.testing.assert_close(LATEST, ones(2) * 3 * scale)


def test_an_object_among_the_arguments_is_written_to_once_for_each_call() -> None:
    def function(x: torch.Tensor, given: Any) -> torch.Tensor:
        given.value += 1
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    holder = Plain(0)
    for at in range(1, 4):
        torch.testing.assert_close(compiled(ones(2), holder), ones(2) * 2)
        assert holder.value == at


def test_a_set_among_the_arguments_is_written_to_once() -> None:
    def function(x: torch.Tensor, given: set[int]) -> torch.Tensor:
        given.pop()
        return x * 2

    given = set(range(10))
    unified_guards.aot_function(function, nop)(ones(2), given)
    assert len(given) == 9


def test_running_eagerly_is_no_recompile_and_never_an_error() -> None:
    seen: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return x * 2

    compiled = unified_guards.aot_function(function, nop, recompile_limit=2, on_recompile_limit="error")
    for _ in range(5):
        compiled(ones(2))
    assert len(seen) == 5
    assert compiled.cache_info().recompiles == 0


def test_an_error_while_tracing_leaves_the_state_of_one_call() -> None:
    seen: list[int] = []
    holder = Plain(0)

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[0])
        holder.value += 1
        raise ValueError("mine")

    compiled = unified_guards.aot_function(function, nop)
    for at in range(1, 3):
        with pytest.raises(ValueError, match="mine"):
            compiled(ones(2))
        assert (seen, holder.value) == ([2] * at, at)


WRITES_TO_A_TENSOR: dict[str, Callable[[torch.Tensor], Any]] = {
    "data": lambda x: setattr(x, "data", x.detach() * 2),
    "requires_grad_": lambda x: x.requires_grad_(),
    "grad": lambda x: setattr(x, "grad", torch.ones_like(x)),
    "an attribute": lambda x: setattr(x, "mine", 1),
    "detach_": lambda x: x.detach_(),
    "resize_": lambda x: x.resize_(1),
    "set_": lambda x: x.set_(torch.zeros(3)),
    "in place through data": lambda x: x.data.mul_(2),
}


@pytest.mark.parametrize("what", WRITES_TO_A_TENSOR)
def test_what_python_writes_to_a_tensor(what: str) -> None:
    write = WRITES_TO_A_TENSOR[what]

    def function(x: torch.Tensor) -> torch.Tensor:
        write(x)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(2):
        mine, theirs = ones(2), ones(2)
        torch.testing.assert_close(compiled(mine), function(theirs))
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(mine.grad, theirs.grad)
        assert (mine.requires_grad, vars(mine)) == (theirs.requires_grad, vars(theirs))


def test_a_backward_in_the_function_gives_gradients() -> None:
    weight = ones(2, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        loss = (weight * x).sum()
        loss.backward()
        return loss.detach()

    compiled = unified_guards.aot_function(function, nop)
    for at in range(1, 3):
        torch.testing.assert_close(compiled(ones(2)), torch.tensor(2.0))
        torch.testing.assert_close(weight.grad, ones(2) * at)


def test_an_optimizer_in_the_function_steps() -> None:
    weight = torch.nn.Parameter(ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)

    def function(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = unified_guards.aot_function(function, nop)
    assert [compiled(ones(2)).item() for _ in range(3)] == [2.0, 1.0, 0.0]


def test_the_random_numbers_of_python_are_drawn_on_every_call() -> None:
    compiled = unified_guards.aot_function(lambda x: x * random.random(), nop)
    random.seed(0)
    found = [compiled(ones(1, dtype=torch.float64)).item() for _ in range(3)]
    random.seed(0)
    assert found == [random.random() for _ in range(3)]


def test_the_random_numbers_of_torch_are_those_of_eager() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(8)

    compiled = unified_guards.aot_function(function, nop)
    found = []
    for call in (compiled, function):
        torch.manual_seed(0)
        found.append([call(ones(8)) for _ in range(3)])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_seed_that_the_function_sets_is_set_on_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return x * torch.rand(2)

    compiled = unified_guards.aot_function(function, nop)
    expected = function(ones(2))
    for _ in range(3):
        torch.testing.assert_close(compiled(ones(2)), expected, rtol=0, atol=0)


def test_a_default_dtype_that_the_function_sets_is_set_on_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.set_default_dtype(torch.float64 if torch.get_default_dtype() is torch.float32 else torch.float32)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    seen = []
    try:
        for _ in range(4):
            compiled(ones(2))
            seen.append(torch.get_default_dtype())
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == [torch.float64, torch.float32] * 2


def test_grad_mode_that_the_function_leaves_behind() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(3):
        with torch.enable_grad():
            assert not compiled(ones(2, requires_grad=True)).requires_grad
            assert not torch.is_grad_enabled()


class Scaling(TorchFunctionMode):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * self.scale if func is torch.Tensor.mul else result


def test_a_mode_of_the_user_is_not_remembered() -> None:
    compiled = unified_guards.aot_function(lambda x: x.mul(2), nop)
    for scale in (2, 3, 2, 3):
        x = ones(2)
        with Scaling(scale):
            result = compiled(x)
        torch.testing.assert_close(result, x * 2 * scale)


class Logging(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_of_the_user_sees_one_call() -> None:
    compiled = unified_guards.aot_function(lambda x: x.mul(2), nop)
    x = ones(2)
    for _ in range(2):
        with Logging() as mode:
            compiled(x)
        assert mode.seen == [torch.ops.aten.mul.Tensor]


def test_inference_mode_is_told_from_no_grad() -> None:
    compiled = unified_guards.aot_function(
        lambda: torch.zeros(1) + (2 if torch.is_inference_mode_enabled() else 3), nop
    )
    with torch.no_grad():
        assert compiled().item() == 3
    with torch.inference_mode():
        assert compiled().item() == 2
