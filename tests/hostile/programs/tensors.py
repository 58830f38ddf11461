"""What a tensor says of itself through a virtual call where its own fields say something else: views, above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..protocol import PLACES, Run, program


def grown(x: Any, v: Any) -> Any:
    return x + (3 if v.requires_grad else 2)


def want() -> torch.Tensor:
    return torch.ones(4, requires_grad=True)


@program(aot=True, place=PLACES)
def base_multiplied(run: Run, place: str) -> None:
    base = torch.ones(4)
    spot = run.spot(place, grown, base[:2])
    base.mul_(want())
    spot.step("the base has a history")


@program(aot=True, place=PLACES)
def base_asked_to_require_grad(run: Run, place: str) -> None:
    base = torch.ones(4)
    spot = run.spot(place, grown, base[:2])
    base.requires_grad_()
    spot.step("the base is a leaf that requires gradients")
    base.requires_grad_(False)
    spot.step("and no longer")
    base.requires_grad_()
    spot.step("and again")


def _no_grad_view() -> tuple[Any, Any]:
    base = torch.ones(4)
    with torch.no_grad():
        return base, base[:2]


def _inference_view() -> tuple[Any, Any]:
    base = torch.ones(4)
    with torch.inference_mode():
        return base, base[:2]


def _with_base(view: Callable[[Any], Any]) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        base = torch.ones(4)
        return base, view(base)

    return make


VIEWS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "slice": _with_base(lambda base: base[:2]),
    "slice_of_slice": _with_base(lambda base: base[:3][1:]),
    "select": _with_base(lambda base: base[0]),
    "reshape": _with_base(lambda base: base.view(2, 2)),
    "expand": _with_base(lambda base: base.expand(3, 4)),
    "transposed": _with_base(lambda base: base.view(2, 2).t()),
    "unbind": _with_base(lambda base: base.unbind()[1]),
    "split": _with_base(lambda base: base.split(2)[0]),
    "chunk": _with_base(lambda base: base.chunk(2)[1]),
    "of_unbind": _with_base(lambda base: base.view(2, 2).unbind()[1][:1]),
    "view_as": _with_base(lambda base: base.view_as(base)),
    "alias": _with_base(lambda base: torch.ops.aten.alias(base)),
    "detached": _with_base(lambda base: base.detach()),
    "view_of_detached": _with_base(lambda base: base.detach()[:2]),
    "data": _with_base(lambda base: base.data[:2]),
    "as_strided": _with_base(lambda base: base.as_strided((2,), (2,))),
    "unfold": _with_base(lambda base: base.unfold(0, 2, 1)),
    "diagonal": _with_base(lambda base: base.view(2, 2).diagonal()),
    "dtype_view": _with_base(lambda base: base.view(torch.int32)),
    "no_grad": _no_grad_view,
    "inference": _inference_view,
}


@program(aot=True, view=tuple(VIEWS))
def every_view(run: Run, view: str) -> None:
    for name, change in (
        ("multiplied", lambda base: base.mul_(want())),
        ("asked", lambda base: base.requires_grad_()),
        ("copied into", lambda base: base.copy_(want())),
    ):
        base, v = VIEWS[view]()
        spot = run.spot("argument", grown, v)
        run.step(lambda: change(base) is None, lambda: False, "change")
        spot.step(name)


@program(place=PLACES)
def sibling_view_written(run: Run, place: str) -> None:
    """Another view of the same base is written to: the base, and so this view, has a history."""
    base = torch.ones(4)
    spot = run.spot(place, grown, base[:2])
    base[2:].mul_(torch.ones(2, requires_grad=True))
    spot.step()


@program(aot=True)
def view_written_itself(run: Run) -> None:
    base = torch.ones(4)
    view, other = base[:2], base[1:3]
    spot, second = run.spot("argument", grown, view), run.spot("argument", grown, other)
    view.mul_(torch.ones(2, requires_grad=True))
    spot.step("the view")
    second.step("its sibling")
    run.step(lambda: run.spot("argument", grown, base).call(), lambda: grown(torch.zeros(2), base), "the base")


@program(place=PLACES)
def view_of_a_parameter(run: Run, place: str) -> None:
    parameter = nn.Parameter(torch.ones(4), requires_grad=False)
    spot = run.spot(place, grown, parameter[:2])
    parameter.requires_grad_()
    spot.step("thawed")
    parameter.requires_grad_(False)
    spot.step("frozen")


@program()
def frozen_layer_thawed(run: Run) -> None:
    """Ordinary use: a tied slice of frozen embeddings, which is trained later."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(4, 2).requires_grad_(False)
            self.__dict__["head"] = self.embedding.weight[:2]

        def forward(self, x: Any) -> Any:
            return grown(x, self.head)

    module = Head()
    compiled = run.compile(module)
    x = torch.zeros(2)
    run.warm(lambda: compiled(x))
    module.requires_grad_(True)
    run.step(lambda: compiled(x), lambda: module(x))
    module.requires_grad_(False)
    run.step(lambda: compiled(x), lambda: module(x))


@program()
def buffer_view(run: Run) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = torch.ones(4)
            self.register_buffer("view", self.base[:2])

        def forward(self, x: Any) -> Any:
            return grown(x, self.view)

    module = Cached()
    compiled = run.compile(module)
    x = torch.zeros(2)
    run.warm(lambda: compiled(x))
    module.base.mul_(want())
    run.step(lambda: compiled(x), lambda: module(x))


@program(aot=True)
def gradients_flow(run: Run) -> None:
    """The compiled code that was kept dropped the gradients."""
    base = torch.ones(4)
    compiled = run.compile(lambda v: v * 2 if not v.requires_grad else v * 3)
    view = base[:2]
    run.warm(lambda: compiled(view))
    weight = want()
    base.mul_(weight)
    run.step(lambda: torch.autograd.grad(compiled(view).sum(), weight), lambda: [torch.tensor([3.0, 3.0, 0.0, 0.0])])


@program()
def views_come_back(run: Run) -> None:
    """Several entries: the view goes from one to the other and back, while the first is believed again."""
    base = torch.ones(4)
    view = base[:2]
    compiled = run.compile(grown)
    x = torch.zeros(2)
    for _ in range(3):
        base.requires_grad_(False)
        run.step(lambda: compiled(x, view), lambda: grown(x, view), "without")
        run.warm(lambda: compiled(x, view), 4)
        base.requires_grad_(True)
        run.step(lambda: compiled(x, view), lambda: grown(x, view), "with")
        run.warm(lambda: compiled(x, view), 4)


@program()
def spec_of_a_view_that_requires_grad(run: Run) -> None:
    """The other way round: the same input must match its own entry again."""
    base = torch.ones(4)
    view = base[:2]
    base.mul_(want())
    compiled = run.compile(lambda v: v.detach() * 2, dynamic=False)
    for _ in range(6):
        run.step(lambda: compiled(view), lambda: view.detach() * 2)
    assert run.graphs == 1 or run.variant == "aot", run.graphs


@program()
def subclass_view(run: Run) -> None:
    class Sub(torch.Tensor):
        pass

    base = torch.ones(4).as_subclass(Sub)
    view = base[:2]
    assert type(view) is Sub
    spot = run.spot("argument", grown, view)
    base.requires_grad_()
    spot.step()


@program(place=PLACES)
def own_changes(run: Run, place: str) -> None:
    tensor = torch.ones(4)
    spot = run.spot(place, grown, tensor)
    tensor.requires_grad_()
    spot.step("requires_grad_")
    tensor.detach_()
    tensor.requires_grad = False
    spot.step("detach_")
    tensor.mul_(want())
    spot.step("mul_")
    tensor.detach_()
    spot.step("detach_ of a history")


def _swapped(tensor: Any) -> None:
    torch.utils.swap_tensors(tensor, torch.ones(4, requires_grad=True))


@program(place=PLACES)
def swapped(run: Run, place: str) -> None:
    def use(x: Any, v: Any) -> Any:
        return x + v.shape[0] + (10 if v.requires_grad else 20)

    tensor = torch.ones(4)
    spot = run.spot(place, use, tensor)
    run.step(lambda: _swapped(tensor), lambda: None, "swap_tensors")
    spot.step("swapped")
    run.step(lambda: torch.utils.swap_tensors(tensor, torch.ones(5)), lambda: None, "swap_tensors")
    spot.step("swapped back, of another size")


@program(place=PLACES)
def view_swapped_for_one_of_another_base(run: Run, place: str) -> None:
    first, second = torch.ones(4), torch.ones(4)
    view = first[:2]
    spot = run.spot(place, grown, view)
    view.set_(second[:2])
    second.requires_grad_()
    spot.step("the storage's other tensor")
    first.requires_grad_()
    spot.step("its own base")


@program()
def leaf_of_a_view_in_the_graph(run: Run) -> None:
    """``requires_grad`` of the base goes through a view that was made by the compiled frame before."""
    base = torch.ones(4)

    def make(base: Any) -> Any:
        return base[:2]

    compiled = run.compile(make)
    view = compiled(base)
    spot = run.spot("argument", grown, view)
    base.requires_grad_()
    spot.step()


@program()
def base_of_a_base_set(run: Run) -> None:
    base = torch.ones(4)
    view = base[:2]
    spot = run.spot("argument", grown, view)
    base.data = torch.zeros(6)
    spot.step("data of the base")
    base.requires_grad_()
    spot.step("then asked to require gradients")


@program()
def view_of_integer_base(run: Run) -> None:
    base = torch.ones(4)
    view = base.view(torch.int32)
    spot = run.spot("argument", grown, view)
    base.mul_(want())
    spot.step()


@program()
def gradient_mode_of_the_caller(run: Run) -> None:
    base = torch.ones(4)
    view = base[:2]
    spot = run.spot("argument", grown, view)
    with torch.no_grad():
        spot.step("no_grad")
        base.requires_grad_()
        spot.step("no_grad, thawed")
    spot.step("grad, thawed")
    with torch.inference_mode():
        spot.step("inference, thawed")
