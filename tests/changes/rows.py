"""Rows of the matrix of changes, and how what torch makes of one is compared with what ours makes of it.

A row is a generator. It yields the function and its arguments, makes its change, yields, undoes it, and yields again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo

import unified_guards

Row = Callable[[], Iterator[Any]]
PYTHON: dict[str, Row] = {}
TENSORS: dict[str, Row] = {}
WARM_UP = 6
SWITCHES = {
    "as users run it": {},
    "verified": {"UNIFIED_GUARDS_VERIFY": "1"},
    "verified, nothing remembered": {"UNIFIED_GUARDS_VERIFY": "1", "UNIFIED_GUARDS_WITNESS": "0"},
}


def python(row: Row) -> Row:
    PYTHON[row.__name__] = row
    return row


def tensors(row: Row) -> Row:
    TENSORS[row.__name__] = row
    return row


# Running a row


@dataclasses.dataclass
class Step:
    results: list[Any]
    ran: list[int]
    compilations: int


def described(value: Any) -> Any:
    """A value that compares by what can be seen of it: nan equals nan, and -0.0 does not equal 0.0."""
    if isinstance(value, (tuple, list)):
        return [described(each) for each in value]
    if not isinstance(value, torch.Tensor):
        return repr(value)
    seen = (type(value), value.dtype, value.layout, value.requires_grad, value.is_inference(), str(value.device))
    if value.is_nested:
        return (*seen, [described(each) for each in value.detach().unbind()])
    if value.device.type == "meta":
        return (*seen, value.shape, value.stride())
    plain = value.detach()
    if value.is_quantized:
        plain = plain.dequantize()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    return (*seen, plain.shape, repr(plain.tolist()))


def steps_of(row: Row) -> list[Step]:
    """What the row's calls give: while it is as made, after its change, and after the change is undone."""
    torch._dynamo.reset()
    compiled_graphs = 0
    ran: list[int] = []

    def backend(module: Any, _: Any) -> Any:
        nonlocal compiled_graphs
        number = compiled_graphs = compiled_graphs + 1

        def run(*arguments: Any) -> Any:
            ran.append(number)
            return module(*arguments)

        return run

    play = row()
    function, arguments = next(play)
    compiled = torch.compile(function, backend=backend, dynamic=False)

    def step(calls: int) -> Step:
        ran.clear()
        results = []
        for _ in range(calls):
            try:
                results.append(described(compiled(*arguments)))
            except unified_guards.GuardDisagreement:
                raise
            except Exception as error:  # a result too: torch must raise it as well
                results.append(type(error).__name__)
        return Step(results, list(ran), compiled_graphs)

    try:
        steps = [step(WARM_UP)]
        for _ in range(2):
            next(play)
            steps.append(step(2))
        return steps
    finally:
        play.close()
        torch._dynamo.reset()


def compare(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not unified_guards.is_installed()
    expected = steps_of(row)
    # Torch's tree would be compared with itself.
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "1")
    for name, switches in SWITCHES.items():
        for switch in ("UNIFIED_GUARDS_VERIFY", "UNIFIED_GUARDS_WITNESS"):
            monkeypatch.delenv(switch, raising=False)
        for switch, value in switches.items():
            monkeypatch.setenv(switch, value)
        with unified_guards.installed():
            compare_steps(steps_of(row), expected, name)


def compare_steps(found: list[Step], expected: list[Step], name: str) -> None:
    assert [step.results for step in found] == [step.results for step in expected], name
    pairs = list(zip(found, expected, strict=True))
    assert all(ours.compilations >= theirs.compilations for ours, theirs in pairs), f"{name}: a false hit: {pairs}"
    # A miss that torch does not have gives another graph the next number.
    if all(ours.compilations == theirs.compilations for ours, theirs in pairs):
        assert [step.ran for step in found] == [step.ran for step in expected], name
