"""A module changes: flags, attributes, parameters, buffers, children."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

from ..harness import Watched, assert_same, ones, static
from .values import negate


class ChangedModules:
    """nn.Module: flags, attributes, parameters, buffers, children."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            self.register_buffer("offset", torch.zeros(3))
            self.scale: Any = 2
            self.settings = {"power": 1}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.linear(x.to(self.linear.weight.dtype)) * self.scale + self.offset
            for block in self.blocks:
                x = block(x.to(block.weight.dtype))
            return x.pow(self.settings["power"]) if self.training else -x

    @pytest.fixture
    def net(self) -> Net:
        torch.manual_seed(0)
        return self.Net()

    def test_nothing_changed(self, net: Net) -> None:
        watched = static(net)
        for _ in range(4):
            watched.expect(1, ones())

    def test_values_of_parameters_are_not_guarded(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        with torch.no_grad():
            net.linear.weight.mul_(2)
            net.offset.add_(1)
        watched.expect(1, ones())

    def test_training_flag(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.eval()
        watched.expect(2, ones())
        net.train()
        watched.expect(2, ones())

    def test_attribute(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.scale = 3
        watched.expect(2, ones())
        net.scale = 2
        watched.expect(2, ones())
        net.scale = ones()
        watched.expect(3, ones())

    def test_attribute_that_is_not_read(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.something_else = 3
        watched.expect(1, ones())

    def test_value_in_a_dict_of_the_module(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.settings["power"] = 2
        watched.expect(2, ones())
        net.settings = {"power": 1}
        watched.expect(2, ones())

    def test_submodule_replaced_by_its_like(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.linear = nn.Linear(3, 3)
        watched.expect(1, ones())

    def test_submodule_replaced_by_another_kind(self, net: Net) -> None:
        class Doubled(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * 2

        watched = static(net)
        watched.expect(1, ones())
        net.linear = Doubled(3, 3)
        watched.expect(2, ones())

    def test_attribute_of_a_submodule(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.blocks[1] = nn.Linear(3, 3, bias=False)
        watched.expect(2, ones())

    def test_submodule_appended(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.blocks.append(nn.Linear(3, 3))
        watched.expect(2, ones())
        del net.blocks[2]  # makes an OrderedDict of the children, which was a dict before
        watched.expect(3, ones())
        watched.expect(3, ones())

    def test_dtype_of_a_parameter_changed_in_place(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.blocks[1].to(torch.float64)
        watched.expect(2, ones())
        net.blocks[1].to(torch.float32)
        watched.expect(2, ones())

    def test_data_of_a_parameter_changed_in_place(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.blocks[0].weight.data = torch.ones(3, 3)
        watched.expect(1, ones())
        net.blocks[0].weight.data = torch.ones(3, 3).t().clone().t()
        watched.expect(1, ones())
        net.blocks[0].weight.data = torch.as_strided(torch.ones(18), (3, 3), (6, 1))
        watched.expect(2, ones())

    def test_parameter_frozen(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.linear.weight.requires_grad_(False)
        watched.expect(2, ones())
        net.linear.weight.requires_grad_(True)
        watched.expect(2, ones())

    def test_parameter_replaced(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.linear.weight = nn.Parameter(torch.ones(3, 3))
        watched.expect(1, ones())
        net.linear.weight = nn.Parameter(torch.ones(3, 3).double())
        net.linear.bias = nn.Parameter(torch.ones(3).double())
        watched.expect(2, ones())

    def test_parameter_replaced_by_none(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.linear.bias = None
        watched.expect(2, ones())

    def test_buffer_replaced(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.offset = torch.ones(3)
        watched.expect(1, ones())
        net.offset = torch.ones(1)
        watched.expect(2, ones())
        net.register_buffer("offset", torch.ones(3, dtype=torch.float64))
        net.to(torch.float64)
        watched.expect(3, ones())

    def test_parameters_tied_later(self, net: Net) -> None:
        watched = static(net)
        watched.expect(1, ones())
        net.blocks[0].weight = net.blocks[1].weight
        watched(ones())
        assert watched.graphs == 1

    def test_two_instances_share_what_they_can(self) -> None:
        graphs = 0

        def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            nonlocal graphs
            graphs += 1
            return graph.forward

        nets = [self.Net() for _ in range(3)]
        compiled = [torch.compile(net, backend=backend, dynamic=False) for net in nets]
        for net, module in zip(nets, compiled, strict=True):
            assert_same(module(ones()), net(ones()))
        assert graphs == 1
        nets[1].scale = 5
        for _ in range(2):
            for net, module in zip(nets, compiled, strict=True):
                assert_same(module(ones()), net(ones()))
        assert graphs == 2

    def test_model_as_an_argument(self) -> None:
        watched = static(lambda model, x: model(x) + 1)
        first, second = self.Net(), self.Net()
        watched.expect(1, first, ones())
        watched.expect(1, second, ones())
        second.eval()
        watched.expect(2, second, ones())
        watched.expect(2, first, ones())

    def test_forward_replaced_on_the_instance(self, net: Net) -> None:
        watched = static(lambda x: net(x))
        watched.expect(1, ones())
        net.linear.forward = negate  # type: ignore[method-assign]
        watched.expect(2, ones())

    def test_class_of_a_submodule_replaced(self, net: Net) -> None:
        class Doubled(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * 2

        watched = static(net)
        watched.expect(1, ones())
        net.linear.__class__ = Doubled
        watched.expect(2, ones())

    def test_hook_added_later_is_not_noticed(self, net: Net) -> None:
        watched = static(lambda x: net(x))
        watched.expect(1, ones())
        with net.linear.register_forward_hook(lambda module, args, output: output * 2):
            before = watched.compiled(ones())
            assert watched.graphs == 1
        assert_same(before, net(ones()))

    def test_hook_added_later_with_hook_guards(self, net: Net) -> None:
        with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
            watched = static(lambda x: net(x))
            watched.expect(1, ones())
            with net.linear.register_forward_hook(lambda module, args, output: output * 2):
                watched.expect(2, ones())
            watched.expect(2, ones())

    def test_batch_norm_counts_without_recompiling(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        reference = copy.deepcopy(model)
        watched = static(model)
        watched.function = reference
        for _ in range(4):
            watched.expect(1, torch.randn(5, 3))
        model.eval()
        reference.eval()
        watched.expect(2, torch.randn(5, 3))

    def test_counter_on_the_module(self) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(3, 3)
                self.calls = 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return self.linear(x) * self.calls

        model = Counting()
        reference = copy.deepcopy(model)
        watched = Watched(model)
        watched.function = reference
        counts = []
        for _ in range(6):
            watched(ones())
            counts.append(watched.graphs)
        assert counts == [1, 2, 3, 4, 5, 6]  # an int of a module never turns dynamic
        assert model.calls == reference.calls == 6
