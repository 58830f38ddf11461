"""What torch's ``aot_function`` takes beside the function. Entry point: :class:`Compilers`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch import aot_autograd as torch_aot
from torch._functorch.partitioners import default_partition

#: What torch's ``aot_module_simplified`` takes in this version.
SIMPLIFIED = inspect.signature(torch_aot.aot_module_simplified).parameters


class CompilerFailed(Exception):
    """A compiler of the user's has raised what this has as its cause. Never leaves this package."""


@dataclasses.dataclass(frozen=True)
class Compilers:
    """What torch's ``aot_function`` takes beside the function, in its words.

    Attributes:
        options: handed to every compiler as keyword arguments.
        config: what else torch's ``aot_module_simplified`` takes.
    """

    fw_compiler: Callable[..., Any]
    bw_compiler: Callable[..., Any] | None = None
    partition_fn: Callable[..., Any] = default_partition
    decompositions: dict[Any, Callable[..., Any]] | None = None
    num_params_buffers: int = 0
    keep_inference_input_mutations: bool = False
    inference_compiler: Callable[..., Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def with_options(self, compiler: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """A compiler that is given the options, too."""
        return functools.partial(compiler, **self.options) if compiler is not None and self.options else compiler

    def lower(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """The graph of a frame, compiled, forward and backward, by torch's AOTAutograd.

        Raises:
            CompilerFailed: a compiler or the partitioner has raised.
            Exception: torch cannot trace the graph.
        """
        return torch_aot.aot_module_simplified(  # type: ignore[no-any-return]
            graph,
            inputs,
            _told(self.with_options(self.fw_compiler)),
            _told(self.with_options(self.bw_compiler)),
            _told(self.partition_fn),
            self.decompositions,
            self.keep_inference_input_mutations,
            _told(self.with_options(self.inference_compiler)),
            **self.config,
        )


def _told(compiler: Callable[..., Any] | None) -> Any:
    """The compiler; what it raises is told from what torch raises."""
    if compiler is None or not inspect.isroutine(compiler) and not isinstance(compiler, functools.partial):
        return compiler  # an object that torch may ask for more than to be called

    @functools.wraps(compiler)
    def telling(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiler(*args, **kwargs)
        except Exception as error:
            raise CompilerFailed from error

    return telling
