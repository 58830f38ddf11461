"""Without a witness, by argument or by the environment, the exact tier answers alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unified_guards
from unified_guards import _C

from ..guards import equals, item, program_of
from .building import Thing


def test_a_checker_without_a_witness_has_the_exact_tier_alone() -> None:
    made = _C.Checker(program_of(equals(item("flag"), True)).rows, None, False)
    assert made.witness is None
    thing: Any = Thing(flag=True)
    assert [made.check({"x": thing}) for _ in range(3)] == [True] * 3
    thing.flag = False
    assert not made.check({"x": thing})


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.negate = False

    def forward(self, x: torch.Tensor) -> Any:
        return -self.layer(x) if self.negate else self.layer(x)


def compiled_net() -> tuple[Net, Any]:
    net = Net()
    compiled = torch.compile(net, backend="eager")
    for _ in range(4):
        compiled(torch.ones(1, 2))
    return net, compiled


@pytest.mark.parametrize(("value", "off"), [("0", True), ("1", False), (None, False)])
def test_the_environment_switches_it_off(value: str | None, off: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("UNIFIED_GUARDS_WITNESS", raising=False)
    else:
        monkeypatch.setenv("UNIFIED_GUARDS_WITNESS", value)
    with unified_guards.installed():
        net, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
        assert (frame.roots == 0) is off
        net.negate = True
        assert torch.equal(compiled(torch.ones(1, 2)), -net.layer(torch.ones(1, 2)))
