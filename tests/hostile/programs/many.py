"""Several cache entries, and several objects through one forward."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from ..protocol import Holder, Run, program


class Layer(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.scale, self.index, self.base = 2, index, torch.ones(4)
        self.register_buffer("view", self.base[:2])
        self.cfg = Holder()
        self.cfg.table = {"k": 1}

    def forward(self, x: Any) -> Any:
        return x * self.scale + self.cfg.table["k"] + (1 if self.view.requires_grad else 0)


class Stack(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(index) for index in range(count))

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x) % 97
        return x


CHANGES = {
    "scale": (lambda layer: setattr(layer, "scale", 3), lambda layer: setattr(layer, "scale", 2)),
    "table": (lambda layer: layer.cfg.table.update(k=5), lambda layer: layer.cfg.table.update(k=1)),
    "view": (lambda layer: layer.base.requires_grad_(), lambda layer: layer.base.requires_grad_(False)),
    "class": (
        lambda layer: setattr(layer, "__class__", type("Other", (Layer,), {"forward": lambda self, x: x * 11})),
        lambda layer: setattr(layer, "__class__", Layer),
    ),
}


@program(change=tuple(CHANGES))
def one_of_36_layers(run: Run, change: str) -> None:
    """All layers go through one compiled forward (several roots, one code); one of them changes, and back."""
    torch._dynamo.config.recompile_limit = 64
    layers = [Layer(index) for index in range(36)]
    compiled = [run.compile(layer) for layer in layers]
    x = torch.ones(2)
    for _ in range(4):
        for call in compiled:
            call(x)
    there, back = CHANGES[change]
    for which in (0, 17, 35):
        there(layers[which])
        for index in (which, (which + 1) % 36, 3):
            run.step(lambda: compiled[index](x), lambda: layers[index](x), f"{which} {index}")
        back(layers[which])
        run.step(lambda: compiled[which](x), lambda: layers[which](x), f"{which} back")


@program(change=tuple(CHANGES))
def one_layer_of_a_stack(run: Run, change: str) -> None:
    module = Stack(12)
    compiled, x = run.compile(module), torch.ones(2)
    run.warm(lambda: compiled(x))
    there, back = CHANGES[change]
    for which in (0, 5, 11):
        there(module.layers[which])
        for _ in range(3):
            run.step(lambda: compiled(x), lambda: module(x), str(which))
        back(module.layers[which])
        run.step(lambda: compiled(x), lambda: module(x), f"{which} back")


@program(seed=(1, 2, 3))
def entries_come_and_go(run: Run, seed: int) -> None:
    """A random walk among a few states, each of which has an entry."""
    torch._dynamo.config.recompile_limit = 64
    rng = random.Random(seed)
    cfg, x = Holder(), torch.ones(2)
    base = torch.ones(4)
    cfg.view, cfg.scale, cfg.table, cfg.values = base[:2], 2, {"a": 1}, [1, 2]
    kinds = [type("A", (Holder,), {"level": 1}), type("B", (Holder,), {"level": 2})]

    def function(x: Any, cfg: Any) -> Any:
        level = getattr(cfg, "level", 0)
        return (
            x * cfg.scale + cfg.table["a"] + cfg.values[1] * 10 + level * 100 + (1000 if cfg.view.requires_grad else 0)
        )

    compiled = run.compile(function)
    moves = [
        lambda: setattr(cfg, "scale", rng.choice((2, 3))),
        lambda: cfg.table.update(a=rng.choice((1, 2))),
        lambda: cfg.values.__setitem__(1, rng.choice((2, 3))),
        lambda: setattr(cfg, "__class__", rng.choice(kinds)),
        lambda: base.requires_grad_(rng.random() < 0.5),
        lambda: setattr(cfg, "table", dict(cfg.table)),
        lambda: setattr(rng.choice(kinds), "level", rng.choice((1, 2))),
        lambda: None,
        lambda: None,
    ]
    for index in range(120):
        rng.choice(moves)()
        run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), str(index))


@program()
def tied_objects(run: Run) -> None:
    """Two layers share a list, a config and a tensor, and then no longer do."""
    first, second = Layer(0), Layer(1)
    second.cfg = first.cfg

    def function(x: Any, a: Any, b: Any) -> Any:
        return a(x) + b(x) + (100 if a.cfg is b.cfg else 200)

    compiled, x = run.compile(function), torch.ones(2)
    run.warm(lambda: compiled(x, first, second))
    first.cfg.table["k"] = 4
    run.step(lambda: compiled(x, first, second), lambda: function(x, first, second), "shared")
    second.cfg = Holder()
    second.cfg.table = {"k": 4}
    run.step(lambda: compiled(x, first, second), lambda: function(x, first, second), "no longer shared")
    run.step(lambda: compiled(x, first, first), lambda: function(x, first, first), "the same twice")
    run.step(lambda: compiled(x, second, first), lambda: function(x, second, first), "the other way round")


@program()
def tensors_given_twice(run: Run) -> None:
    def function(x: Any, y: Any, z: Any) -> Any:
        return x * 2 + y * (3 if x is y else 4) + z

    x, y = torch.ones(2), torch.ones(2)
    compiled = run.compile(function)
    for given in ((x, y, y), (x, x, y), (x, y, x), (x, x, x), (y, x, x), (x, y, y), (x, x, y)):
        for _ in range(4):
            run.step(lambda: compiled(*given), lambda: function(*given))
