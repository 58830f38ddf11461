"""Rows of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch import nn

from ..rows import TENSORS, tensors
from .functions import HELD
from .objects import argument_row, extra, one, plain, put, slots

# Tensors


class Sub(torch.Tensor):
    scale = 1


class OtherSub(torch.Tensor):
    scale = 2


def double(x: Any, *_: Any) -> Any:
    return x * 2


def tensor_row(
    name: str,
    make: Callable[[], tuple[Any, ...]],
    change: Callable[..., Any],
    undo: Callable[..., Any],
    function: Callable[..., Any] = double,
    given: int = 1,
) -> None:
    """Tensors changed where they are: ``make`` gives them all, of which the first ``given`` are the arguments."""

    def row() -> Iterator[Any]:
        made = make()
        yield function, list(made[:given])
        change(*made)
        yield
        undo(*made)
        yield

    assert name not in TENSORS
    TENSORS[name] = row


def with_data(value: Callable[[], torch.Tensor]) -> Callable[..., None]:
    def change(tensor: torch.Tensor, *_: Any) -> None:
        tensor.data = value()

    return change


def matrix() -> tuple[torch.Tensor]:
    return (torch.arange(6.0).reshape(2, 3),)


def viewed() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.ones(4)
    return base[:2], base


def view_of_view() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.ones(4)
    return base[:3][:2], base


def parts() -> tuple[Any, ...]:
    base = torch.ones(4)
    return (*base.split(2), base)


def requires(*made: Any) -> None:
    made[-1].requires_grad_()


def requires_not(*made: Any) -> None:
    made[-1].requires_grad_(False)


def guarded(t: Any) -> Any:
    return t if t.is_leaf else t * 1


def graph_on_base(view: Any, base: Any) -> None:
    base.mul_(torch.ones(4, requires_grad=True))


tensor_row(
    "data_dtype", matrix, with_data(lambda: torch.ones(2, 3, dtype=torch.float64)), with_data(lambda: torch.ones(2, 3))
)
tensor_row("data_shape", matrix, with_data(lambda: torch.ones(3, 2)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_strides", matrix, with_data(lambda: torch.ones(3, 2).t()), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_rank", matrix, with_data(lambda: torch.ones(6)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_zero_size", matrix, with_data(lambda: torch.ones(0, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_size_one", matrix, with_data(lambda: torch.ones(1, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_offset", matrix, with_data(lambda: torch.ones(7)[1:].view(2, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row(
    "data_complex",
    matrix,
    with_data(lambda: torch.ones(2, 3, dtype=torch.complex64)),
    with_data(lambda: torch.ones(2, 3)),
)
tensor_row("resize", matrix, lambda t: t.resize_(3, 2), lambda t: t.resize_(2, 3))
tensor_row("resize_smaller", matrix, lambda t: t.resize_(1, 2), lambda t: t.resize_(2, 3))
tensor_row("unsqueeze", matrix, lambda t: t.unsqueeze_(0), lambda t: t.squeeze_(0))
tensor_row("squeeze", lambda: (torch.ones(1, 2),), lambda t: t.squeeze_(0), lambda t: t.unsqueeze_(0))
tensor_row("transpose", matrix, lambda t: t.t_(), lambda t: t.t_())
tensor_row("transpose_square", lambda: (torch.ones(2, 2),), lambda t: t.t_(), lambda t: t.t_())
tensor_row("swap_dimensions", lambda: (torch.ones(2, 3, 4),), lambda t: t.swapdims_(0, 2), lambda t: t.swapdims_(0, 2))
tensor_row("set_to_other_storage", matrix, lambda t: t.set_(torch.ones(3, 3)), lambda t: t.set_(torch.ones(2, 3)))
tensor_row(
    "set_offset",
    lambda: (torch.ones(2), torch.arange(8.0)),
    lambda t, o: t.set_(o.untyped_storage(), 3, (2,), (1,)),
    lambda t, _: t.set_(torch.ones(2)),
)
tensor_row("as_strided", matrix, lambda t: t.as_strided_((2, 3), (1, 2)), lambda t: t.as_strided_((2, 3), (3, 1)))
tensor_row(
    "as_strided_overlap", matrix, lambda t: t.as_strided_((2, 3), (1, 1)), lambda t: t.as_strided_((2, 3), (3, 1))
)
tensor_row(
    "as_strided_expanded", matrix, lambda t: t.as_strided_((2, 3), (0, 1)), lambda t: t.as_strided_((2, 3), (3, 1))
)
tensor_row(
    "storage_emptied",
    matrix,
    lambda t: t.untyped_storage().resize_(0),
    lambda t: (t.untyped_storage().resize_(24), t.fill_(1)),
    lambda x: torch.ones(2) * x.shape[0],
)
tensor_row("requires_grad_on_leaf", matrix, requires, requires_not)
tensor_row("requires_grad_on_base", viewed, requires, requires_not)
tensor_row("requires_grad_on_base_of_view_of_view", view_of_view, requires, requires_not)
tensor_row("requires_grad_on_base_of_parts", parts, requires, requires_not, lambda x, y: x * y, 2)
tensor_row("base_gets_a_graph", viewed, graph_on_base, lambda v, b: b.detach_())
tensor_row("view_of_view_gets_a_graph", view_of_view, graph_on_base, lambda v, b: None)
tensor_row(
    "view_written_under_grad",
    lambda: viewed()[::-1],
    lambda b, v: v.mul_(torch.ones(2, requires_grad=True)),
    lambda b, v: b.detach_(),
)
tensor_row(
    "graph_in_place",
    lambda: (torch.ones(2, 3),),
    lambda t: t.mul_(torch.ones(3, requires_grad=True)),
    lambda t: t.detach_(),
)
tensor_row(
    "detach", lambda: (torch.ones(2, requires_grad=True) * 1,), lambda t: t.detach_(), lambda t: t.requires_grad_()
)
tensor_row(
    "leaf",
    lambda: (torch.ones(2),),
    lambda t: t.mul_(torch.ones(2, requires_grad=True)),
    lambda t: t.detach_(),
    guarded,
)
tensor_row(
    "grad_set",
    lambda: (torch.ones(2, requires_grad=True),),
    lambda t: put(t, grad=torch.ones(2)),
    lambda t: put(t, grad=None),
    lambda x: x * 2 if x.grad is None else x * x.grad,
)
tensor_row(
    "grad_replaced",
    lambda: (torch.ones(2, requires_grad=True),),
    lambda t: put(t, grad=torch.ones(2).double().float()),
    lambda t: put(t, grad=torch.zeros(2)),
    lambda x: x if x.grad is None else x + x.grad,
)
tensor_row(
    "retain_grad",
    lambda: (torch.ones(2, requires_grad=True) * 1,),
    lambda t: t.retain_grad(),
    lambda t: None,
    lambda x: x * 2 if x.retains_grad else x * 3,
)
tensor_row(
    "tensor_hook",
    lambda: (torch.ones(2, requires_grad=True), []),
    lambda t, h: h.append(t.register_hook(lambda g: g * 2)),
    lambda t, h: h.pop().remove(),
)
tensor_row("python_attribute", matrix, lambda t: put(t, extra=1), lambda t: delattr(t, "extra"), lambda x: extra(x, x))
tensor_row(
    "marked_dynamic",
    matrix,
    lambda t: torch._dynamo.mark_dynamic(t, 0),
    lambda t: delattr(t, "_dynamo_dynamic_indices"),
)
tensor_row(
    "marked_static", matrix, lambda t: torch._dynamo.mark_static(t, 0), lambda t: delattr(t, "_dynamo_static_indices")
)
tensor_row(
    "sparse_resized",
    lambda: (torch.eye(2).to_sparse(),),
    lambda t: t.sparse_resize_((3, 3), 2, 0),
    lambda t: t.sparse_resize_and_clear_((2, 2), 2, 0),
)
tensor_row(
    "sparse_coalesced",
    lambda: (torch.eye(2).to_sparse(),),
    lambda t: t._coalesced_(False),
    lambda t: t._coalesced_(True),
)
tensor_row(
    "class_assigned_to_subclass",
    lambda: (torch.ones(2).as_subclass(Sub),),
    lambda t: put(t, __class__=OtherSub),
    lambda t: put(t, __class__=Sub),
)
tensor_row(
    "class_assigned_to_parameter",
    lambda: (torch.ones(2).as_subclass(Sub),),
    lambda t: put(t, __class__=nn.Parameter),
    lambda t: put(t, __class__=Sub),
)


def other_tensor(
    name: str, after: Callable[[], Any], before: Callable[[], Any] = lambda: torch.ones(2, 3), function: Any = double
) -> None:
    """The argument is another tensor after the change."""
    argument_row(name, before, after, lambda x, t: function(t), TENSORS)


other_tensor("to_dtype", lambda: torch.ones(2, 3).to(torch.float64))
other_tensor("to_meta", lambda: torch.ones(2, 3).to("meta"))
other_tensor("to_parameter", lambda: nn.Parameter(torch.ones(2, 3)))
other_tensor(
    "parameter_to_tensor", lambda: torch.ones(2, 3, requires_grad=True), lambda: nn.Parameter(torch.ones(2, 3))
)
other_tensor("to_buffer", lambda: nn.Buffer(torch.ones(2, 3)))
other_tensor("to_subclass", lambda: torch.ones(2, 3).as_subclass(Sub))
other_tensor(
    "to_conjugate", lambda: torch.ones(2, dtype=torch.complex64).conj(), lambda: torch.ones(2, dtype=torch.complex64)
)
other_tensor("to_negative", lambda: torch.ones(2, dtype=torch.complex64).conj().imag, lambda: torch.ones(4)[::2])
other_tensor("to_sparse", lambda: torch.ones(2, 3).to_sparse())
other_tensor("to_sparse_rows", lambda: torch.ones(2, 3).to_sparse_csr())
other_tensor("rows_to_columns", lambda: torch.eye(3).to_sparse_csc(), lambda: torch.eye(3).to_sparse_csr())
other_tensor("to_mkldnn", lambda: torch.ones(2, 3).to_mkldnn())
other_tensor("to_quantised", lambda: torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8))
other_tensor("to_inference", lambda: inference(torch.ones, 2, 3))
other_tensor("from_inference", lambda: torch.ones(2, 3), lambda: inference(torch.ones, 2, 3))
other_tensor("to_jagged", lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged))
other_tensor("to_view", lambda: torch.ones(4, 3)[:2])
other_tensor("to_view_without_grad", lambda: no_grad_view(torch.ones(4, 3, requires_grad=True)))
other_tensor(
    "to_channels_last",
    lambda: torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
    lambda: torch.ones(1, 2, 3, 4),
)
other_tensor("to_expanded", lambda: torch.ones(1, 3).expand(2, 3))
other_tensor("to_scalar", lambda: torch.tensor(1.0))
other_tensor(
    "to_non_leaf",
    lambda: torch.ones(2, 3, requires_grad=True) * 1,
    lambda: torch.ones(2, 3, requires_grad=True),
    guarded,
)
other_tensor("to_not_a_tensor", lambda: 3)
other_tensor("to_numpy", lambda: torch.ones(2, 3).numpy())
other_tensor("tensors_in_list", lambda: [torch.ones(3)], lambda: [torch.ones(2)], lambda t: t[0] * 2)
other_tensor(
    "tensors_in_dict", lambda: {"a": torch.ones(2).double()}, lambda: {"a": torch.ones(2)}, lambda t: t["a"] * 2
)


def inference(make: Any, *arguments: Any) -> Any:
    with torch.inference_mode():
        return make(*arguments)


def no_grad_view(base: Any) -> Any:
    with torch.no_grad():
        return base[:2]


def held_row(
    name: str, hold: Callable[[Any], Any], function: Callable[..., Any], swap: Callable[[Any, Any], Any]
) -> None:
    """A tensor inside something else, replaced there by one of another shape."""

    def row() -> Iterator[Any]:
        holder = hold(torch.ones(2))
        yield function, [torch.ones(2), holder]
        swap(holder, torch.ones(1, 2))
        yield
        swap(holder, torch.ones(2))
        yield

    TENSORS[name] = row


held_row("list_element", lambda t: [t], lambda x, o: x + o[0], lambda o, t: o.__setitem__(0, t))
held_row("dict_element", lambda t: {"a": t}, lambda x, o: x + o["a"], lambda o, t: o.update(a=t))
held_row("held_by_attribute", lambda t: plain(value=t), one, lambda o, t: put(o, value=t))
held_row("held_by_slot", slots, one, lambda o, t: put(o, value=t))


@tensors
def held_by_cell() -> Iterator[Any]:
    held = torch.ones(2)
    yield lambda x: x + held, [torch.ones(2)]
    held = torch.ones(1, 2)
    yield
    held = torch.ones(2)
    yield


@tensors
def same_tensor_twice() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, tensor]
    yield lambda x, y: x + y if x is y else x - y, arguments
    arguments[1] = other
    yield
    arguments[1] = tensor
    yield


@tensors
def different_then_same() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, other]
    yield lambda x, y: x.mul(2) + y, arguments
    arguments[1] = tensor
    yield
    arguments[1] = other
    yield


@tensors
def different_then_aliasing() -> Iterator[Any]:
    tensor = torch.ones(4)
    arguments = [tensor[:2], torch.ones(2)]
    yield lambda x, y: x.mul(2) + y, arguments
    arguments[1] = tensor[1:3]
    yield
    arguments[1] = torch.ones(2)
    yield


@tensors
def same_in_list() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, [tensor]]
    yield lambda x, y: x + y[0], arguments
    arguments[1][0] = other
    yield
    arguments[1][0] = tensor
    yield


@tensors
def same_as_a_global() -> Iterator[Any]:
    arguments = [HELD]
    yield lambda x: x + HELD, arguments
    arguments[0] = torch.ones(2)
    yield
    arguments[0] = HELD
    yield


@tensors
def functional() -> Iterator[Any]:
    arguments = [torch.ones(2)]
    yield double, arguments
    arguments[0] = torch._to_functional_tensor(torch.ones(2))
    yield
    arguments[0] = torch.ones(2)
    yield


@tensors
def batched() -> Iterator[Any]:
    from torch._C._functorch import _add_batch_dim, _vmap_decrement_nesting, _vmap_increment_nesting

    arguments = [torch.ones(2)]
    yield double, arguments
    level = _vmap_increment_nesting(3, "error")
    try:
        arguments[0] = _add_batch_dim(torch.ones(2, 3), 1, level)
        yield
    finally:
        _vmap_decrement_nesting()
    arguments[0] = torch.ones(2)
    yield


@tensors
def freed_and_remade_tensor() -> Iterator[Any]:
    arguments: list[Any] = [torch.ones(2)]

    def remake(*shape: int) -> None:
        for _ in range(5):
            arguments[0] = None
            arguments[0] = torch.ones(*shape)

    yield double, arguments
    remake(3)
    yield
    remake(2)
    yield
