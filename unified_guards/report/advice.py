"""What to do about a recompile: a table of causes, each with what a failing guard looks like, and the way out.

A row says of a guard that did not hold, and of what it found, whether this is its cause. The first row that says so
gives the advice. ``docs/recompiles.md`` has the same rows for reading. Nothing here runs code of the user's: values are
told by their exact types. Entry points: :func:`advise`, :func:`on_limit`, :data:`TABLE`.
"""

from __future__ import annotations

import enum
import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch._dynamo.config as dynamo_config

from unified_guards.guards.accesses import MISSING
from unified_guards.guards.differences import Difference
from unified_guards.guards.failures import Look, found_by, is_one_of, shown, value_at
from unified_guards.guards.ir import Access, Guard, Source, Test


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

    def lines(self) -> list[str]:
        """As it is printed below the guard."""
        hints = "".join(f"; its hint: {hint}" for hint in self.hints)
        return [f"cause: {self.cause}", f"to do: {self.remedy}", f"torch calls it: {self.term}{hints}"]


# -- what a row looks at -----------------------------------------------------------------------------------------------

_HOUSEKEEPING = frozenset({"_modules", "_parameters", "_buffers"})
_OF_FUNCTIONS = frozenset({Access.FUNC_CODE, Access.FUNC_CLOSURE, Access.FUNC_DEFAULTS, Access.FUNC_KWDEFAULTS})
_OF_ATTRIBUTES = frozenset({Access.GENERIC_DICT, Access.ATTR, Access.GENERIC_ATTR})
_OF_TENSORS = frozenset({Access.TENSOR_SIZE, Access.TENSOR_STRIDE, Access.TENSOR_OFFSET})
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType)
#: Steps of a path that run no code of the user's.
_PLAIN = frozenset(
    {
        *(Access.FRAME, Access.LOCAL, Access.GLOBALS, Access.DICT_ITEM, Access.CONSTANT, Access.GENERIC_DICT),
        *(Access.LIST_ITEM, Access.TUPLE_ITEM, Access.DICT_VALUE_AT, Access.FUNC_CLOSURE, Access.FUNC_DEFAULTS),
    }
)
_IDENTITY = frozenset({Test.IS, Test.IS_TARGET})
_EQUALITY = frozenset({Test.EQUALS, Test.SAME_BITS, Test.DEEP_EQUALS})
_TYPE = frozenset({Test.TYPE_IS, Test.SCRIPT_TYPE})


def path(source: Source) -> str:
    """A source as the program would write it: ``self.layers.weight`` for ``L['self'].__dict__['_modules']…``."""
    base = source.base
    if base is None or source.access is Access.GLOBALS:
        return ""
    if source.access is Access.LOCAL or base.access is Access.GLOBALS:
        return str(source.key)
    if source.access is Access.GENERIC_DICT:
        return path(base)
    if source.access is Access.DICT_ITEM and type(source.key) is str:
        if base.access is Access.GENERIC_DICT:
            return f"{path(base)}.{source.key}"
        if type(base.key) is str and base.key in _HOUSEKEEPING and base.base is not None:
            return f"{path(base.base)}{f'[{source.key}]' if source.key.isdigit() else f'.{source.key}'}"
    return source.text.replace(base.text, path(base), 1) if base.text else source.text


def _hints(codes: tuple[str, ...]) -> Iterator[str]:
    """Torch's hints in its texts of a guard. That a guard compares a type is said by the guard itself."""
    for code in codes:
        _, marked, hint = code.partition("(HINT: ")
        if marked and not hint.startswith("type "):
            yield hint.rstrip().removesuffix(")")
        avoid = re.search(r"to avoid .*", code)
        if avoid is not None:
            text = avoid[0].rstrip()
            yield text.removesuffix(")") if text.count(")") > text.count("(") else text


class Case:
    """A guard that did not hold and what it found, as the rows ask for it.

    Attributes:
        seen: what was looked at.
        test: of the guard; None where a source had no value.
        source: the guard's first source, or the one without a value.
        value: what was found there; at a source without a value what is at its base.
        expected: the first parameter of the guard.
        differences: by kind, of a tensor or of the state of torch.
        hints: torch's own.
    """

    def __init__(self, seen: Look) -> None:
        item = seen.origin
        self.seen = seen
        self.test = None if isinstance(item, Source) else item.test
        self.source = item if isinstance(item, Source) else item.source
        self.value = seen.values[0] if seen.values else MISSING
        self.params = item.params if isinstance(item, Guard) else ()
        self.expected = self.params[0] if self.params else MISSING
        self.differences = {each.kind: each for each in reversed(seen.differences)}
        self.steps = tuple(self.source.steps())
        self.codes = tuple(maker.code for maker in seen.makers)
        self.hints = tuple(dict.fromkeys(_hints(self.codes)))

    @property
    def keys(self) -> list[str]:
        """The names on the way to the source, the last first."""
        return [step.key for step in self.steps if type(step.key) is str]

    @property
    def global_at(self) -> Source | None:
        """The global at which the way begins."""
        return next((step for step in self.steps if step.base and step.base.access is Access.GLOBALS), None)

    @property
    def function(self) -> Source | None:
        """The function or partial on the way, if what is looked at is its code or what it captured."""
        inside = next((step.base for step in self.steps if step.access in _OF_FUNCTIONS), None)
        if inside is not None:
            return inside
        partial = type(self.owner) is functools.partial
        return next((step.base for step in self.steps if step.access in _OF_ATTRIBUTES), None) if partial else None

    @property
    def place(self) -> str:
        """What the source is to the program."""
        captured = next((found[1] for hint in self.hints if (found := re.match(r'guard on "(\w+)"', hint))), None)
        if captured is not None and self.function is not None:
            return f"{captured}, which {path(self.function)} has captured,"
        return f"{'' if self.global_at is None else 'the global '}{path(self.source)}"

    @functools.cached_property
    def owner(self) -> Any:
        """The nearest object on the way that has attributes; ``MISSING`` where none is found without running code."""
        base = next((step.base for step in self.steps if step.access in _OF_ATTRIBUTES), None)
        if base is None or not all(step.access in _PLAIN for step in base.steps()):
            return MISSING
        return value_at(base, self.seen.f_locals)

    def was(self, expected: str | None = None) -> str:
        """What it was and what it is."""
        if expected is None:
            named = self.test in _IDENTITY or self.test in _TYPE
            expected = str(self.params[1]) if named else shown(self.expected)
        return f"{self.place} was {expected} when this was compiled and is {found_by(self.seen)}"

    def change(self) -> str:
        """What has changed, for any guard."""
        if self.test in _IDENTITY or self.test in _EQUALITY:
            return self.was()
        found = found_by(self.seen)
        if self.test is Test.DICT_LENGTH:
            return f"{path(self.source)} had {self.expected} keys when this was compiled and has {found}"
        what = f"{self.seen.origin}{' is missing' if self.test is None else ' does not hold'}"
        return f"{what} (found {found})" if found else what


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


def _changed(what: str, difference: Difference) -> str:
    return f"{what} was {difference.expected} when this was compiled and is {difference.found}"


# -- the state of torch ------------------------------------------------------------------------------------------------


def _state(*kinds: str) -> Callable[[Case], str | None]:
    """A part of torch's global state; any part without ``kinds``."""

    def match(case: Case) -> str | None:
        if case.test is not Test.GLOBAL_STATE:
            return None
        found = [each for each in case.seen.differences if not kinds or each.kind in kinds]
        if not found:
            return None if kinds else "torch's global state is another than when this was compiled"
        return " and ".join(_changed(each.what, each) for each in found)

    return match


def _about(test: Test, text: str) -> Callable[[Case], str | None]:
    return lambda case: f"{text} (found {found_by(case.seen)})" if case.test is test else None


# -- tensors -----------------------------------------------------------------------------------------------------------


def _tensor(kind: str) -> Callable[[Case], str | None]:
    """One respect in which a tensor is other than expected."""

    def match(case: Case) -> str | None:
        found = case.differences.get(kind) if case.test is Test.TENSOR else None
        if found is None:
            return None
        return _changed(case.place if kind == "inference" else f"{found.what} of {case.place}", found)

    return match


def _zero_or_one(case: Case) -> str | None:
    size = case.differences.get("size")
    if case.test is Test.TENSOR and size is not None and {size.expected, size.found} & {0, 1}:
        return _changed(f"{size.what} of {case.place}", size)
    if case.test is not Test.EXPRESSION or not isinstance(case.seen.origin, Guard):
        return None
    for source, value in zip(case.seen.origin.sources, case.seen.values, strict=True):
        if source.access is Access.TENSOR_SIZE and type(value) is int and value in (0, 1):
            return f"{path(source)} is {value}, and this was compiled for sizes from 2 on"
    return None


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
        return f"{ways}, or pad to one size; dynamic=False, with which this was compiled, has a version for each size"
    return (
        f"{ways}, or pad to one size; otherwise torch makes the dimension dynamic now, at the price of this recompile"
    )


_SAME_EACH_TIME = "torch keeps a version for each, compiled once"


def _converted(case: Case, kind: str, written: Callable[[Any], str]) -> str:
    return f"{path(case.source)}.to({written(case.differences[kind].expected)})"


def _optional(case: Case) -> str | None:
    if case.test is Test.IS and case.params[1] == "None":
        return case.was()
    if case.test is Test.IS_NOT:
        return case.was("something else")
    return case.was("a tensor") if case.test is Test.TENSOR and case.value is None else None


def _not_a_tensor(case: Case) -> str | None:
    if case.test is not Test.TENSOR or issubclass(type(case.value), torch.Tensor):
        return None
    return case.was(f"a {str(case.expected).partition(' strides')[0]}")


# -- shapes and relations ----------------------------------------------------------------------------------------------


def _equal_sizes(case: Case) -> str | None:
    if case.test is not Test.EXPRESSION or not any("duck sizing" in code for code in case.codes):
        return None
    return f"sizes that were equal when this was compiled differ (found {found_by(case.seen)})"


def _condition(case: Case) -> str | None:
    if case.test not in (Test.EXPRESSION, Test.SHAPE, Test.SHAPE_CALL):
        return None
    return f"this was compiled for {case.seen.origin}, and that does not hold (found {found_by(case.seen) or 'other'})"


_RELATIONS = {
    Test.UNIQUE: "arguments that were different objects when this was compiled are one and the same",
    Test.SAME: "arguments that were one and the same when this was compiled are different objects",
    Test.OVERLAP: "other arguments share memory than when this was compiled",
    Test.UNIQUE_STORAGE: "arguments share memory that did not when this was compiled",
    Test.SHARES_STORAGE: "arguments that shared memory when this was compiled do not",
}


def _aliases(case: Case) -> str | None:
    return None if case.test not in _RELATIONS else f"{_RELATIONS[case.test]} (found {found_by(case.seen)})"


# -- modules, functions, globals ---------------------------------------------------------------------------------------


def _hooks(case: Case) -> str | None:
    name = next((key for key in case.keys if re.search(r"_hooks(_\w+)?$", key)), None)
    return None if name is None else f"hooks have come or gone since this was compiled: {case.change()}"


def _training(case: Case) -> str | None:
    if case.keys[:1] != ["training"] or type(case.value) is not bool:
        return None
    return f"{'train' if case.value else 'eval'}() was called: {case.was(str(not case.value))}"


def _adapter(case: Case) -> str | None:
    named = any("adapter" in key.lower() or "lora" in key.lower() for key in case.keys)
    return f"another adapter is active: {case.change()}" if named and case.test not in _TYPE else None


def _function(case: Case) -> str | None:
    if case.global_at is not None or case.test in _TYPE:
        return None
    is_one = case.test in _IDENTITY and is_one_of(type(case.value), _FUNCTIONS)
    at = case.function or (case.source if is_one else None)
    return None if at is None else f"{path(at)} is a function that was made anew: {case.change()}"


def _global(case: Case) -> str | None:
    at = case.global_at
    if at is None or case.test is Test.TENSOR:
        return None
    inside = [step.access for step in case.steps if step.depth > at.depth]
    if inside and not any(access in _OF_FUNCTIONS for access in inside):
        return None  # the same object, of which something has changed
    is_value = not inside and case.test in _EQUALITY
    return case.was() if is_value else f"the global {at.key} was bound to something else: {case.change()}"


# -- plain values ------------------------------------------------------------------------------------------------------


def _number(*kinds: type) -> Callable[[Case], str | None]:
    """A number of exactly one of these types became another one of them."""

    def match(case: Case) -> str | None:
        both = all(is_one_of(type(value), kinds) for value in (case.expected, case.value))
        return case.was() if both and case.test in _EQUALITY else None

    return match


def _module_integer(case: Case) -> str | None:
    hinted = any("integer attributes of the nn.Module" in hint for hint in case.hints)
    return _number(int)(case) if hinted or issubclass(type(case.owner), torch.nn.Module) else None


def _flag(case: Case) -> str | None:
    is_enum = case.test in _IDENTITY and issubclass(type(type(case.value)), enum.EnumMeta)
    is_bool = case.test is Test.IS and case.params[1] in ("True", "False")
    return case.was() if is_enum or is_bool or case.test in _EQUALITY else None


def _length(case: Case) -> str | None:
    if case.test in (Test.TUPLE_ITER_LEN, Test.RANGE_ITER):
        return f"{case.place} is an iterator that stood elsewhere when this was compiled: {case.change()}"
    if case.test is not Test.LENGTH:
        return None
    return f"{case.place} had {case.expected} items when this was compiled and has {found_by(case.seen)}"


_OF_KEYS = frozenset(
    {Test.DICT_LENGTH, Test.KEYS, Test.MAPPING_KEYS, Test.DICT_CONTAINS, Test.SET_CONTAINS, Test.DICT_VERSION}
)


def _keys(case: Case) -> str | None:
    is_key = case.source.access is Access.DICT_KEY_AT and case.test not in _TYPE
    is_gone = case.test is None and issubclass(type(case.value), dict)
    if case.test not in _OF_KEYS and not is_key and not is_gone:
        return None
    of = case.source.base if is_key or is_gone else case.source
    return f"{path(of or case.source)} has other keys or members than when this was compiled: {case.change()}"


def _attribute(case: Case) -> str | None:
    if case.test is Test.NO_ATTR:
        return f"{case.place} has an attribute {case.expected} now"
    return f"{case.place} is not there any more" if case.test is None else None


def _marking(case: Case) -> str | None:
    if case.test not in (Test.DIM_MARKING, Test.DYNAMIC_INDICES):
        return None
    return f"{case.place} was marked otherwise when this was compiled (found {found_by(case.seen)})"


# -- the table ---------------------------------------------------------------------------------------------------------

TABLE = (
    Row(
        "grad mode",
        "GLOBAL_STATE, grad_mode",
        _state("grad_mode"),
        "make every call under the same grad mode (torch.no_grad(), torch.inference_mode() or neither), or enter it inside "
        f"the compiled function; {_SAME_EACH_TIME}",
    ),
    Row(
        "autocast",
        "GLOBAL_STATE, autocast",
        _state("autocast"),
        "make every call under the same torch.autocast, or enter it inside the compiled function",
    ),
    Row(
        "default dtype",
        "GLOBAL_STATE, default_dtype",
        _state("default_dtype"),
        "call torch.set_default_dtype() once, before the first call",
    ),
    Row(
        "threads",
        "GLOBAL_STATE, num_threads",
        _state("num_threads"),
        "call torch.set_num_threads() once, before the first call",
    ),
    Row(
        "deterministic",
        "GLOBAL_STATE, deterministic_algorithms",
        _state("deterministic_algorithms", "deterministic_algorithms_warn_only"),
        "call torch.use_deterministic_algorithms() once, before the first call",
    ),
    Row("state of torch", "GLOBAL_STATE", _state(), "set it once, before the first call"),
    Row(
        "inference mode",
        "INFERENCE_MODE",
        _about(Test.INFERENCE_MODE, "torch.inference_mode() was entered or left since this was compiled"),
        f"make every call inside of it, or every call outside; {_SAME_EACH_TIME}",
    ),
    Row(
        "default device",
        "DEFAULT_DEVICE",
        _about(Test.DEFAULT_DEVICE, "the default device was another when this was compiled"),
        "call torch.set_default_device() once, before the first call",
    ),
    Row(
        "function mode",
        "TORCH_FUNCTION_STATE",
        _about(Test.MODE_STACK, "other torch function modes were on when this was compiled"),
        "make every call under the same modes: a `with torch.device(...)` block is one, too",
    ),
    Row(
        "saved tensor hooks",
        "AUTOGRAD_SAVED_TENSORS_HOOKS",
        _about(Test.SAVED_HOOKS, "other hooks on saved tensors were on when this was compiled"),
        "make every call under the same torch.autograd.graph.saved_tensors_hooks",
    ),
    Row(
        "forward gradients",
        "DUAL_LEVEL_MATCH",
        _about(Test.DUAL_LEVEL, "forward-mode autograd was at another level when this was compiled"),
        "make every call at the same level",
    ),
    Row(
        "hooks",
        "guards on hooks of modules (skip_nnmodule_hook_guards)",
        _hooks,
        "register and remove hooks before the first call, and not in between",
    ),
    Row(
        "training",
        "BOOL_MATCH on training",
        _training,
        f"call train() or eval() before the first call; {_SAME_EACH_TIME}: training with evaluation compiles twice, no more",
    ),
    Row(
        "adapter",
        "EQUALS_MATCH (or a match of keys) on the adapter's name",
        _adapter,
        "torch keeps a version for each adapter: allow as many (torch._dynamo.config.recompile_limit), copy an adapter's "
        "weights over another's instead of switching (peft's hotswap_adapter), or merge it before compiling",
    ),
    Row(
        "optional argument",
        "NONE_MATCH",
        _optional,
        f"pass it always or never, or a tensor that changes nothing instead of None; {_SAME_EACH_TIME}",
    ),
    Row("not a tensor", "TENSOR_MATCH, type", _not_a_tensor, "pass a tensor each time: torch.tensor(value)"),
    Row(
        "class of a tensor",
        "TENSOR_MATCH, type",
        _tensor("class"),
        "pass the same class each time: parameter.detach() is a plain tensor, torch.nn.Parameter(tensor) a parameter",
    ),
    Row(
        "device",
        "TENSOR_MATCH, device",
        _tensor("device"),
        lambda case: f"move it before the call: {_converted(case, 'device', repr)}; {_SAME_EACH_TIME}",
    ),
    Row(
        "dtype",
        "TENSOR_MATCH, dtype",
        _tensor("dtype"),
        lambda case: f"convert it before the call: {_converted(case, 'dtype', 'torch.{}'.format)}; {_SAME_EACH_TIME}",
    ),
    Row(
        "requires_grad",
        "TENSOR_MATCH, requires_grad",
        _tensor("requires_grad"),
        "pass it the same way each time: tensor.detach() where no gradient is wanted, requires_grad_() before the first "
        f"call where one is; {_SAME_EACH_TIME}",
    ),
    Row(
        "number of dimensions",
        "TENSOR_MATCH, rank",
        _tensor("rank"),
        "pass the same number of dimensions: tensor.unsqueeze(0) for a single item; no size is dynamic across that",
    ),
    Row(
        "0 or 1",
        "0/1 specialization",
        _zero_or_one,
        "torch compiles for the sizes 0 and 1 apart: leave such a batch out (DataLoader(drop_last=True)) or pad it to 2; "
        "or torch._dynamo.decorators.mark_unbacked(tensor, dim) before the first call",
    ),
    Row("size", "dynamic shapes (automatic_dynamic_shapes)", _tensor("size"), _mark),
    Row(
        "strides",
        "TENSOR_MATCH, stride",
        _tensor("stride"),
        "pass one layout: tensor.contiguous() (for images tensor.contiguous(memory_format=torch.channels_last))",
    ),
    Row(
        "inference tensor",
        "TENSOR_MATCH, dispatch key set",
        _tensor("inference"),
        "make the tensor outside of torch.inference_mode(), or pass tensor.clone(); or make every call inside of it",
    ),
    Row(
        "dispatch keys",
        "TENSOR_MATCH, dispatch key set",
        _tensor("keys"),
        "pass the same kind of tensor: tensor.resolve_conj() and resolve_neg() undo lazy views; keep modes and transforms "
        "(vmap, functionalization) the same",
    ),
    Row(
        "marking",
        "dimension marking",
        _marking,
        "mark the tensors of the first call, and all others alike: torch._dynamo.mark_dynamic(tensor, dim)",
    ),
    Row(
        "equal sizes",
        "duck sizing",
        _equal_sizes,
        "let them differ in the first call, or set torch.fx.experimental._config.use_duck_shape = False before compiling",
    ),
    Row(
        "condition on sizes",
        "SHAPE_ENV guard",
        _condition,
        "the line named above, or an operator in it, asks this: take the branch outside of the compiled function, or pad "
        f"so that it has one answer; {_SAME_EACH_TIME}",
    ),
    Row(
        "aliases",
        "DUPLICATE_INPUT, NO_TENSOR_ALIASING, STORAGE_OVERLAPPING",
        _aliases,
        "pass different tensors each time (tensor.clone()), or the same one each time",
    ),
    Row(
        "function made anew",
        "CLOSURE_MATCH",
        _function,
        "make the function once, outside of the loop; pass what it captures as an argument, numbers as tensors",
    ),
    Row(
        "integer of a module",
        "unspecialized int (allow_unspec_int_on_nn_module)",
        _module_integer,
        "keep it in a buffer (register_buffer with a tensor), or set "
        "torch._dynamo.config.allow_unspec_int_on_nn_module = True before compiling",
    ),
    Row(
        "float",
        "unspecialized float (specialize_float)",
        _number(float),
        "pass it as a tensor (a learning rate as lr=torch.tensor(0.1), an attribute as a buffer); otherwise torch makes "
        "the float dynamic now where it can, at the price of this recompile",
    ),
    Row(
        "global",
        "guard on a global",
        _global,
        "bind it once, before the first call, and pass what changes as an argument, numbers as tensors",
    ),
    Row(
        "integer",
        "unspecialized int (specialize_int)",
        _number(int),
        "pass it as a tensor; otherwise torch makes the integer dynamic now where it can, at the price of this recompile",
    ),
    Row(
        "type of a number",
        "TYPE_MATCH",
        _number(int, float, bool, complex),
        "pass one type: float(value) each time",
    ),
    Row(
        "length",
        "SEQUENCE_LENGTH",
        _length,
        "pass one length (pad with zeros), or one tensor instead of a list: torch.stack(items), whose sizes can be dynamic",
    ),
    Row(
        "keys",
        "DICT_KEYS_MATCH, DICT_CONTAINS",
        _keys,
        "give a dict all its keys before the first call, in one order; torch keeps a version for each set of keys",
    ),
    Row(
        "attribute",
        "HASATTR",
        _attribute,
        "give an object all its attributes in __init__, and delete none",
    ),
    Row(
        "flag",
        "specialization (CONSTANT_MATCH, EQUALS_MATCH)",
        _flag,
        f"set it before the first call; {_SAME_EACH_TIME}: a flag compiles twice, no more. What has many values is better "
        "a tensor (torch.where)",
    ),
    Row(
        "type",
        "TYPE_MATCH",
        lambda case: case.was() if case.test in _TYPE else None,
        f"pass one type each time; {_SAME_EACH_TIME}",
    ),
    Row(
        "object replaced",
        "ID_MATCH",
        lambda case: f"{case.place} is another object: {case.change()}" if case.test in _IDENTITY else None,
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
    "every guard of this version holds: it was compiled by another torch.compile, with another backend or other options",
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


def on_limit(name: str, most: int) -> Advice:
    """What to do when torch compiles a function no more.

    Args:
        name: of the limit, in ``torch._dynamo.config``.
        most: how many versions it allows.
    """
    return Advice(
        "recompile limit",
        f"torch keeps at most {most} versions of a function ({name}) and compiles this one no more: a call that none of "
        "them fits runs eagerly (with fullgraph=True it raises)",
        "stop what recompiles it, told above; where all versions are wanted, set a larger "
        f"torch._dynamo.config.{name} before compiling. UNIFIED_GUARDS_LOG=recompiles counts them as they come",
        f"hit config.{name}",
    )


__all__ = ["NO_GUARD", "TABLE", "Advice", "Row", "advise", "on_limit", "path"]
