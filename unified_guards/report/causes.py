"""What each cause of a recompile looks like: functions of a case that say what has changed, or None for another cause.

Values are told by their exact types, so that nothing here runs code of the user's. Entry point: the table of
``advice.py``.
"""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Callable

import torch

from unified_guards.guards.differences import Difference
from unified_guards.guards.failures import found_by, is_one_of
from unified_guards.guards.ir import Access, Guard, Test
from unified_guards.report.case import EQUALITY, IDENTITY, OF_FUNCTIONS, TYPE, Case, path

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType)


def _changed(what: str, difference: Difference) -> str:
    return f"{what} was {difference.expected} when this was compiled and is {difference.found}"


# -- the state of torch ------------------------------------------------------------------------------------------------


def state(*kinds: str) -> Callable[[Case], str | None]:
    """A part of torch's global state; any part without ``kinds``."""

    def match(case: Case) -> str | None:
        if case.test is not Test.GLOBAL_STATE:
            return None
        found = [each for each in case.seen.differences if not kinds or each.kind in kinds]
        if not found:
            return None if kinds else "torch's global state is another than when this was compiled"
        return " and ".join(_changed(each.what, each) for each in found)

    return match


def about(test: Test, text: str) -> Callable[[Case], str | None]:
    return lambda case: f"{text} (found {found_by(case.seen)})" if case.test is test else None


def inference_mode(case: Case) -> str | None:
    """The mode itself: torch has a guard on it in some versions, in others the keys of a tensor tell."""
    is_told = case.test is Test.TENSOR and "inference_mode" in case.differences
    if case.test is not Test.INFERENCE_MODE and not is_told:
        return None
    return f"torch.inference_mode() was entered or left since this was compiled (found {found_by(case.seen)})"


# -- tensors -----------------------------------------------------------------------------------------------------------


def tensor(kind: str) -> Callable[[Case], str | None]:
    """One respect in which a tensor is other than expected."""

    def match(case: Case) -> str | None:
        found = case.differences.get(kind) if case.test is Test.TENSOR else None
        if found is None:
            return None
        return _changed(case.place if kind == "inference" else f"{found.what} of {case.place}", found)

    return match


def zero_or_one(case: Case) -> str | None:
    size = case.differences.get("size")
    if case.test is Test.TENSOR and size is not None and {size.expected, size.found} & {0, 1}:
        return _changed(f"{size.what} of {case.place}", size)
    if case.test is not Test.EXPRESSION or not isinstance(case.seen.origin, Guard):
        return None
    for source, value in zip(case.seen.origin.sources, case.seen.values, strict=True):
        if source.access is Access.TENSOR_SIZE and type(value) is int and value in (0, 1):
            return f"{path(source)} is {value}, and this was compiled for sizes from 2 on"
    return None


def optional(case: Case) -> str | None:
    if case.test is Test.IS and case.params[1] == "None":
        return case.was()
    if case.test is Test.IS_NOT:
        return case.was("something else")
    return case.was("a tensor") if case.test is Test.TENSOR and case.value is None else None


def not_a_tensor(case: Case) -> str | None:
    if case.test is not Test.TENSOR or issubclass(type(case.value), torch.Tensor):
        return None
    return case.was(f"a {str(case.expected).partition(' strides')[0]}")


# -- shapes and relations ----------------------------------------------------------------------------------------------


def equal_sizes(case: Case) -> str | None:
    if case.test is not Test.EXPRESSION or not any("duck sizing" in code for code in case.codes):
        return None
    return f"sizes that were equal when this was compiled differ (found {found_by(case.seen)})"


_CONDITIONS = (Test.EXPRESSION, Test.SHAPE, Test.SHAPE_CALL)


def condition(case: Case) -> str | None:
    if case.test not in _CONDITIONS or type(case.value) is float:
        return None
    return _compiled_for(case)


def _compiled_for(case: Case) -> str:
    return f"this was compiled for {case.seen.origin}, and that does not hold (found {found_by(case.seen) or 'other'})"


_RELATIONS = {
    Test.UNIQUE: "arguments that were different objects when this was compiled are one and the same",
    Test.SAME: "arguments that were one and the same when this was compiled are different objects",
    Test.OVERLAP: "other arguments share memory than when this was compiled",
    Test.UNIQUE_STORAGE: "arguments share memory that did not when this was compiled",
    Test.SHARES_STORAGE: "arguments that shared memory when this was compiled do not",
}


def aliases(case: Case) -> str | None:
    return None if case.test not in _RELATIONS else f"{_RELATIONS[case.test]} (found {found_by(case.seen)})"


# -- modules, functions, globals ---------------------------------------------------------------------------------------


def hooks(case: Case) -> str | None:
    name = next((key for key in case.keys if re.search(r"hooks(_\w+)?$", key)), None)
    return None if name is None else f"hooks have come or gone since this was compiled: {case.change()}"


def training(case: Case) -> str | None:
    if case.keys[:1] != ["training"] or type(case.value) is not bool:
        return None
    return f"{'train' if case.value else 'eval'}() was called: {case.was(str(not case.value))}"


def adapter(case: Case) -> str | None:
    named = any("adapter" in key.lower() or "lora" in key.lower() for key in case.keys)
    return f"another adapter is active: {case.change()}" if named and case.test not in TYPE else None


def function(case: Case) -> str | None:
    if case.global_at is not None or case.test in TYPE:
        return None
    is_one = case.test in IDENTITY and is_one_of(type(case.value), _FUNCTIONS)
    at = case.function or (case.source if is_one else None)
    return None if at is None else f"{path(at)} is a function that was made anew: {case.change()}"


def rebound(case: Case) -> str | None:
    at = case.global_at
    if at is None or case.test is Test.TENSOR:
        return None
    inside = [step.access for step in case.steps if step.depth > at.depth]
    if inside and not any(access in OF_FUNCTIONS for access in inside):
        return None  # the same object, of which something has changed
    is_value = not inside and case.test in EQUALITY
    return case.was() if is_value else f"the global {at.key} was bound to something else: {case.change()}"


# -- plain values ------------------------------------------------------------------------------------------------------


def number(*kinds: type) -> Callable[[Case], str | None]:
    """A number of exactly one of these types became another one of them."""

    def match(case: Case) -> str | None:
        both = all(is_one_of(type(value), kinds) for value in (case.expected, case.value))
        return case.was() if both and case.test in EQUALITY else None

    return match


def a_float(case: Case) -> str | None:
    """A float, also one that torch has made dynamic and then asks something of."""
    is_asked = case.test in _CONDITIONS and type(case.value) is float
    return _compiled_for(case) if is_asked else number(float)(case)


def module_integer(case: Case) -> str | None:
    hinted = any("integer attributes of the nn.Module" in hint for hint in case.hints)
    return number(int)(case) if hinted or issubclass(type(case.owner), torch.nn.Module) else None


def flag(case: Case) -> str | None:
    is_enum = case.test in IDENTITY and issubclass(type(type(case.value)), enum.EnumMeta)
    is_bool = case.test is Test.IS and case.params[1] in ("True", "False")
    return case.was() if is_enum or is_bool or case.test in EQUALITY else None


def length(case: Case) -> str | None:
    if case.test in (Test.TUPLE_ITER_LEN, Test.RANGE_ITER):
        return f"{case.place} is an iterator that stood elsewhere when this was compiled: {case.change()}"
    if case.test is not Test.LENGTH:
        return None
    return f"{case.place} had {case.expected} items when this was compiled and has {found_by(case.seen)}"


_OF_KEYS = frozenset(
    {Test.DICT_LENGTH, Test.KEYS, Test.MAPPING_KEYS, Test.DICT_CONTAINS, Test.SET_CONTAINS, Test.DICT_VERSION}
)


def keys(case: Case) -> str | None:
    is_key = case.source.access is Access.DICT_KEY_AT and case.test not in TYPE
    is_gone = case.test is None and issubclass(type(case.value), dict)
    if case.test not in _OF_KEYS and not is_key and not is_gone:
        return None
    of = case.source.base if is_key or is_gone else case.source
    return f"{path(of or case.source)} has other keys or members than when this was compiled: {case.change()}"


def optimizer_state(case: Case) -> str | None:
    """What an optimizer keeps of each parameter, which its first step makes."""
    if case.test is not Test.DICT_LENGTH or "state" not in case.keys or not issubclass(type(case.value), dict):
        return None
    has_grown = dict.__len__(case.value) > case.expected
    if not has_grown or not issubclass(type(case.owner), torch.optim.Optimizer):
        return None
    return f"the optimizer made its state in its first step: {case.change()}"


def attribute(case: Case) -> str | None:
    if case.test is Test.NO_ATTR and not _is_marking(case):
        return f"{case.place} has an attribute {case.expected} now"
    return f"{case.place} is not there any more" if case.test is None else None


def _is_marking(case: Case) -> bool:
    """Torch 2.11 guards of a tensor without marks that it does not have the attribute that holds them."""
    if case.test is Test.NO_ATTR:
        return str(case.expected).startswith("_dynamo_")
    return case.test in (Test.DIM_MARKING, Test.DYNAMIC_INDICES)


def marking(case: Case) -> str | None:
    if not _is_marking(case):
        return None
    return f"{case.place} was marked otherwise when this was compiled (found {found_by(case.seen)})"


def type_of(case: Case) -> str | None:
    return case.was() if case.test in TYPE else None


def identity(case: Case) -> str | None:
    return f"{case.place} is another object: {case.change()}" if case.test in IDENTITY else None
