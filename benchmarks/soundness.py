"""The table of docs/recipes/aot.md and docs/guards.md: calls through torch's AOT entry points and through ours.

    python -m benchmarks.soundness

Each :class:`Row` makes a callable with some entry point and calls it on a sequence of inputs; :func:`columns` says what
torch gives, what ours gives and what eager gives. The tests, the documentation and the demo read the same rows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import aot_function as torch_aot_function
from functorch.compile import nop
from torch.fx.experimental.proxy_tensor import make_fx as torch_make_fx

import unified_guards


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what changes between the calls.
        function: the function that is compiled.
        calls: makes the arguments of each call anew, since a call may write to them.
        show: what to write down of a result.
        options: for the entry point.
    """

    name: str
    function: Callable[..., Any]
    calls: Callable[[], list[tuple[Any, ...]]]
    show: Callable[[Any], Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def _by_size(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 4 else x * 3


def _by_dtype(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.dtype == torch.float32 else x * 3


def _double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def _add_in_place(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a.add_(1)
    return a + b


def _sizes() -> list[tuple[Any, ...]]:
    return [(torch.ones(3),), (torch.ones(8),)]


def _dtypes() -> list[tuple[Any, ...]]:
    return [(torch.ones(3),), (torch.ones(3, dtype=torch.float64),)]


def _grads() -> list[tuple[Any, ...]]:
    return [(torch.ones(3),), (torch.ones(3, requires_grad=True),)]


def _same() -> list[tuple[Any, ...]]:
    one = torch.zeros(3)
    return [(torch.zeros(3), torch.zeros(3)), (one, one)]


def _first(result: torch.Tensor) -> Any:
    return int(result.flatten()[0].item())


def _has_grad(result: torch.Tensor) -> Any:
    return result.requires_grad


ROWS = (
    Row("a branch on a size, dynamic=True", _by_size, _sizes, _first, {"dynamic": True}),
    Row("a branch on a size, dynamic=False", _by_size, _sizes, _first, {"dynamic": False}),
    Row("a branch on a dtype", _by_dtype, _dtypes, _first),
    Row("requires_grad", _double, _grads, _has_grad),
    Row("one tensor twice, written to", _add_in_place, _same, _first),
)


def run(row: Row, function: Callable[..., Any]) -> list[Any]:
    """What each call of the row gives."""
    return [row.show(function(*args)) for args in row.calls()]


def columns(row: Row) -> tuple[list[Any], list[Any], list[Any]]:
    """What torch's ``aot_function``, ours and eager give."""
    theirs = torch_aot_function(row.function, nop, **row.options)
    ours = unified_guards.aot_function(row.function, nop, **row.options)
    return run(row, theirs), run(row, ours), run(row, row.function)


def make_fx_columns() -> tuple[list[Any], list[Any], list[Any]]:
    """The last line: a graph traced on ones(3), then run on ones(8)."""
    graph = torch_make_fx(_by_size, tracing_mode="symbolic")(torch.ones(3))
    guarded = unified_guards.make_fx(_by_size, tracing_mode="symbolic")(torch.ones(3))

    def outcome(function: Callable[..., Any], x: torch.Tensor) -> Any:
        try:
            return _first(function(x))
        except unified_guards.GuardError as error:
            return f"GuardError: {error.guard}"

    inputs = (torch.ones(3), torch.ones(8))
    return (
        [outcome(graph, x) for x in inputs],
        [outcome(guarded, x) for x in inputs],
        [outcome(_by_size, x) for x in inputs],
    )


def _cell(column: list[Any]) -> str:
    return re.sub(r"(?<=GuardError: )(.+)", r"`\1`", ", ".join(map(str, column)))  # [] is a link to Markdown


def as_markdown() -> str:
    """The whole table, produced by running it."""
    lines = ["| what changes | torch gives | ours | eager |", "|---|---|---|---|"]
    found = [(row.name, columns(row)) for row in ROWS]
    found.append(("`make_fx`, symbolic: ones(3), then ones(8)", make_fx_columns()))
    for name, (theirs, ours, eager) in found:
        lines.append(f"| {name} | " + " | ".join(map(_cell, (theirs, ours, eager))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
