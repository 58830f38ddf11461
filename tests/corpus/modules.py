"""Modules, nested."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .example import Example, entry


class Block(nn.Module):
    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.register_buffer("offset", torch.zeros(3))
        self.flag = True
        self.config = {"alpha": 0.5, "layers": [1, 2]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.linear(x)) if self.flag else self.linear(x)
        if self.offset is not None:
            x = x + self.offset
        return x * self.scale * self.config["alpha"] + len(self.config["layers"])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Identity()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        for head in self.heads.values():
            x = head(x)
        return torch.dropout(x, 0.5, self.training)


@entry
def nested_modules() -> Example:
    model = Model()
    block: Any = model.blocks[1]
    heads: Any = model.heads

    def function(x: torch.Tensor) -> torch.Tensor:
        return model(x)

    example = Example(function, torch.ones(2, 3))
    example.cleanups.append(lambda: setattr(Block, "scale", 2))
    return example.change(
        flag=lambda: setattr(block, "flag", not block.flag),
        flag_same=lambda: setattr(block, "flag", True),
        training=lambda: model.train(not model.training),
        one_layer_training=lambda: block.norm.train(not block.norm.training),
        dtype=lambda: block.linear.to(torch.float64),
        dtype_back=lambda: block.linear.to(torch.float32),
        other_weight=lambda: setattr(block.linear, "weight", nn.Parameter(torch.ones(3, 3))),
        wider_weight=lambda: setattr(block.linear, "weight", nn.Parameter(torch.ones(4, 3))),
        frozen=lambda: block.linear.weight.requires_grad_(not block.linear.weight.requires_grad),
        no_bias=lambda: setattr(block.linear, "bias", None),
        other_layer=lambda: setattr(block, "linear", nn.Linear(3, 3)),
        other_class=lambda: setattr(block, "norm", nn.Identity()),
        no_buffer=lambda: setattr(block, "offset", None),
        buffer_back=lambda: setattr(block, "offset", torch.zeros(3)),
        class_attribute=lambda: setattr(Block, "scale", Block.scale + 1),
        own_attribute=lambda: setattr(block, "scale", 2),
        config_value=lambda: block.config.update(alpha=block.config["alpha"] + 1),
        config_list=lambda: block.config["layers"].append(3),
        longer=lambda: model.blocks.append(Block()),
        shorter=lambda: model.blocks.__delitem__(-1) if len(model.blocks) > 2 else None,
        swapped_heads=lambda: heads.update({"a": heads["b"], "b": heads["a"]}),
        other_eps=lambda: setattr(block.norm, "eps", 1e-3),
        counter=lambda: setattr(model, "calls", 1),
        forward_patched=lambda: setattr(block.linear, "forward", lambda x: x),
    )
