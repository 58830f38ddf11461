"""What to do about a recompile: a table of causes, each with what a failing guard looks like, and the way out.

A row says of a guard that did not hold, and of what it found, whether this is its cause. The first row that says so
gives the advice. ``causes.py`` has what each cause looks like, ``docs/recompiles.md`` the same rows for reading. Entry
points: :func:`advise`, :func:`advice_on`, :func:`on_limit`, :data:`TABLE`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
import torch._dynamo.config as dynamo_config

from unified_guards.guards.failures import Look
from unified_guards.guards.ir import Test
from unified_guards.report import causes
from unified_guards.report.case import Case, path


class Advice(NamedTuple):
    """What made torch compile again, and what to do.

    Attributes:
        name: of the row of the table.
        cause: what has changed since the entry was compiled.
        remedy: what to do.
        term: what torch calls it.
        hints: torch's own, as they are in its logs.
    """

    name: str
    cause: str
    remedy: str
    term: str
    hints: tuple[str, ...] = ()

    def lines(self, told: Collection[str] = ()) -> list[str]:
        """As it is printed below the guard. Of a remedy that was told before, the cause alone."""
        if self.remedy in told:
            return [f"cause: {self.cause}"]
        hints = "".join(f"; its hint: {hint}" for hint in self.hints)
        return [f"cause: {self.cause}", f"to do: {self.remedy}", f"torch calls it: {self.term}{hints}"]


class Row(NamedTuple):
    """A cause.

    Attributes:
        name: a short name.
        term: what torch calls it.
        match: what has changed in a case; None where this is not the cause.
        remedy: what to do, or what says so of a case.
    """

    name: str
    term: str
    match: Callable[[Case], str | None]
    remedy: str | Callable[[Case], str]


# -- remedies that depend on the case ----------------------------------------------------------------------------------


_ONE_SIZE = "keep to one size (padding; DataLoader(drop_last=True) for a smaller last batch)"


def _mark(case: Case) -> str:
    """How a size is made dynamic, by the dimension that has changed and the switches that torch compiles with."""
    if issubclass(type(case.value), torch.nn.Parameter):
        return (
            "keep the shapes of parameters: torch keeps a version for each; or set "
            "torch._dynamo.config.force_parameter_static_shapes = False before compiling"
        )
    dim = case.differences["size"].what.rpartition(" ")[2]
    ways = f"torch._dynamo.mark_dynamic({path(case.source)}, {dim}) before the first call, torch.compile(dynamic=True)"
    if not dynamo_config.automatic_dynamic_shapes:
        return f"{ways}, or {_ONE_SIZE}; dynamic=False, with which this was compiled, has a version for each size"
    return f"{ways}, or {_ONE_SIZE}; otherwise torch makes the dimension dynamic now, at the price of this recompile"


_SAME_EACH_TIME = "torch keeps a version for each, compiled once"


def _converted(case: Case, kind: str, written: Callable[[Any], str]) -> str:
    return f"{path(case.source)}.to({written(case.differences[kind].expected)})"


# -- the table ---------------------------------------------------------------------------------------------------------

TABLE = (
    Row(
        "grad mode",
        "GLOBAL_STATE, grad_mode",
        causes.state("grad_mode"),
        "make every call under the same grad mode (torch.no_grad(), torch.inference_mode() or neither), or enter it "
        f"inside the compiled function; {_SAME_EACH_TIME}",
    ),
    Row(
        "autocast",
        "GLOBAL_STATE, autocast",
        causes.state("autocast"),
        "make every call under the same torch.autocast, or enter it inside the compiled function",
    ),
    Row(
        "default dtype",
        "GLOBAL_STATE, default_dtype",
        causes.state("default_dtype"),
        "call torch.set_default_dtype() once, before the first call",
    ),
    Row(
        "threads",
        "GLOBAL_STATE, num_threads",
        causes.state("num_threads"),
        "call torch.set_num_threads() once, before the first call",
    ),
    Row(
        "deterministic",
        "GLOBAL_STATE, deterministic_algorithms",
        causes.state("deterministic_algorithms", "deterministic_algorithms_warn_only"),
        "call torch.use_deterministic_algorithms() once, before the first call",
    ),
    Row("state of torch", "GLOBAL_STATE", causes.state(), "set it once, before the first call"),
    Row(
        "inference mode",
        "INFERENCE_MODE",
        causes.inference_mode,
        f"make every call inside of it, or every call outside; {_SAME_EACH_TIME}",
    ),
    Row(
        "default device",
        "DEFAULT_DEVICE",
        causes.about(Test.DEFAULT_DEVICE, "the default device was another when this was compiled"),
        "call torch.set_default_device() once, before the first call",
    ),
    Row(
        "function mode",
        "TORCH_FUNCTION_STATE",
        causes.about(Test.MODE_STACK, "other torch function modes were on when this was compiled"),
        "make every call under the same modes: a `with torch.device(...)` block is one, too",
    ),
    Row(
        "saved tensor hooks",
        "AUTOGRAD_SAVED_TENSORS_HOOKS",
        causes.about(Test.SAVED_HOOKS, "other hooks on saved tensors were on when this was compiled"),
        "make every call under the same torch.autograd.graph.saved_tensors_hooks",
    ),
    Row(
        "forward gradients",
        "DUAL_LEVEL_MATCH",
        causes.about(Test.DUAL_LEVEL, "forward-mode autograd was at another level when this was compiled"),
        "make every call at the same level",
    ),
    Row(
        "hooks",
        "guards on hooks of modules (skip_nnmodule_hook_guards)",
        causes.hooks,
        "register and remove hooks before the first call, and not in between",
    ),
    Row(
        "training",
        "BOOL_MATCH on training",
        causes.training,
        f"call train() or eval() before the first call; {_SAME_EACH_TIME}: training with evaluation compiles twice, "
        "no more",
    ),
    Row(
        "adapter",
        "EQUALS_MATCH (or a match of keys) on the adapter's name",
        causes.adapter,
        "torch keeps a version for each adapter: allow as many (torch._dynamo.config.recompile_limit), copy an "
        "adapter's weights over another's instead of switching (peft's hotswap_adapter), or merge it before compiling",
    ),
    Row(
        "optional argument",
        "NONE_MATCH",
        causes.optional,
        f"pass it always or never, or a tensor that changes nothing instead of None; {_SAME_EACH_TIME}",
    ),
    Row("not a tensor", "TENSOR_MATCH, type", causes.not_a_tensor, "pass a tensor each time: torch.tensor(value)"),
    Row(
        "class of a tensor",
        "TENSOR_MATCH, type",
        causes.tensor("class"),
        "pass the same class each time: parameter.detach() is a plain tensor, torch.nn.Parameter(tensor) a parameter",
    ),
    Row(
        "device",
        "TENSOR_MATCH, device",
        causes.tensor("device"),
        lambda case: f"move it before the call: {_converted(case, 'device', repr)}; {_SAME_EACH_TIME}",
    ),
    Row(
        "dtype",
        "TENSOR_MATCH, dtype",
        causes.tensor("dtype"),
        lambda case: f"convert it before the call: {_converted(case, 'dtype', 'torch.{}'.format)}; {_SAME_EACH_TIME}",
    ),
    Row(
        "requires_grad",
        "TENSOR_MATCH, requires_grad",
        causes.tensor("requires_grad"),
        "pass it the same way each time: tensor.detach() where no gradient is wanted, requires_grad_() before the "
        f"first call where one is; {_SAME_EACH_TIME}",
    ),
    Row(
        "number of dimensions",
        "TENSOR_MATCH, rank",
        causes.tensor("rank"),
        "pass the same number of dimensions: tensor.unsqueeze(0) for a single item; no size is dynamic across that",
    ),
    Row(
        "0 or 1",
        "0/1 specialization",
        causes.zero_or_one,
        "torch compiles for the sizes 0 and 1 apart: leave such a batch out (DataLoader(drop_last=True)) or pad it "
        "to 2; or torch._dynamo.decorators.mark_unbacked(tensor, dim) before the first call",
    ),
    Row("size", "dynamic shapes (automatic_dynamic_shapes)", causes.tensor("size"), _mark),
    Row(
        "strides",
        "TENSOR_MATCH, stride",
        causes.tensor("stride"),
        "pass one layout: tensor.contiguous() (for images tensor.contiguous(memory_format=torch.channels_last))",
    ),
    Row(
        "inference tensor",
        "TENSOR_MATCH, dispatch key set",
        causes.tensor("inference"),
        "make the tensor outside of torch.inference_mode(), or pass tensor.clone(); or make every call inside of it",
    ),
    Row(
        "dispatch keys",
        "TENSOR_MATCH, dispatch key set",
        causes.tensor("keys"),
        "pass the same kind of tensor: tensor.resolve_conj() and resolve_neg() undo lazy views; keep modes and "
        "transforms (vmap, functionalization) the same",
    ),
    Row(
        "marking",
        "dimension marking",
        causes.marking,
        "mark the tensors of the first call, and all others alike: torch._dynamo.mark_dynamic(tensor, dim)",
    ),
    Row(
        "equal sizes",
        "duck sizing",
        causes.equal_sizes,
        "let them differ in the first call, or set torch.fx.experimental._config.use_duck_shape = False before "
        "compiling",
    ),
    Row(
        "condition on sizes",
        "SHAPE_ENV guard",
        causes.condition,
        "the line that made this guard, or an operator in it, asks this: take the branch outside of the compiled "
        f"function, or pad so that it has one answer; {_SAME_EACH_TIME}",
    ),
    Row(
        "aliases",
        "DUPLICATE_INPUT, NO_TENSOR_ALIASING, STORAGE_OVERLAPPING",
        causes.aliases,
        "pass different tensors each time (tensor.clone()), or the same one each time",
    ),
    Row(
        "function made anew",
        "CLOSURE_MATCH",
        causes.function,
        "make the function once, outside of the loop; pass what it captures as an argument, numbers as tensors",
    ),
    Row(
        "integer of a module",
        "unspecialized int (allow_unspec_int_on_nn_module)",
        causes.module_integer,
        "keep it in a buffer (register_buffer with a tensor), or set "
        "torch._dynamo.config.allow_unspec_int_on_nn_module = True before compiling",
    ),
    Row(
        "float",
        "unspecialized float (specialize_float)",
        causes.a_float,
        "pass it as a tensor (a learning rate as lr=torch.tensor(0.1), an attribute as a buffer); otherwise torch "
        "makes the float dynamic now where it can, at the price of this recompile",
    ),
    Row(
        "global",
        "guard on a global",
        causes.rebound,
        "bind it once, before the first call, and pass what changes as an argument, numbers as tensors",
    ),
    Row(
        "integer",
        "unspecialized int (specialize_int)",
        causes.number(int),
        "pass it as a tensor; otherwise torch makes the integer dynamic now where it can, at the price of this "
        "recompile",
    ),
    Row(
        "type of a number",
        "TYPE_MATCH",
        causes.number(int, float, bool, complex),
        "pass one type: float(value) each time",
    ),
    Row(
        "length",
        "SEQUENCE_LENGTH",
        causes.length,
        "pass one length (pad with zeros), or one tensor instead of a list: torch.stack(items), whose sizes can be "
        "dynamic",
    ),
    Row(
        "optimizer state",
        "DICT_KEYS_MATCH on the optimizer's state",
        causes.optimizer_state,
        "nothing, for it happens once: later steps find the state; or have it made before the first compiled step, by "
        "one uncompiled step or by load_state_dict()",
    ),
    Row(
        "keys",
        "DICT_KEYS_MATCH, DICT_CONTAINS",
        causes.keys,
        "give a dict all its keys before the first call, in one order; torch keeps a version for each set of keys",
    ),
    Row(
        "attribute",
        "HASATTR",
        causes.attribute,
        "give an object all its attributes in __init__, and delete none",
    ),
    Row(
        "flag",
        "specialization (CONSTANT_MATCH, EQUALS_MATCH)",
        causes.flag,
        f"set it before the first call; {_SAME_EACH_TIME}: a flag compiles twice, no more. What has many values is "
        "better a tensor (torch.where)",
    ),
    Row(
        "type",
        "TYPE_MATCH",
        causes.type_of,
        f"pass one type each time; {_SAME_EACH_TIME}",
    ),
    Row(
        "object replaced",
        "ID_MATCH",
        causes.identity,
        "keep the object and change what is in it, or pass what differs as an argument",
    ),
    Row(
        "other",
        "a guard failed",
        lambda case: case.change(),
        "keep what the guard names as it was in the first call, or change it before that",
    ),
)

NO_GUARD = Advice(
    "backend",
    "every guard of this version holds: it was compiled by another torch.compile, with another backend or other "
    "options",
    "call torch.compile once and keep what it returns; give it one backend, not a function that is made anew each time",
    "BACKEND_MATCH",
)


def advise(seen: Look) -> Advice:
    """What to do about a guard that did not hold: what the first row of the table says that knows it."""
    case = Case(seen)
    for row in TABLE:
        cause = row.match(case)
        if cause is not None:
            remedy = row.remedy if isinstance(row.remedy, str) else row.remedy(case)
            return Advice(row.name, cause, remedy, row.term, case.hints)
    raise AssertionError("the last row knows every guard")


def advice_on(seen: Look) -> Advice | None:
    """The same; None where a value is stranger than the table knows: for whoever can do without."""
    with contextlib.suppress(Exception):  # reading a value of the user's may raise anything
        return advise(seen)
    return None


def for_entry_point(advice: Advice | None) -> Advice | None:
    """Advice in the words of an AOT entry point, where those of ``torch.compile`` do not fit."""
    if advice is None or advice.name != "size":
        return advice
    return advice._replace(
        remedy="pass dynamic=True to the entry point (aot_function(f, …, dynamic=True)), or keep to one size "
        "(padding); otherwise there may be a version for each size"
    )


def on_limit(name: str, most: int) -> Advice:
    """What to do when torch compiles a function no more.

    Args:
        name: of the limit, in ``torch._dynamo.config``.
        most: how many versions it allows.
    """
    return Advice(
        "recompile limit",
        f"torch keeps at most {most} versions of a function ({name}) and compiles this one no more: a call that none "
        "of them fits runs eagerly (with fullgraph=True it raises)",
        "stop what recompiles it, told above; where all versions are wanted, set a larger "
        f"torch._dynamo.config.{name} before compiling. UNIFIED_GUARDS_LOG=recompiles counts them as they come",
        f"hit config.{name}",
    )


__all__ = ["NO_GUARD", "TABLE", "Advice", "Row", "advice_on", "advise", "for_entry_point", "on_limit"]
