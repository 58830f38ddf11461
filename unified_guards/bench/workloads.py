"""The workloads of ``python -m unified_guards bench``. They need torch alone, or transformers where they say so.

Models have real depth and tiny widths: guards depend on the number of modules and tensors, not on the size of the
tensors. To add a workload, add one function with the `workload` decorator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unified_guards.bench.registry import Workload, workload

if TYPE_CHECKING:
    import torch


@workload("x_plus_y")
def x_plus_y() -> Workload:
    """A function of two tensors."""
    import torch

    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    compiled = torch.compile(add, backend="eager")
    x, y = torch.randn(4), torch.randn(4)
    return Workload(lambda: compiled(x, y), lambda: add(x, y))


@workload("mlp")
def mlp() -> Workload:
    """Four linear layers."""
    import torch

    layers = [module for _ in range(4) for module in (torch.nn.Linear(32, 32), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers).eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(4, 32)
    return Workload(lambda: compiled(x), lambda: model(x))


@workload("encoder_12")
def encoder_12() -> Workload:
    """Twelve layers of a transformer's encoder, as one writes them with torch.nn."""
    import torch
    from torch.nn import functional

    class Layer(torch.nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.before_attention, self.before_mlp = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
            self.mix, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.mlp = torch.nn.Sequential(
                torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed = self.mix(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
            query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind()
            attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            x = x + self.out(attended)
            return x + self.mlp(self.before_mlp(x))

    model = torch.nn.Sequential(*(Layer(32, 4) for _ in range(12))).eval()
    compiled, x = torch.compile(model, backend="eager"), torch.randn(1, 8, 32)
    return Workload(lambda: compiled(x), lambda: model(x))


@workload("adamw_200")
def adamw_200() -> Workload:
    """The step of AdamW on 200 parameters."""
    import torch

    def optimizer() -> torch.optim.Optimizer:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(4, 4)) for _ in range(200)]
        for parameter in parameters:
            parameter.grad = torch.randn(4, 4)
        return torch.optim.AdamW(parameters, lr=1e-3)

    def stepping(owner: torch.optim.Optimizer, call: Callable[[], Any]) -> Callable[[], Any]:
        parameters = owner.param_groups[0]["params"]

        def step() -> Any:
            call()
            return parameters

        return step

    ours, twin = optimizer(), optimizer()
    return Workload(
        stepping(ours, torch.compile(ours.step, backend="eager")), stepping(twin, twin.step), grad=True, stateful=True
    )


def qwen3(**overrides: Any) -> Any:
    """Qwen3 with 36 layers, as in the 8B model, and widths that make a step cheap; weights are random, but the same."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 36}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    return Qwen3ForCausalLM(Qwen3Config(**(sizes | heads | overrides))).eval()


def tokens(length: int) -> torch.Tensor:
    import torch

    return torch.arange(length)[None] % 128


def qwen3_static(layers: int, **compiling: Any) -> Workload:
    """Qwen3 of this depth, the same tokens in every step; `compiling` is for ``torch.compile``."""
    import torch

    model, ids = qwen3(num_hidden_layers=layers), tokens(8)
    compiled = torch.compile(model, **(compiling or {"backend": "eager"}))
    return Workload(
        lambda: compiled(input_ids=ids, use_cache=False).logits, lambda: model(input_ids=ids, use_cache=False).logits
    )


@workload("qwen3_36", needs="transformers")
def qwen3_36() -> Workload:
    """Qwen3 with 36 layers and tiny widths."""
    return qwen3_static(36)
