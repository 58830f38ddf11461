"""Python code of the user's that AOTAutograd runs while it traces a graph, and of which no guard says what it reads.

Entry point: :func:`run_while_tracing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from unified_guards.dynamo.strict.purity import state_read


def run_while_tracing(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> str | None:
    """Why the calls of a graph have to be run eagerly: such code reads state, or does what graphs do not."""
    nodes = [node for each in graph.modules() if isinstance(each, torch.fx.GraphModule) for node in each.graph.nodes]
    targets = {node.target: None for node in nodes if node.op == "call_function"}
    if torch.autograd.grad_mode._enter_inference_mode in targets:
        return "the function enters inference mode: AOTAutograd makes no inference tensors"
    tensors = [each for each in inputs if isinstance(each, torch.Tensor)]
    grads = any(each.requires_grad for each in tensors)
    for operator in filter(_is_operator, targets):
        if (why := _of_operator(operator, grads)) is not None:
            return why
    for kind in {type(each): None for each in tensors if is_traceable_wrapper_subclass(each)}:
        if (name := state_read(kind.__torch_dispatch__)) is not None:
            return f"__torch_dispatch__ of {kind.__qualname__} reads {name}"
    return None


def _is_operator(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket)


def _of_operator(operator: Any, grads: bool) -> str | None:
    name = str(operator._qualified_op_name if hasattr(operator, "_qualified_op_name") else operator._schema.name)
    name = name.rpartition(".")[0] if "." in name.partition("::")[2] else name
    made = torch._library.custom_ops.OPDEFS.get(name)
    if made is not None:
        functions = filter(None, (made._backward_fn, made._setup_context_fn) if grads else ())
        read = next(filter(None, map(state_read, functions)), None)
        return None if read is None else f"the backward of {name} reads {read}"
    key = next(_python_kernels(name, grads), None)
    return None if key is None else f"nobody has seen the code of {name} ({key})"


def _python_kernels(name: str, grads: bool) -> Iterator[str]:
    """The keys for which an operator has Python code that is run while tracing."""
    known: set[str] = getattr(torch.library, "_impls", set())
    for key in ("CompositeImplicitAutograd", *(("Autograd", "AutogradCPU", "AutogradCUDA") if grads else ())):
        if f"{name.replace('::', '/')}/{key}" in known:
            yield key
