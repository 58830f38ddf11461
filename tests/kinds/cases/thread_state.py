"""Cases of guards on the state of the thread: global state, default device, modes, hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C._dynamo import guards as native
from torch.autograd import forward_ad

from ...modes import Function
from ..building import NOTHING, Case, add, kind
from ..objects import RaisingEq


@kind("add_global_state_guard")
def global_state() -> Case:
    case = Case(lambda root: add(root, "add_global_state_guard", native.GlobalStateGuard()))
    case.show("passes", {}, True)
    for label, state in {
        "no grad": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu"),
        "deterministic": lambda: deterministic(),
        "default dtype": lambda: default_dtype(),
        "torch function disabled": torch._C.DisableTorchFunctionSubclass,
        "all torch functions disabled": torch._C.DisableTorchFunction,
    }.items():
        case.show(label, {}, False, under=state)
    case.show("anomaly mode is not covered", {}, True, under=lambda: torch.autograd.set_detect_anomaly(True))
    return case


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@kind("add_dual_level_match_guard")
def dual_level() -> Case:
    case = Case(lambda root: add(root, "add_dual_level_match_guard", forward_ad._current_level))
    return case.show("passes", {}, True).show("fails", {}, False, under=forward_ad.dual_level)


@kind("add_dual_level_match_guard")
def dual_level_of_a_wrong_type() -> Case:
    case = Case(lambda root: add(root, "add_dual_level_match_guard", 1))
    case.show("bool", {}, False, under=lambda: current_level(True))
    case.show("int", {}, True, under=lambda: current_level(1))
    return case.show("missing", {}, False, under=lambda: current_level(NOTHING))


@contextlib.contextmanager
def current_level(value: Any) -> Iterator[None]:
    before = forward_ad._current_level
    if value is NOTHING:
        del forward_ad._current_level
    else:
        forward_ad._current_level = value
    try:
        yield
    finally:
        forward_ad._current_level = before


@contextlib.contextmanager
def default_device(device: Any) -> Iterator[None]:
    from torch.utils import _device

    before, _device.CURRENT_DEVICE = _device.CURRENT_DEVICE, device
    try:
        yield
    finally:
        _device.CURRENT_DEVICE = before


@kind("add_default_device_guard")
def no_default_device() -> Case:
    case = Case(lambda root: add(root, "add_default_device_guard")).show("passes", {}, True)
    case.show("a device", {}, False, under=lambda: default_device(torch.device("meta")))
    case.show("raising", {}, False, under=lambda: default_device(RaisingEq()))
    return case


@kind("add_default_device_guard")
def some_default_device() -> Case:
    case = Case(lambda root: add(root, "add_default_device_guard"))
    case.around = lambda: default_device(torch.device("meta"))
    case.show("none", {}, False)
    case.show("equal", {}, True, under=lambda: default_device(torch.device("meta")))
    case.show("another", {}, False, under=lambda: default_device(torch.device("cpu")))
    case.show("text", {}, False, under=lambda: default_device("meta"))
    return case.show("raising", {}, False, under=lambda: default_device(RaisingEq()))


@kind("add_torch_function_mode_stack_guard")
def empty_mode_stack() -> Case:
    case = Case(lambda root: add(root, "add_torch_function_mode_stack_guard", [])).show("passes", {}, True)
    return case.show("a mode", {}, False, under=Function)


@kind("add_torch_function_mode_stack_guard")
def mode_stack_of_one() -> Case:
    case = Case(lambda root: add(root, "add_torch_function_mode_stack_guard", [Function()]))
    case.show("none", {}, False).show("same type", {}, True, under=Function)
    case.show("subclass", {}, False, under=type("Derived", (Function,), {}))
    return case.show("two", {}, False, under=two_modes)


@contextlib.contextmanager
def two_modes() -> Iterator[None]:
    with Function(), Function():
        yield


def hooks_guard(expected: tuple[int, int] | None) -> Callable[[Any], bool]:
    """A guard as Dynamo makes it: known by its qualified name, it holds the ids that it expects."""

    class GuardBuilder:
        def AUTOGRAD_SAVED_TENSORS_HOOKS(self) -> Callable[[Any], bool]:
            guard_hooks_ids = expected

            def fn(x: Any) -> bool:
                hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
                return guard_hooks_ids == (tuple(map(id, hooks)) if hooks else None)

            return fn

    return GuardBuilder().AUTOGRAD_SAVED_TENSORS_HOOKS()


def pack(value: Any) -> Any:
    return value


@kind("add_lambda_guard")
def no_saved_tensors_hooks() -> Case:
    case = Case(lambda root: add(root, "add_lambda_guard", hooks_guard(None))).show("passes", {}, True)
    return case.show("hooks", {}, False, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, pack))


@kind("add_lambda_guard")
def some_saved_tensors_hooks() -> Case:
    case = Case(lambda root: add(root, "add_lambda_guard", hooks_guard((id(pack), id(pack))))).show("none", {}, False)
    case.show("same", {}, True, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, pack))
    return case.show("others", {}, False, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, repr))
