"""Cases of the guard on a tensor's metadata."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from ...modes import Function, Hidden, Visible
from ..building import Case, Values, kind, local, values
from ..objects import LyingClass, Raises


def add_tensor_guard(
    manager: Any, value: torch.Tensor, sizes: list[Any] | None = None, strides: list[Any] | None = None, **more: Any
) -> None:
    manager.add_tensor_match_guard(
        value,
        sizes or [],
        strides or [],
        "x",
        ["check_tensor"],
        None,
        type(value),
        torch._C._dispatch_keys(value),
        **more,
    )


def tensor_case(
    example: torch.Tensor, passes: Values, fails: Values, unsafe: Values | None = None, **given: Any
) -> Case:
    return values(lambda root: add_tensor_guard(local(root), example, **given), passes, fails, unsafe)


class Subclass(torch.Tensor):
    pass


def conjugated() -> torch.Tensor:
    return torch.ones(2, 3, dtype=torch.complex64).conj()


@kind("add_tensor_match_guard")
def tensor_match() -> Case:
    same = torch.ones(2, 3)
    with torch.inference_mode():
        inference = torch.ones(2, 3)
    return tensor_case(
        torch.ones(2, 3),
        {
            "same": same,
            "a view": torch.ones(3, 3)[1:],
            "another offset": torch.ones(12)[6:].view(2, 3),
            "detached": torch.ones(2, 3, requires_grad=True).detach(),
        },
        {
            "dtype": same.double(),
            "size": torch.ones(2, 4),
            "rank": torch.ones(2, 3, 1),
            "strides": torch.ones(3, 2).t(),
            "requires_grad": torch.ones(2, 3, requires_grad=True),
            "device": same.to("meta"),
            "sparse": same.to_sparse(),
            "Parameter": torch.nn.Parameter(same, requires_grad=False),
            "subclass": same.as_subclass(Subclass),
            "inference tensor": inference,
            "negative bit": torch._neg_view(same),
            "wrong type": 3,
            "raising": Raises(),
            "lying class": LyingClass(torch.Tensor),
        },
        {"strided nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
    )


@kind("add_tensor_match_guard")
def tensor_match_with_dynamic_dims() -> Case:
    return tensor_case(
        torch.ones(2, 3),
        {"as before": torch.ones(2, 3), "any first size": torch.ones(7, 3)},
        {"static size": torch.ones(2, 4), "static stride": torch.ones(3, 2).t(), "rank": torch.ones(3)},
        sizes=[None, 3],
        strides=[3, 1],
    )


@kind("add_tensor_match_guard")
def tensor_match_with_all_dims_dynamic() -> Case:
    return tensor_case(
        torch.ones(2, 3),
        {"any size": torch.ones(5, 6), "any stride": torch.ones(3, 2).t(), "empty": torch.ones(0, 9)},
        {"rank": torch.ones(3), "dtype": torch.ones(2, 3).int()},
        sizes=[None, None],
        strides=[None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_scalar() -> Case:
    return tensor_case(torch.tensor(1.0), {"scalar": torch.tensor(2.0)}, {"vector": torch.ones(1)})


@kind("add_tensor_match_guard")
def tensor_match_of_a_parameter() -> Case:
    parameter = torch.nn.Parameter(torch.ones(2))
    return tensor_case(
        parameter,
        {"another": torch.nn.Parameter(torch.zeros(2))},
        {
            "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
            "tensor": torch.ones(2, requires_grad=True),
            "Buffer": torch.nn.Buffer(torch.ones(2)),
        },
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_subclass() -> Case:
    return tensor_case(
        torch.ones(2).as_subclass(Subclass), {"same": torch.zeros(2).as_subclass(Subclass)}, {"plain": torch.ones(2)}
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_conjugate() -> Case:
    return tensor_case(conjugated(), {"conjugate": conjugated()}, {"resolved": conjugated().resolve_conj()})


@kind("add_tensor_match_guard")
def tensor_match_of_a_meta_tensor() -> Case:
    return tensor_case(torch.ones(2, device="meta"), {"same": torch.zeros(2, device="meta")}, {"cpu": torch.ones(2)})


@kind("add_tensor_match_guard")
def tensor_match_of_a_sparse_tensor() -> Case:
    sparse = torch.eye(2).to_sparse()
    return tensor_case(
        sparse,
        {"same": torch.ones(2, 2).to_sparse()},
        {"dense": torch.eye(2), "size": torch.eye(3).to_sparse()},
        sizes=[2, 2],
        strides=[0, 0],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_compressed_tensor() -> Case:
    example = torch.eye(2).to_sparse_csr()
    return tensor_case(
        example,
        {"same": torch.ones(2, 2).to_sparse_csr(), "layouts are not compared": torch.eye(2).to_sparse_csc()},
        {"dense": torch.eye(2), "size": torch.eye(3).to_sparse_csr()},
        sizes=[2, 2],
        strides=[None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_jagged_tensor() -> Case:
    def jagged(*lengths: int) -> torch.Tensor:
        return torch.nested.nested_tensor([torch.ones(n, 3) for n in lengths], layout=torch.jagged)

    return tensor_case(
        jagged(2, 3),
        {"same": jagged(2, 3)},
        {"dense": torch.ones(2, 3)},
        sizes=[2, None, 3],
        strides=[None, None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_on_another_state_of_the_thread() -> Case:
    case = tensor_case(torch.ones(2, 3), {"as before": torch.ones(2, 3)}, {})
    f_locals = {"x": torch.ones(2, 3)}
    case.show("autocast", f_locals, False, under=lambda: torch.autocast("cpu"))
    case.show("inference mode", f_locals, False, under=torch.inference_mode)
    case.show("below autograd", f_locals, False, under=torch._C._AutoDispatchBelowAutograd)
    case.show("no grad", f_locals, True, under=torch.no_grad)
    case.show("dispatch mode", f_locals, False, under=Visible)
    case.show("dispatch mode of the compiler", f_locals, True, under=Hidden)
    case.show("torch function mode", f_locals, True, under=Function)
    return case.show("forward mode", f_locals, True, under=forward_ad.dual_level)


class ForbiddingFunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"a guard ran the torch function of a mode on {func}")


class ForbiddingSubclass(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"a guard ran the torch function of a tensor on {func}")


@kind("add_tensor_match_guard")
def tensor_match_runs_no_torch_function() -> Case:
    with torch._C.DisableTorchFunctionSubclass():
        example, same = (torch.ones(2).as_subclass(ForbiddingSubclass) for _ in range(2))

        def build(root: Any) -> None:
            with torch._C.DisableTorchFunctionSubclass():  # as Dynamo does
                add_tensor_guard(local(root), example, [2], [1])

    case = Case(build)
    case.show("subclass", {"x": same}, True)
    return case.show("mode", {"x": same}, True, under=ForbiddingFunctionMode)
