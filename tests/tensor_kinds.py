"""A tensor of every kind there is, and what can be done to one: for the tests of what is read of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

#: What is kept alive with a tensor: a base is asked by its views and changed by the tests.
Made = tuple[torch.Tensor, torch.Tensor]
KINDS: dict[str, Callable[[contextlib.ExitStack], Made]] = {}

DIMS = ("size", "stride", "storage_offset")
#: Which fields of each kind are not what torch's accessors say when read in place. Why: see InPlace in tensor.h.
ASKED: dict[str, set[str]] = {}


def kind(*asked: str) -> Callable[[Callable[[contextlib.ExitStack], Any]], Any]:
    """Registers a kind. Its maker returns the tensor, or the tensor and the one that it is made of."""

    def register(make: Callable[[contextlib.ExitStack], Any]) -> Any:
        def made(stack: contextlib.ExitStack) -> Made:
            found = make(stack)
            return found if isinstance(found, tuple) else (found, found)

        KINDS[make.__name__] = made
        ASKED[make.__name__] = set(asked)
        return make

    return register


def base() -> torch.Tensor:
    return torch.ones(4, 4)


# -- plain tensors and views of them -----------------------------------------------------------------------------------


@kind()
def plain(stack: contextlib.ExitStack) -> Any:
    return base()


@kind()
def channels_last(stack: contextlib.ExitStack) -> Any:
    return torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)


@kind()
def of_six_dims(stack: contextlib.ExitStack) -> Any:
    return torch.ones(1, 2, 1, 2, 1, 2)


@kind()
def scalar(stack: contextlib.ExitStack) -> Any:
    return torch.tensor(1.0)


@kind()
def integers(stack: contextlib.ExitStack) -> Any:
    return torch.ones(4, 4, dtype=torch.int64)


@kind()
def zero_size(stack: contextlib.ExitStack) -> Any:
    return torch.ones(0, 4)


@kind()
def without_memory(stack: contextlib.ExitStack) -> Any:
    made = base()
    made.untyped_storage().resize_(0)
    return made


@kind()
def needs_a_gradient(stack: contextlib.ExitStack) -> Any:
    return base().requires_grad_()


@kind()
def computed(stack: contextlib.ExitStack) -> Any:
    return base().requires_grad_() * 2


@kind()
def detached(stack: contextlib.ExitStack) -> Any:
    of = base().requires_grad_() * 2
    return of.detach(), of


@kind()
def data(stack: contextlib.ExitStack) -> Any:
    of = base()
    return of.data, of


@kind()
def parameter(stack: contextlib.ExitStack) -> Any:
    return torch.nn.Parameter(base())


@kind()
def frozen_parameter(stack: contextlib.ExitStack) -> Any:
    return torch.nn.Parameter(base(), requires_grad=False)


@kind()
def buffer(stack: contextlib.ExitStack) -> Any:
    return torch.nn.Buffer(base())


@kind()
def parameter_of_a_view(stack: contextlib.ExitStack) -> Any:
    of = base()
    return torch.nn.Parameter(of[1:]), of


if hasattr(torch.Tensor, "rename_"):  # later ones have no names

    @kind()
    def named(stack: contextlib.ExitStack) -> Any:
        return base().rename_("a", "b")


@kind()
def inference(stack: contextlib.ExitStack) -> Any:
    with torch.inference_mode():
        return base()


@kind("requires_grad")
def view(stack: contextlib.ExitStack) -> Any:
    of = base()
    return of[1:], of


@kind("requires_grad")
def view_of_a_view(stack: contextlib.ExitStack) -> Any:
    of = base()
    return of[1:].t(), of


@kind("requires_grad")
def one_of_many_views(stack: contextlib.ExitStack) -> Any:
    of = base()
    return of.unbind()[1], of


@kind("requires_grad")
def view_of_a_parameter(stack: contextlib.ExitStack) -> Any:
    of = torch.nn.Parameter(base(), requires_grad=False)
    return of[1:], of


@kind("requires_grad")
def view_of_what_needs_a_gradient(stack: contextlib.ExitStack) -> Any:
    of = base().requires_grad_() * 2
    return of[1:], of


@kind("requires_grad")
def view_without_gradients(stack: contextlib.ExitStack) -> Any:
    of = base()
    with torch.no_grad():
        return of[1:], of


@kind("requires_grad")
def view_in_inference_mode(stack: contextlib.ExitStack) -> Any:
    of = base()
    with torch.inference_mode():
        return of[1:], of


@kind("requires_grad")
def complex_view(stack: contextlib.ExitStack) -> Any:
    of = torch.ones(4, 4, 2)
    return torch.view_as_complex(of), of


@kind("requires_grad")
def conj(stack: contextlib.ExitStack) -> Any:
    of = torch.ones(4, 4, dtype=torch.complex64)
    return of.conj(), of


@kind("requires_grad")
def neg(stack: contextlib.ExitStack) -> Any:
    of = base()
    return torch._neg_view(of), of


@kind()
def zero_tensor(stack: contextlib.ExitStack) -> Any:
    return torch._efficientzerotensor((4, 4))


@kind()
def meta(stack: contextlib.ExitStack) -> Any:
    return torch.ones(4, 4, device="meta")


@kind()
def quantised(stack: contextlib.ExitStack) -> Any:
    return torch.quantize_per_tensor(base(), 1.0, 0, torch.qint8)


@kind()
def quantised_per_channel(stack: contextlib.ExitStack) -> Any:
    return torch.quantize_per_channel(base(), torch.ones(4), torch.zeros(4), 0, torch.qint8)


@kind("requires_grad")
def dual(stack: contextlib.ExitStack) -> Any:
    stack.enter_context(torch.autograd.forward_ad.dual_level())
    of = base()
    return torch.autograd.forward_ad.make_dual(of, torch.ones(4, 4)), of


# -- other implementations ---------------------------------------------------------------------------------------------


@kind(*DIMS)
def sparse(stack: contextlib.ExitStack) -> Any:
    return torch.eye(4).to_sparse()


@kind(*DIMS)
def sparse_csr(stack: contextlib.ExitStack) -> Any:
    return torch.eye(4).to_sparse_csr()


@kind(*DIMS)
def sparse_csc(stack: contextlib.ExitStack) -> Any:
    return torch.eye(4).to_sparse_csc()


@kind(*DIMS)
def sparse_bsr(stack: contextlib.ExitStack) -> Any:
    return torch.eye(4).to_sparse_bsr((2, 2))


@kind(*DIMS)
def sparse_bsc(stack: contextlib.ExitStack) -> Any:
    return torch.eye(4).to_sparse_bsc((2, 2))


@kind(*DIMS)
def mkldnn(stack: contextlib.ExitStack) -> Any:
    return base().to_mkldnn()


@kind(*DIMS)
def nested(stack: contextlib.ExitStack) -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.strided)


@kind("keys", *DIMS, "requires_grad")
def jagged(stack: contextlib.ExitStack) -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@kind(*DIMS, "device")
def functional(stack: contextlib.ExitStack) -> Any:
    return torch._to_functional_tensor(base())


@kind(*DIMS, "device")
def functional_while_it_is_on(stack: contextlib.ExitStack) -> Any:
    of = torch._to_functional_tensor(base())
    torch._enable_functionalization(reapply_views=True)
    stack.callback(torch._disable_functionalization)
    return of


@kind(*DIMS)
def batched(stack: contextlib.ExitStack) -> Any:
    of = base()
    level = torch._C._functorch._vmap_increment_nesting(4, "error")
    stack.callback(torch._C._functorch._vmap_decrement_nesting)
    return torch._C._functorch._add_batch_dim(of, 0, level), of


@kind()
def wrapped_for_a_gradient(stack: contextlib.ExitStack) -> Any:
    of = base()
    level = torch._C._functorch._grad_increment_nesting()
    stack.callback(torch._C._functorch._grad_decrement_nesting)
    return torch._C._functorch._wrap_for_grad(of, level), of


# -- subclasses --------------------------------------------------------------------------------------------------------


class WithTorchFunction(torch.Tensor):
    pass


class Wrapper(torch.Tensor):
    """Holds another tensor and computes on that."""

    inner: torch.Tensor
    POLICY: dict[str, Any] = {}

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=inner.device, **cls.POLICY
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = {
            torch.ops.aten.sym_size.default: lambda of: of.inner.size(),
            torch.ops.aten.sym_stride.default: lambda of: of.inner.stride(),
            torch.ops.aten.sym_storage_offset.default: lambda of: of.inner.storage_offset(),
            torch.ops.aten.dim.default: lambda of: of.inner.dim(),
            torch.ops.prim.device.default: lambda of: of.inner.device,
            torch.ops.prim.layout.default: lambda of: of.inner.layout,
        }
        if func in asked:
            return asked[func](args[0])
        args, kwargs = pytree.tree_map_only(Wrapper, lambda of: of.inner, (args, kwargs or {}))
        out = func(*args, **kwargs)
        return pytree.tree_map_only(torch.Tensor, cls, out)


class WithSizes(Wrapper):
    POLICY = {"dispatch_sizes_strides_policy": "sizes"}


class WithStrides(Wrapper):
    POLICY = {"dispatch_sizes_strides_policy": "strides"}


class WithDevice(Wrapper):
    POLICY = {"dispatch_device": True}


class WithLayout(Wrapper):
    POLICY = {"dispatch_layout": True}


@kind("requires_grad")
def torch_function_subclass(stack: contextlib.ExitStack) -> Any:
    return base().as_subclass(WithTorchFunction)


def wrapped(cls: type[Wrapper], *asked: str) -> None:
    def make(stack: contextlib.ExitStack) -> Any:
        of = base()
        return cls(of), of

    make.__name__ = f"wrapper_{cls.__name__}"
    kind("keys", *DIMS, *asked)(make)


for each in (Wrapper, WithSizes, WithStrides, WithLayout):
    wrapped(each)
wrapped(WithDevice, "device")


@kind("keys", *DIMS)
def parameter_of_a_wrapper(stack: contextlib.ExitStack) -> Any:
    of = base()
    return torch.nn.Parameter(Wrapper(of)), of


@kind("keys", *DIMS, "device")
def fake(stack: contextlib.ExitStack) -> Any:
    return FakeTensorMode().from_tensor(base())


@kind("keys", *DIMS, "device")
def fake_with_symbols(stack: contextlib.ExitStack) -> Any:
    return FakeTensorMode(shape_env=ShapeEnv()).from_tensor(base(), static_shapes=False)


@kind("keys", *DIMS)
def functional_in_python(stack: contextlib.ExitStack) -> Any:
    with FunctionalTensorMode():
        return FunctionalTensor.to_functional(base())


@kind("keys", *DIMS)
def two_tensors(stack: contextlib.ExitStack) -> Any:
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(base(), base())


@kind("keys", *DIMS)
def masked(stack: contextlib.ExitStack) -> Any:
    return torch.masked.masked_tensor(base(), base() > 0)


@kind("keys", *DIMS)
def distributed(stack: contextlib.ExitStack) -> Any:
    from torch.distributed.tensor import DeviceMesh, Replicate, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    stack.callback(torch.distributed.destroy_process_group)
    return distribute_tensor(base(), DeviceMesh("cpu", [0, 1]), [Replicate()])


# -- what is done to one -----------------------------------------------------------------------------------------------


def swap(tensor: torch.Tensor, of: torch.Tensor) -> None:
    torch.utils.swap_tensors(tensor, type(tensor)(torch.ones(2, 2)))


def as_it(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Wrapped as the tensor is: torch crashes on a functional one that is given another."""
    return torch._to_functional_tensor(value) if torch._is_functional_tensor(tensor) else value


def set_data(tensor: torch.Tensor, of: torch.Tensor) -> None:
    tensor.data = as_it(tensor, torch.ones(3, 5, dtype=torch.float64))


def mutate_base(tensor: torch.Tensor, of: torch.Tensor) -> None:
    of.mul_(torch.ones(of.size(), requires_grad=True))


def let_base_need_a_gradient(tensor: torch.Tensor, of: torch.Tensor) -> None:
    of.requires_grad_()


def toggle_gradient(tensor: torch.Tensor, of: torch.Tensor) -> None:
    tensor.requires_grad_(not tensor.requires_grad)


def mutate_without_gradients(tensor: torch.Tensor, of: torch.Tensor) -> None:
    with torch.no_grad():
        of.add_(1)


def replace_inner(tensor: torch.Tensor, of: torch.Tensor) -> None:
    if isinstance(tensor, Wrapper):
        tensor.inner = torch.ones(2, 3)
    else:
        torch._functionalize_replace(tensor, torch.ones(2, 3))


#: May raise where a kind does not allow it. The tensor and the one that it is made of.
CHANGES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "nothing": lambda tensor, of: None,
    "its base computed in place": mutate_base,
    "its base needs a gradient": let_base_need_a_gradient,
    "its base detached in place": lambda tensor, of: of.detach_(),
    "its base written": mutate_without_gradients,
    "its gradient wanted or not": toggle_gradient,
    "computed in place": lambda tensor, of: tensor.mul_(torch.ones(tensor.size(), requires_grad=True)),
    "detached in place": lambda tensor, of: tensor.detach_(),
    "transposed in place": lambda tensor, of: tensor.t_(),
    "unsqueezed in place": lambda tensor, of: tensor.unsqueeze_(0),
    "restrided in place": lambda tensor, of: tensor.as_strided_((2, 2), (1, 2), 1),
    "resized": lambda tensor, of: tensor.resize_(2, 3),
    "its base resized": lambda tensor, of: of.resize_(8, 8),
    "sparsely resized": lambda tensor, of: tensor.sparse_resize_((5, 5), 2, 0),
    "another storage": lambda tensor, of: tensor.set_(as_it(tensor, torch.ones(5, 5))),
    "other data": set_data,
    "swapped": swap,
    "synced": lambda tensor, of: torch._sync(tensor),
    "its inner tensor replaced": replace_inner,
    "a gradient given": lambda tensor, of: setattr(tensor, "grad", torch.ones_like(tensor)),
    "its storage emptied": lambda tensor, of: of.untyped_storage().resize_(0),
}
if hasattr(torch.Tensor, "rename_"):
    CHANGES["renamed"] = lambda tensor, of: tensor.rename_(*[f"n{at}" for at in range(tensor.dim())])

#: What writes or moves memory, and crashes torch where there is none.
WRITES = {"its base computed in place", "its base written", "computed in place"}
RESIZES = {"resized", "its base resized", "its storage emptied"}


def change(name: str, tensor: torch.Tensor, of: torch.Tensor) -> Exception | None:
    """Makes a change, or says why the kind of the tensor does not allow it."""
    try:
        if name in WRITES and of.numel() > 0 and of.untyped_storage().size() == 0:
            return ValueError("no memory")
        if name in RESIZES and of._is_zerotensor():
            return ValueError("no storage")
        CHANGES[name](tensor, of)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError) as error:
        return error
    return None


@contextlib.contextmanager
def made(name: str) -> Iterator[Made]:
    with contextlib.ExitStack() as stack:
        yield KINDS[name](stack)
