"""Cases of guards about several objects, and of epilogues."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.guards as torch_guards

from ..building import Case, add, below, kind, local, values
from ..objects import Bag, Raises, Unbool
from .leaf_guards import ONE_OBJECT


def two_locals(shown: dict[str, tuple[Any, Any, bool]], build: Callable[[Any, Any, Any], object]) -> Case:
    case = Case(lambda root: build(root, local(root, "x"), local(root, "y")))
    for label, (x, y, holds) in shown.items():
        case.show(label, {"x": x, "y": y}, holds)
    return case.show("missing", {"x": 1}, False).show("all missing", {}, False)


@kind()
def object_aliasing() -> Case:
    def build(root: Any, x: Any, y: Any) -> None:
        torch_guards.install_object_aliasing_guard(x, y, ["x is y"], None)

    shown = {"same": (ONE_OBJECT, ONE_OBJECT, True), "other": (Bag(), Bag(), False), "equal": ([1], [1], False)}
    return two_locals(shown | {"raising": (Raises(), Raises(), False)}, build)


@kind()
def no_tensor_aliasing() -> Case:
    tensor = torch.ones(2)

    def build(root: Any, x: Any, y: Any) -> None:
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)

    return two_locals(
        {
            "different": (tensor, torch.ones(2), True),
            "same": (tensor, tensor, False),
            "a view": (tensor, tensor.view(2), True),
            "no tensors": (1, "a", True),
            "both None": (None, None, False),
        },
        build,
    )


@kind()
def no_tensor_aliasing_of_many() -> Case:
    names = [f"t{i}" for i in range(20)]

    def build(root: Any) -> None:
        managers = [local(root, name) for name in names]
        torch_guards.install_no_tensor_aliasing_guard(managers, names, ["no aliases"], None)

    different = {name: Bag() for name in names}
    case = Case(build).show("different", different, True)
    for name in names[1:]:
        case.show(f"{name} aliases the first", {**different, name: different["t0"]}, False)
    return case.show("missing", dict(itertools.islice(different.items(), 19)), False)


@kind()
def two_groups_without_aliasing() -> Case:
    """One object may be in both groups: only within each group must there be no other."""

    def build(root: Any) -> None:
        x, y, z = (local(root, name) for name in "xyz")
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)
        torch_guards.install_no_tensor_aliasing_guard([y, z], ["y", "z"], ["y is not z"], None)

    one, two = Bag(), Bag()
    case = Case(build).show("the outer ones are the same", {"x": one, "y": two, "z": one}, True)
    case.show("first group", {"x": one, "y": one, "z": two}, False)
    return case.show("second group", {"x": one, "y": two, "z": two}, False)


@kind()
def relations_after_other_guards() -> Case:
    def build(root: Any, x: Any, y: Any) -> None:
        add(x, "add_type_match_guard", id(torch.Tensor))
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)
        torch_guards.install_object_aliasing_guard(x, below(y, "getattr_manager", attr="a"), ["x is y.a"], None)

    tensor = torch.ones(2)
    return two_locals(
        {
            "passes": (tensor, Bag(a=tensor), True),
            "other": (tensor, Bag(a=torch.ones(2)), False),
            "type": (1, Bag(a=1), False),
        },
        build,
    )


@kind()
def storage_overlapping() -> Case:
    base = torch.arange(12.0)

    def build(root: Any) -> None:
        x, y, z = (local(root, name) for name in "xyz")
        torch_guards.install_storage_overlapping_guard([x, y], [z], ["x, y overlap; z does not"], None)

    def shown(x: Any, y: Any, z: Any) -> dict[str, Any]:
        return {"x": x, "y": y, "z": z}

    case = Case(build).show("as compiled", shown(base[0:5], base[3:8], base[8:12]), True)
    case.show("none overlap", shown(base[0:3], base[3:8], base[8:12]), False)
    case.show("all overlap", shown(base[0:5], base[3:9], base[8:12]), False)
    case.show("another overlaps", shown(base[0:3], base[3:8], base[7:12]), False)
    case.show("empty never overlaps", shown(base[0:0], base[0:5], base[8:12]), False)
    case.show("missing", {"x": base, "y": base}, False)
    return case.show("unsafe: no tensor", shown(base, base, 3), False, safe=False)


ShapeFunction = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double))


def symbolic_shapes(root: Any) -> Any:
    """One int and one float, in compiled code: ``x > 2 and y < 0.5``."""
    function = ShapeFunction(lambda ints, floats: int(ints[0] > 2 and floats[0] < 0.5))
    indexed = [below(local(root, name), "indexed_manager", idx=i) for i, name in enumerate("xy")]
    address = ctypes.cast(function, ctypes.c_void_p).value
    torch_guards.install_symbolic_shape_guard(indexed, 1, 1, address, function, ["x > 2 and y < 0.5"], None)
    return function


@kind("indexed_manager")
def symbolic_shape() -> Case:
    case = Case(symbolic_shapes).show("passes", {"x": 3, "y": 0.25}, True)
    case.show("int fails", {"x": 2, "y": 0.25}, False).show("float fails", {"x": 3, "y": 0.75}, False)
    case.show("int for a float", {"x": 3, "y": 0}, False).show("float for an int", {"x": 3.0, "y": 0.25}, False)
    case.show("missing", {"x": 3}, False).show("raising", {"x": Raises(), "y": 0.25}, False)
    return case.show("unsafe: too big", {"x": 2**70, "y": 0.25}, False, safe=False)


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_lambda() -> Case:
    def build(root: Any) -> None:
        add(local(root), "add_type_match_guard", id(int))
        add(root, "add_epilogue_lambda_guard", lambda f_locals: f_locals["x"] > 0)

    return values(build, {"passes": 3}, {"fails": -3, "wrong type": 3.0})


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_lambda_that_raises() -> Case:
    def build(root: Any) -> None:
        add(root, "add_epilogue_lambda_guard", lambda f_locals: f_locals["x"](1))

    return values(
        build,
        {"passes": lambda x: x},
        {"raising": Raises(), "exiting": Raises(SystemExit), "wrong type": 3},
        {"no truth": lambda x: Unbool()},
    )


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_of_a_throwing_tree() -> Case:
    """The epilogue must not run before the guards that vouch for what it reads."""
    asked: list[Any] = []

    def build(root: Any) -> None:
        add(local(root), "add_none_match_guard")
        add(root, "add_epilogue_lambda_guard", lambda f_locals: asked.append(f_locals["x"]) or len(asked) > 0)

    return values(build, {"passes": None}, {"fails": 3})
