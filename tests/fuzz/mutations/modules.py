"""Modules: attributes, parameters, buffers, submodules, and what torch does to all of them."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..world import World
from .parts import attribute, number, put, refill, refill_attributes, setter, then
from .table import Change, Do, row


def layers(w: World) -> list[Any]:
    return w.layers[:4]


@row(2)
def module_attribute(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield from attribute(layer, "flag", lambda: False, lambda: 1)
        yield from attribute(layer, "eps", lambda: 0.25, lambda: 1)
        yield from attribute(layer.inner, "limit", number, lambda: True)
        yield from attribute(layer.norm, "eps", lambda: 1e-3)


@row(3)
def module_counter(w: World) -> Iterator[Change]:
    """A counter on a module, counted up with every call: nothing is guarded on it."""
    for layer in (*w.layers, w.layers[0].inner):

        def count(layer: Any = layer) -> None:
            layer.calls = getattr(layer, "calls", 0) + 1

        yield Change(count, lambda layer=layer: vars(layer).pop("calls", None))


@row()
def train_and_eval(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(lambda layer=layer: layer.eval(), lambda layer=layer: layer.train())
        yield Change(lambda layer=layer: layer.norm.eval(), lambda layer=layer: layer.train())
        yield Change(lambda layer=layer: layer.blocks[1].eval(), lambda layer=layer: layer.train())


def refill_module(layer: Any) -> Do:
    """The dicts of a module put back: the objects themselves, and what is in them."""
    back = [refill(getattr(layer, name)) for name in ("_parameters", "_buffers", "_modules")]
    return then(refill_attributes(layer), *back)


@row(2)
def submodule_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        back = refill_module(layer)
        yield Change(setter(layer, "linear", lambda: nn.Linear(3, 3)), back)
        yield Change(setter(layer, "norm", nn.Identity), back)
        yield Change(setter(layer, "inner", lambda: w.classes.Inner()), back)
        yield Change(setter(layer, "inner", lambda: w.classes.OtherInner()), back)
        yield Change(lambda layer=layer: layer.add_module("inner", None), back)
        yield Change(lambda layer=layer: layer._modules.pop("norm", None), back)
        yield Change(lambda layer=layer: layer._modules.update(norm=layer._modules.get("linear")), back)


@row(2)
def parameter_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        linear, back = layer.linear, refill_module(layer.linear)
        yield Change(setter(linear, "weight", lambda: nn.Parameter(torch.ones(3, 3))), back)
        yield Change(setter(linear, "weight", lambda: nn.Parameter(torch.ones(4, 3))), back)
        yield Change(setter(linear, "bias", lambda: None), back)
        yield Change(lambda linear=linear: linear._parameters.update(weight=torch.ones(3, 3)), back)
        yield Change(lambda linear=linear: linear.register_parameter("more", nn.Parameter(torch.ones(1))), back)
        yield Change(lambda linear=linear: linear._parameters.pop("bias", None), back)


@row()
def buffer_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        inner, back = layer.inner, refill_module(layer.inner)
        yield Change(setter(inner, "offset", lambda: torch.zeros(3)), back)
        yield Change(setter(inner, "offset", lambda: torch.zeros(4)), back)
        yield Change(setter(inner, "offset", lambda: None), back)
        yield Change(lambda inner=inner: inner.register_buffer("more", torch.zeros(1)), back)


@row()
def module_dicts_replaced(w: World) -> Iterator[Change]:
    """The dict of parameters, buffers or modules is another one, with the same items or fewer."""
    for layer in layers(w):
        for module, name in ((layer, "_modules"), (layer.linear, "_parameters"), (layer.inner, "_buffers")):
            yield from attribute(
                module,
                name,
                lambda module=module, name=name: dict(getattr(module, name)),
                lambda module=module, name=name: collections.OrderedDict(getattr(module, name)),
                dict,
            )


@row()
def module_class(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(put(layer, "__class__", w.classes.OtherLayer), put(layer, "__class__", w.classes.Layer))
        yield Change(
            put(layer.inner, "__class__", w.classes.OtherInner), put(layer.inner, "__class__", w.classes.Inner)
        )


@row()
def module_instance_dict(w: World) -> Iterator[Change]:
    for layer in layers(w):
        for module in (layer, layer.inner):
            before = vars(module)
            yield Change(
                lambda module=module: setattr(module, "__dict__", dict(vars(module))), put(module, "__dict__", before)
            )
            yield Change(
                lambda module=module: module.__setstate__(copy.copy(module.__dict__)), refill_attributes(module)
            )


@row()
def module_lists(w: World) -> Iterator[Change]:
    for layer in layers(w):
        blocks, back = layer.blocks, refill_module(layer.blocks)
        heads = layer.heads
        yield Change(lambda blocks=blocks: blocks.append(w.classes.Inner()), back)
        yield Change(lambda blocks=blocks: blocks.insert(0, w.classes.Inner()), back)
        yield Change(lambda blocks=blocks: len(blocks) and blocks.pop(-1), back)
        yield Change(lambda blocks=blocks: blocks.__setitem__(0, w.classes.Inner()) if len(blocks) else None, back)
        yield Change(
            lambda heads=heads: heads._modules.update(a=heads._modules.get("b"), b=heads._modules.get("a")),
            refill(heads._modules),
        )


@row()
def module_forward_and_hooks(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(setter(layer, "forward", lambda: len), lambda layer=layer: vars(layer).pop("forward", None))
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            hooks = getattr(layer.linear, name)
            yield Change(lambda hooks=hooks: hooks.__setitem__(number(), len), refill(hooks))


@row(0.4, anywhere=False)
def module_to(w: World) -> Iterator[Change]:
    """``.to()`` and its like: the data of each parameter is another, or each parameter is."""
    for layer in w.layers[:2]:
        linear = layer.linear
        yield Change(lambda linear=linear: linear.to(torch.float64), lambda linear=linear: linear.to(torch.float32))
        yield Change(lambda linear=linear: linear.double().float())
        yield Change(lambda linear=linear: linear.half(), lambda linear=linear: linear.float())
        back = then(refill(linear._parameters), lambda linear=linear: linear.to(torch.float32))

        def overwritten(linear: Any = linear) -> None:
            torch.__future__.set_overwrite_module_params_on_conversion(True)
            try:
                linear.to(torch.float64)
            finally:
                torch.__future__.set_overwrite_module_params_on_conversion(False)

        def swapped(linear: Any = linear) -> None:
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                linear.to(torch.float64)
            except RuntimeError:
                pass  # somebody holds a weak reference
            finally:
                torch.__future__.set_swap_module_params_on_conversion(False)

        yield Change(overwritten, back)
        yield Change(swapped, back)


@row(0.5, anywhere=False)
def module_requires_grad(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(
            lambda layer=layer: layer.linear.requires_grad_(False),
            lambda layer=layer: layer.linear.requires_grad_(True),
        )


@row(0.2, anywhere=False)
def load_state_dict(w: World) -> Iterator[Change]:
    for layer in w.layers[:2]:
        linear, back = layer.linear, refill(layer.linear._parameters)
        yield Change(lambda linear=linear: linear.load_state_dict(linear.state_dict()))
        yield Change(
            lambda linear=linear: linear.load_state_dict(
                {"weight": torch.ones(3, 3), "bias": torch.ones(3)}, assign=True
            ),
            back,
        )
