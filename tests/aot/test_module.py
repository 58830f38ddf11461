"""``aot_module`` and ``aot_module_simplified``: modules are read on every call, and give what they give in eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import aot_module as torch_aot_module
from functorch.compile import nop
from torch import nn

import unified_guards

from .helpers import Counting, boxed, ones


def pair(module: nn.Module, **options: Any) -> tuple[nn.Module, nn.Module]:
    """The module compiled, and a copy of it to compare with."""
    return unified_guards.aot_module(module, nop, **options), copy.deepcopy(module)


def gradients(module: nn.Module) -> dict[str, Any]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def call(module: nn.Module, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result, the gradients of the parameters, and the buffers."""
    owner.zero_grad()
    torch.manual_seed(1)
    result = module(*args, **kwargs)
    first = result[0] if isinstance(result, tuple) else result
    if first.requires_grad:
        (first * torch.arange(first.numel()).reshape(first.shape)).sum().backward()
    return result, gradients(owner), dict(owner.named_buffers())


def assert_same(compiled: Any, eager: nn.Module, *args: Any, **kwargs: Any) -> None:
    found = call(compiled, compiled.orig_module, args, kwargs)
    torch.testing.assert_close(found, call(eager, eager, args, kwargs), rtol=0, atol=0)


def both(change: Callable[[nn.Module], Any], compiled: Any, eager: nn.Module) -> None:
    change(compiled.orig_module)
    change(eager)


def assert_follows(module: nn.Module, change: Callable[[nn.Module], Any], *args: Any) -> Any:
    """Like eager before and after a change, never run eagerly; returns the counts."""
    compiled, eager = pair(module)
    for step in (lambda _: None, change):
        both(step, compiled, eager)
        for _ in range(2):
            assert_same(compiled, eager, *args)
    info = compiled.cache_info()
    assert info.eager == {}
    return info


# -- parameters --------------------------------------------------------------------------------------------------------


def test_an_optimizer_step_needs_no_new_version() -> None:
    compiled, eager = pair(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (compiled.orig_module, eager)]
    for _ in range(4):
        assert_same(compiled, eager, torch.randn(5, 3))
        for optimizer in optimizers:
            optimizer.step()
    info = compiled.cache_info()
    assert (info.misses, info.recompiles, info.eager) == (1, 0, {})


def test_another_parameter_object_is_used_and_gets_the_gradient() -> None:
    def replace(module: nn.Module) -> None:
        module.weight = nn.Parameter(ones(2, 3) * 5)

    assert assert_follows(nn.Linear(3, 2), replace, ones(4, 3)).entries == 1


def test_a_parameter_of_another_size_is_another_version() -> None:
    def replace(module: nn.Module) -> None:
        module.weight, module.bias = nn.Parameter(ones(5, 3)), nn.Parameter(ones(5))

    assert assert_follows(nn.Linear(3, 2), replace, ones(4, 3)).recompiles == 1


def test_a_frozen_parameter_gets_no_gradient() -> None:
    assert assert_follows(nn.Linear(3, 2), lambda m: m.weight.requires_grad_(False), ones(4, 3)).recompiles == 1


def test_a_module_without_anything_that_requires_grad() -> None:
    assert_follows(nn.Linear(3, 2), lambda m: m.requires_grad_(False), ones(4, 3))


def test_tied_weights_get_the_sum_of_the_gradients() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(x))

    def untie(module: nn.Module) -> None:
        module.head.weight = nn.Parameter(ones(5, 3))

    assert assert_follows(Tied(), untie, torch.tensor([1, 2])).recompiles == 1


def test_a_parameter_that_something_else_holds_too() -> None:
    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.held = [self.linear.weight]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + self.held[0].sum()

    assert_follows(Holding(), lambda _: None, ones(2))


def test_a_parameter_that_is_named_apart_from_its_module() -> None:
    linear = nn.Linear(2, 2)
    weight = linear.weight
    compiled = unified_guards.aot_function(lambda x: linear(x) + weight.sum(), nop)
    for _ in range(2):
        linear.zero_grad()
        compiled(ones(2)).sum().backward()
        torch.testing.assert_close(weight.grad, ones(2, 2) * 3)
        with torch.no_grad():
            weight.mul_(2)
        torch.testing.assert_close(compiled(ones(2)), linear(ones(2)) + weight.sum())


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_recurrent_modules(kind: Any) -> None:
    assert_follows(kind(3, 3), lambda _: None, torch.randn(4, 1, 3))


def test_an_lstm_without_gradients() -> None:
    # With gradients, torch's own AOTAutograd refuses what its graph saves (an assertion when it is run).
    module, x = nn.LSTM(3, 3).requires_grad_(False), torch.randn(4, 1, 3)
    compiled = unified_guards.aot_module(module, boxed)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), module(x))
    assert compiled.cache_info().entries == 1


def test_parameters_in_lists_and_dicts_of_torch() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.many = nn.ParameterList([ones(2), ones(2) * 2])
            self.named = nn.ParameterDict({"a": nn.Parameter(ones(2))})
            self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for parameter in self.many:
                x = x * parameter
            x = x * self.named["a"]
            for layer in self.layers:
                x = layer(x)
            return x

    assert_follows(Lists(), lambda m: m.layers.append(nn.Linear(2, 2).requires_grad_(False).apply(_fill)), ones(2))


def _fill(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)


# -- flags, attributes, submodules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [lambda: nn.Dropout(0.5), lambda: nn.BatchNorm1d(3)], ids=["dropout", "batch norm"])
def test_train_and_eval(kind: Callable[[], nn.Module]) -> None:
    compiled, eager = pair(nn.Sequential(nn.Linear(3, 3), kind()))
    for mode in (True, True, False, True, False):
        both(lambda m: m.train(mode), compiled, eager)
        assert_same(compiled, eager, torch.randn(4, 3))
    info = compiled.cache_info()
    assert (info.entries, info.recompiles, info.eager) == (2, 1, {})


def test_running_statistics_move_as_in_eager() -> None:
    compiled, eager = pair(nn.BatchNorm1d(3))
    for at in range(1, 4):
        assert_same(compiled, eager, torch.randn(4, 3) * at)
        assert int(compiled.orig_module.num_batches_tracked) == at


class Scaled(nn.Module):
    shared = 2

    def __init__(self, scale: Any = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.scale = scale
        self.register_buffer("offset", ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        if self.offset is not None:
            x = x + self.offset
        return x if self.scale is None else x * self.scale


@pytest.mark.parametrize("value", [3, 2.0, None, True])
def test_a_plain_attribute(value: Any) -> None:
    info = assert_follows(Scaled(), lambda m: setattr(m, "scale", value), ones(2))
    assert info.recompiles == 1


def test_an_attribute_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shared(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * self.shared

    monkeypatch.setattr(Shared, "shared", 2)
    assert_follows(Shared(), lambda _: setattr(Shared, "shared", 3), ones(2))


def test_a_buffer_that_becomes_none() -> None:
    assert assert_follows(Scaled(), lambda m: setattr(m, "offset", None), ones(2)).recompiles == 1


def test_a_buffer_that_is_rebound_or_written_to_needs_no_new_version() -> None:
    def change(module: nn.Module) -> None:
        module.offset = ones(2) * 3
        module.offset.add_(1)

    assert assert_follows(Scaled(), change, ones(2)).recompiles == 0


def test_a_plain_tensor_attribute() -> None:
    class WithTensor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = ones(2)
            self.weight = nn.Parameter(ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.table * self.weight

    assert assert_follows(WithTensor(), lambda m: setattr(m, "table", ones(2) * 4), ones(2)).recompiles == 0


def test_a_submodule_that_is_replaced() -> None:
    def replace(module: nn.Module) -> None:
        module.linear = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        module.linear.apply(_fill)

    assert assert_follows(Scaled(), replace, ones(2)).recompiles == 1


def test_a_submodule_that_is_added() -> None:
    def extend(module: nn.Module) -> None:
        module.append(nn.Tanh())

    assert assert_follows(nn.Sequential(nn.Linear(2, 2)), extend, ones(2)).recompiles == 1


def test_one_submodule_used_twice() -> None:
    linear = nn.Linear(2, 2)
    assert_follows(nn.Sequential(linear, nn.Tanh(), linear), lambda _: None, ones(2))


def test_hooks_that_come_and_go() -> None:
    compiled, eager = pair(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    assert_same(compiled, eager, ones(2))
    modules = (compiled.orig_module, eager)
    handles = [module[0].register_forward_hook(lambda m, args, result: result * 2) for module in modules]
    assert_same(compiled, eager, ones(2))
    for handle in handles:
        handle.remove()
    assert_same(compiled, eager, ones(2))
    handles = [module.register_forward_pre_hook(lambda m, args: (args[0] * 3,)) for module in modules]
    assert_same(compiled, eager, ones(2))


def test_a_forward_put_on_the_object() -> None:
    assert_follows(Scaled(), lambda m: setattr(m, "forward", lambda x: x * 2), ones(2))


def test_keyword_arguments_and_trees() -> None:
    class Trees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Any, *, mask: Any = None, scale: Any = 1) -> Any:
            result = self.linear(x["a"]) * scale
            return (result if mask is None else result * mask, {"b": [x["a"], scale]})

    compiled, eager = pair(Trees())
    for _ in range(2):
        assert_same(compiled, eager, {"a": ones(2)})
        assert_same(compiled, eager, {"a": ones(2)}, mask=ones(2) * 2)
        assert_same(compiled, eager, {"a": ones(2)}, scale=3, mask=ones(2) * 2)
        assert_same(compiled, eager, {"a": ones(2)}, scale=4)
    info = compiled.cache_info()
    assert (info.entries, info.eager) == (4, {})


def test_a_buffer_that_forward_assigns_runs_eagerly() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count = self.count + 1
            return x * self.count

    compiled, eager = pair(Counter())
    for at in range(1, 4):
        assert_same(compiled, eager, ones(2))
        assert int(compiled.orig_module.count) == at
    assert sum(compiled.cache_info().eager.values()) == 3


def test_a_module_among_the_arguments() -> None:
    linear = nn.Linear(2, 2)
    compiled = unified_guards.aot_function(lambda x, module: module(x), nop)
    for _ in range(2):
        linear.zero_grad()
        result = compiled(ones(2), linear)
        torch.testing.assert_close(result, linear(ones(2)))
        result.sum().backward()
        torch.testing.assert_close(linear.weight.grad, ones(2, 2))
        with torch.no_grad():
            linear.weight.mul_(2)


def test_a_parameter_is_what_it_was_after_a_failure_in_tracing() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(ones(2))
            self.register_buffer("offset", ones(2))
            self.table = ones(2)
            self.fails = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fails:
                raise LookupError("mine")
            return x * self.weight + self.offset + self.table

    module = Failing()
    before = (module.weight, module.offset, module.table)
    compiled = unified_guards.aot_module(module, nop)
    with pytest.raises(LookupError, match="mine"):
        compiled(ones(2))
    assert all(a is b for a, b in zip(before, (module.weight, module.offset, module.table), strict=True))
    module.fails = False
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)
    assert all(a is b for a, b in zip(before, (module.weight, module.offset, module.table), strict=True))


def test_a_parameter_is_what_it_was_after_a_failing_compiler() -> None:
    def compiler(graph: Any, inputs: Any) -> Any:
        raise LookupError("no such backend")

    module = nn.Linear(2, 2)
    before = list(module.parameters())
    with pytest.raises(LookupError):
        unified_guards.aot_module(module, compiler)(ones(2))
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))


# -- as torch's --------------------------------------------------------------------------------------------------------


def placeholders(graph: torch.fx.GraphModule) -> list[tuple[int, ...]]:
    return [tuple(node.meta["val"].shape) for node in graph.graph.nodes if node.op == "placeholder"]


def test_a_compiler_gets_parameters_then_buffers_then_inputs_as_from_torch() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 5)).eval()
    module[1].num_batches_tracked = None  # torch hands over what nobody reads, too
    ours, theirs = Counting(), Counting()
    unified_guards.aot_module(module, ours)(ones(2, 3))
    torch_aot_module(copy.deepcopy(module), theirs)(ones(2, 3))
    assert placeholders(ours.graphs[0]) == placeholders(theirs.graphs[0])
    assert ours.graphs[0].code == theirs.graphs[0].code


class Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        normed = self.norms[0](x)
        attended, _ = self.attend(normed, normed, normed, attn_mask=mask, need_weights=False)
        x = x + attended
        return x + self.mlp(self.norms[1](x))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_small_transformer(dynamic: bool) -> None:
    compiled, eager = pair(nn.Sequential(Block(), Block()), dynamic=dynamic)
    for size in (3, 4, 3, 5):
        torch.testing.assert_close(
            call(compiled, compiled.orig_module, (torch.ones(2, size, 8),), {}),
            call(eager, eager, (torch.ones(2, size, 8),), {}),
        )
    info = compiled.cache_info()
    assert (info.entries, info.eager) == (1 if dynamic else 3, {})


def test_a_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="the model is transformers'")
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertModel(config).eval()
    compiled = unified_guards.aot_module(model, nop)
    for size in (4, 5, 4):
        tokens = torch.arange(size)[None]
        result, expected = compiled(tokens), model(tokens)
        assert type(result) is type(expected)
        torch.testing.assert_close(result.last_hidden_state, expected.last_hidden_state)
    info = compiled.cache_info()
    assert (info.hits, info.eager) == (3, {}), compiled.explain().summary()


def test_what_is_returned_is_a_module_that_holds_the_module() -> None:
    module = nn.Linear(2, 2)
    compiled = unified_guards.aot_module(module, nop)
    torch_names = list(torch_aot_module(nn.Linear(2, 2), nop).state_dict())
    assert list(compiled.state_dict()) == torch_names
    assert list(compiled.parameters()) == list(module.parameters())
    compiled(ones(2))
    compiled.to(torch.float64)
    assert compiled(ones(2, dtype=torch.float64)).dtype is torch.float64
    assert compiled.cache_info().entries == 2
    assert "2 versions" in str(compiled.explain())
    assert not compiled.eval().orig_module.training
    compiled.cache_clear()
    assert compiled.cache_info().entries == 0


def test_a_function_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module; got function"):
        unified_guards.aot_module(lambda x: x, nop)  # type: ignore[arg-type]


def test_a_module_in_inference_mode_and_without_gradients() -> None:
    compiled, eager = pair(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    for context in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        for _ in range(2):
            x = torch.randn(3, 2)
            with context():
                torch.testing.assert_close(compiled(x), eager(x), rtol=0, atol=0)


# -- aot_module_simplified ---------------------------------------------------------------------------------------------


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.linear(x) * y, y + 1


def test_simplified_compiles_at_once() -> None:
    counting = Counting()
    compiled = unified_guards.aot_module_simplified(Flat(), (ones(2), ones(2)), counting)
    assert len(counting.graphs) == 1
    compiled(ones(2), ones(2))
    assert len(counting.graphs) == 1


def test_simplified_keeps_a_flat_tuple_and_is_right_for_other_shapes() -> None:
    module = Flat()
    compiled = unified_guards.aot_module_simplified(module, (ones(2), ones(2)), nop)
    for x, y in ((ones(2), ones(2)), (ones(3, 2), ones(2)), (ones(2), ones(4, 2))):
        result = compiled(x, y)
        assert type(result) is tuple
        torch.testing.assert_close(result, module(x, y))


def test_simplified_offers_what_torch_offers() -> None:
    module = Flat()
    compiled = unified_guards.aot_module_simplified(module, (ones(2), ones(2)), nop)
    assert dict(compiled.named_parameters()).keys() == dict(module.named_parameters()).keys()
    compiled(ones(2), ones(2))[0].sum().backward()
    assert module.linear.weight.grad is not None
    compiled.zero_grad()
    assert module.linear.weight.grad is None


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_simplified_inside_a_backend(installed: bool, dynamic: bool) -> None:
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(graph)
        return unified_guards.aot_module_simplified(graph, inputs, boxed)

    if installed:
        unified_guards.install()
    try:
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        compiled, eager = torch.compile(model, backend=backend, dynamic=dynamic), copy.deepcopy(model)
        for size in (3, 4, 3):
            x = torch.randn(size, 2)
            for run in (compiled, eager):
                run(x).square().sum().backward()
            torch.testing.assert_close(compiled(x), eager(x))
            torch.testing.assert_close(gradients(model), gradients(eager))
    finally:
        if installed:
            unified_guards.uninstall()
    assert len(graphs) == 2  # as with torch's own, which makes a first size of its own for batch norm


def test_simplified_inside_a_backend_hands_its_options_on() -> None:
    seen: list[Any] = []

    def compiler(graph: Any, inputs: Any, level: int = 0) -> Any:
        seen.append(level)
        return boxed(graph, inputs)

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        return unified_guards.aot_module_simplified(graph, inputs, compiler, level=3)

    torch.compile(lambda x: x + 1, backend=backend)(ones(2))
    assert seen == [3]
