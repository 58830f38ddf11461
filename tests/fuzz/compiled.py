"""Frames whose guard sets Dynamo made: functions over the objects of a world, really compiled.

Torch's own tree is kept beside each checker, so here it is asked, too. Entry point: :func:`frames`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo.guards as torch_guards

import unified_guards
from unified_guards import _C
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper

from .engine import Frame
from .world import World


def torchs(wrapper: Any) -> Callable[[dict[str, Any]], bool]:
    """Torch's verdict; where torch throws it is a miss. Its verbose check takes no shortcuts through dict tags."""
    root = wrapper.torch_root

    def verdict(f_locals: dict[str, Any]) -> bool:
        before = _C.torch_function_state()
        try:
            root.check(f_locals)
            return bool(root.check_verbose(f_locals).result)
        except Exception:  # whatever torch, or code of the user's that it runs, throws
            return False
        finally:
            _C.set_torch_function_state(before)

    return verdict


@contextlib.contextmanager
def _seen() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    found: list[tuple[Any, dict[str, Any]]] = []
    torch_guards.guard_manager_testing_hook_fn = lambda wrapper, scope, builder: found.append((wrapper, dict(scope)))
    try:
        with unified_guards.installed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield found
    finally:
        torch_guards.guard_manager_testing_hook_fn = None


def _functions(world: World) -> list[tuple[str, Callable[..., Any], dict[str, Any], tuple[str, ...]]]:
    """(family, function, its keyword arguments, which of the family's locals it is given)."""
    space = world.space

    def layer(self: Any, x: Any, n: Any, kwargs: Any) -> Any:
        hidden = self(torch.ones(2, 3), 2)
        return hidden * n + kwargs["scale"] if kwargs["flag"] else hidden

    def thing(self: Any, n: Any, args: Any) -> Any:
        total = self.own + self.value + self.shared + self.level + self.config["deep"]["k"][0]
        return args[1] + total + len(self.items) + (self.text == "text") + self.pair[1][0] + self.child.a + n

    def inline(self: Any, n: Any) -> Any:
        return torch.ones(2) * self.a + len(self.items) + (self.b == "b") + n

    def numbers(w: Any) -> Any:
        x = space.scratch[0] * space.numbers[1] + space.words["word3"] + space.deep["a"]["b"]["c"]["d"]
        for key, value in space.ordered.items():
            x = x + len(key) if key != "b" else x + value[0]
        x = x + space.default["a"][0] + len(space.items) + space.nested[1][1][0] + space.point.y
        return x + (1 in space.group) + space.config.inner.width + space.name_space.heads + space.slotted.a

    def called(w: Any) -> Any:
        helper = world.functions.helper
        return helper(space.scratch[1]) + space.dynamic.found + space.zero + space.thing_class.shared

    def tensors(w: Any) -> Any:
        x = space.scratch[0] + space.scratch[1] * space.view + space.noted.sum() + space.param
        x = x + space.ranks[3].sum() + space.ranks[6].sum() + space.groups[0]["params"][0].sum()
        if space.graded.grad is not None:
            x = x + space.graded.grad.sum()
        return x + space.state[space.groups[0]["params"][0]]["step"] * space.groups[0]["lr"]

    return [
        ("layer", layer, world.layer_locals(0), ("self", "x", "n", "kwargs")),
        ("thing", thing, world.thing_locals(0), ("self", "n", "args")),
        ("inline", inline, world.inline_locals(0), ("self", "n")),
        ("space", numbers, world.space_locals(0), ("w",)),
        ("space", called, world.space_locals(0), ("w",)),
        ("space", tensors, world.space_locals(0), ("w",)),
    ]


def _call(family: Callable[[int], dict[str, Any]], cells: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    return lambda root: {**family(root), **cells}


def frames(world: World) -> list[Frame]:
    """Compiles each function; those that torch leaves alone are not there."""
    torch._dynamo.reset()
    found: list[Frame] = []
    for family, function, given, names in _functions(world):
        with _seen() as seen:
            compiled = torch.compile(function, backend="eager", dynamic=False, fullgraph=True)
            compiled(**{name: given[name] for name in names})
        ((wrapper, scope),) = seen
        assert isinstance(wrapper, UnifiedGuardManagerWrapper), unified_guards.stats()
        frame, cells = wrapper.entry, {name: value for name, value in scope.items() if name not in given}
        roots = 1 if family == "space" else len(world.layers)
        f_locals = _call(getattr(world, f"{family}_locals"), cells)
        made = Frame(f"compiled {family}", roots, f_locals, frame.guard_set, frame.checker, frame.row_origins)
        made.oracle, made.kept = torchs(wrapper), compiled
        found.append(made)
    return found
