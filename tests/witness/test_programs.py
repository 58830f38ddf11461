"""Whole programs: a compiled module that changes, a training step."""

from __future__ import annotations

import copy

import torch

import unified_guards

from .test_switched_off import compiled_net


def test_a_compiled_module_is_compiled_again_when_it_has_changed() -> None:
    with unified_guards.installed():
        net, compiled = compiled_net()
        held = unified_guards.stats().witness_held
        compiled(torch.ones(1, 2))
        assert unified_guards.stats().witness_held == held + 1
        net.layer = copy.deepcopy(net.layer)
        with torch.no_grad():
            net.layer.weight.add_(1)
        x = torch.ones(1, 2)
        assert torch.equal(compiled(x), net.layer(x))
        net.layer.weight = torch.nn.Parameter(torch.ones(3, 2))
        net.layer.bias = torch.nn.Parameter(torch.ones(3))
        assert compiled(x).shape == (1, 3)


def test_a_training_step_is_remembered() -> None:
    with unified_guards.installed():
        net, compiled = compiled_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(6):
            held = unified_guards.stats().witness_held
            optimizer.zero_grad(set_to_none=True)
            compiled(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            assert step < 2 or unified_guards.stats().witness_held > held
