"""Why a guard did not hold on a frame, for reading. Entry points: :func:`failing_of`, :func:`look`, :func:`describe`.

What is said of a value runs no code of the user's: no ``repr``, no ``len``, no attribute of its class.
"""

from __future__ import annotations

import itertools
import operator
import re
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.utils import _device

from unified_guards.guards import differences
from unified_guards.guards.accesses import MISSING, resolve
from unified_guards.guards.differences import Difference
from unified_guards.guards.ir import Guard, GuardSet, Provenance, Source, Test
from unified_guards.guards.names import name_of, place, type_name
from unified_guards.guards.semantics import explain_failure, holds, strides_of

#: Types whose repr() runs no code of the user's.
_SHOWN_BY_REPR = (int, float, bool, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
#: How many sources' values are shown, how many members of a container, and how many characters of each.
_MOST_VALUES, _MOST_MEMBERS, _MOST_TEXT = 4, 6, 120


class Look(NamedTuple):
    """A guard that does not hold, and what it was asked about.

    Attributes:
        origin: the guard, or the source at which there was no value.
        values: what is at the sources of the guard; ``MISSING`` where there is nothing. At a source without a value:
            what is at its base.
        differences: in which respects a tensor, or torch's global state, is other than expected.
        makers: who asked for the guard.
        f_locals: the locals of the frame on which it was checked.
    """

    origin: Guard | Source
    values: tuple[Any, ...]
    differences: tuple[Difference, ...]
    makers: tuple[Provenance, ...]
    f_locals: dict[str, Any]


# -- values ------------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value in a few words. A container has its length, and the keys or members that are plain values."""
    text = _shown(value)
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def is_one_of(kind: type, kinds: Iterable[type]) -> bool:
    """Whether a class is one of these. Comparing or hashing it might run code of its metaclass."""
    return any(kind is each for each in kinds)


def _shown(value: Any) -> str:
    kind = type(value)
    if value is MISSING:
        return "nothing"
    if is_one_of(kind, _SHOWN_BY_REPR):
        return repr(value)
    if issubclass(kind, torch.Tensor):
        return _tensor(value)
    for container, members in _CONTAINERS.items():
        if issubclass(kind, container):
            named = _members(members(value))
            return f"a {type_name(kind)} of {container.__len__(value)}{f' ({named})' if named else ''}"
    return _named(value)


def _named(value: Any) -> str:
    """Something that has a name, and where it was defined."""
    kind, name = type(value), name_of(value)
    if name is None:
        return f"a {type_name(kind)}"
    code = value.__code__ if kind is types.FunctionType else value if kind is types.CodeType else None
    return name if code is None else f"{name}, {place(code.co_filename, code.co_firstlineno)}"


def _nothing(_: Any) -> Sequence[Any]:
    return ()


#: How the members of a container that are worth naming are read, past what a subclass defines.
_CONTAINERS: dict[Any, Callable[[Any], Iterable[Any]]] = {
    dict: dict.keys,
    list: _nothing,
    tuple: _nothing,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
}


def _members(members: Iterable[Any]) -> str:
    few = list(itertools.islice(members, _MOST_MEMBERS + 1))
    if not few or not all(is_one_of(type(each), _SHOWN_BY_REPR) for each in few):
        return ""
    return f"{', '.join(map(repr, few[:_MOST_MEMBERS]))}{', …' if len(few) > _MOST_MEMBERS else ''}"


def _tensor(value: torch.Tensor) -> str:
    with torch._C.DisableTorchFunction():
        if differences.answers_by_code(value):
            return f"a {type_name(type(value))}"
        grad = ", requires grad" if value.requires_grad else ""
        dtype = str(value.dtype).removeprefix("torch.")
        head = f"{type_name(type(value))} {dtype}"
        if value.is_nested:
            return f"{head}, nested, on {value.device}{grad}"
        strides = f" strides ({', '.join(map(str, strides_of(value)))})" if value.layout is torch.strided else ""
        return f"{head}{list(value.size())}{strides} on {value.device}{grad}"


# -- guards ------------------------------------------------------------------------------------------------------------


def failing_of(checked: GuardSet, suspect: Guard, f_locals: dict[str, Any]) -> Guard:
    """The guard that does not hold, given the one at which a native program stopped.

    One row may check all expressions of a set, so that another expression than ``suspect`` may have failed.
    """
    if suspect.test is not Test.EXPRESSION or not holds(suspect, f_locals):
        return suspect
    expressions = GuardSet(entry for entry in checked.entries() if entry[0].test is Test.EXPRESSION)
    return explain_failure(expressions, f_locals) or suspect


def value_at(source: Source, f_locals: dict[str, Any]) -> Any:
    """What is at a source; ``MISSING`` where there is nothing."""
    try:
        return resolve(source, f_locals)
    except Exception:  # whatever the user's code raised: for a guard it means that there is no value
        return MISSING


def look(origin: Guard | Source, makers: Iterable[Provenance], f_locals: dict[str, Any]) -> Look:
    """Reads what a guard that does not hold was asked about, or what is where a source had no value.

    Args:
        origin: the guard or the source.
        makers: who asked for the guard.
        f_locals: the locals of the frame on which it was checked.
    """
    if isinstance(origin, Source):
        return Look(origin, (value_at(origin.base or origin, f_locals),), (), tuple(makers), f_locals)
    values = tuple(value_at(source, f_locals) for source in origin.sources)
    return Look(origin, values, tuple(_differences(origin, values)), tuple(makers), f_locals)


def _differences(item: Guard, values: tuple[Any, ...]) -> list[Difference]:
    if item.test is Test.GLOBAL_STATE:
        return differences.of_state(item.params[0])
    if item.test is Test.TENSOR and issubclass(type(values[0]), torch.Tensor):
        try:
            return differences.of_tensor(item.params[0], values[0])
        except RuntimeError:  # a tensor that has no sizes, or none that are known
            return []
    return []


def describe(seen: Look) -> str:
    """One line: the guard, the values that it was asked about, who made it and for which line of the program."""
    item, found = seen.origin, found_by(seen)
    if isinstance(item, Source):
        return f"{item} is missing{f' (found {found})' if found else ''}"
    return f"{item}{f' (found {found})' if found else ''}  # {'; '.join(dict.fromkeys(map(str, seen.makers)))}"


def found_by(seen: Look) -> str:
    """What a guard found, in words; "" where there is nothing to say."""
    item = seen.origin
    if isinstance(item, Source):
        return "" if item.base in (None, Source.frame()) else f"{item.base} = {shown(seen.values[0])}"
    read = _READ.get(item.test)
    if read is not None:
        return read(seen)
    return _values(item.sources, seen.values) or _locals_named(str(item), seen.f_locals)


def _values(sources: Sequence[Source], values: Sequence[Any]) -> str:
    known = {source: value for source, value in zip(sources, values, strict=True) if source is not Source.frame()}
    if len(known) == 1:
        return shown(*known.values())
    texts = [f"{source} = {shown(value)}" for source, value in itertools.islice(known.items(), _MOST_VALUES)]
    more = [f"{len(known) - _MOST_VALUES} more"] if len(known) > _MOST_VALUES else []
    return ", ".join([*texts, *more])


def _locals_named(text: str, f_locals: dict[str, Any]) -> str:
    """The locals that a guard of torch's names, which has no sources of its own."""
    names = [name for name in dict.fromkeys(re.findall(r"L\['(\w+)'\]", text)) if name in f_locals]
    return ", ".join(f"L['{name}'] = {shown(f_locals[name])}" for name in names[:_MOST_VALUES])


def _length(seen: Look) -> str:
    """The length; of a dict its keys, too."""
    value = seen.values[0]
    if issubclass(type(value), dict):
        length, keys = dict.__len__(value), _members(dict.keys(value))
        return f"{length} {'key' if length == 1 else 'keys'}{f': {keys}' if keys else ''}"
    for container in _CONTAINERS:
        if issubclass(type(value), container):
            return str(container.__len__(value))
    return str(len(value)) if is_one_of(type(value), (str, bytes, range)) else shown(value)


def _identity(seen: Look) -> str:
    """Another object than that which was expected, where there is no more to say of either."""
    value = seen.values[0]
    expected = None if isinstance(seen.origin, Source) else seen.origin.params[1]
    kind = type_name(type(value))
    return f"another {kind}" if shown(value) == f"a {kind}" and expected == f"that {kind}" else shown(value)


def _tensor_found(seen: Look) -> str:
    others = "; ".join(map(str, seen.differences))
    return f"{shown(seen.values[0])}{f': {others}' if others else ''}"


def _same(seen: Look) -> str:
    """Which of several sources lead to the same object."""
    sources = _sources(seen)
    found: dict[int, list[str]] = {}
    for source, value in zip(sources, seen.values, strict=True):
        found.setdefault(id(value), []).append(str(source))
    same = [" and ".join(names) for names in found.values() if len(names) > 1]
    return f"that {'; '.join(same)} are the same object" if same else "different objects"


def _sources(seen: Look) -> tuple[Source, ...]:
    return () if isinstance(seen.origin, Source) else seen.origin.sources


def _modes(_: Look) -> str:
    modes = (torch._C._get_function_stack_at(at) for at in range(torch._C._len_torch_function_stack()))
    return ", ".join(type_name(type(mode)) for mode in modes) or "none"


def _items_left(seen: Look) -> str:
    value = seen.values[0]
    plain = is_one_of(type(value), (type(iter(())), type(iter(range(0)))))
    return f"{operator.length_hint(value)} left of {shown(value)}" if plain else shown(value)


def _marking(seen: Look) -> str:
    """The markings that torch notes on a tensor."""
    value = seen.values[0]
    attributes = object.__getattribute__(value, "__dict__") if issubclass(type(value), torch.Tensor) else {}
    marks = {name: dims for name, dims in attributes.items() if type(dims) is set and name.startswith("_dynamo_")}
    texts = [
        f"{name.removeprefix('_dynamo_').removesuffix('_indices').replace('_', ' ')} in {_dims(dims)}"
        for name, dims in marks.items()
        if name.endswith("_indices") and dims
    ]
    return f"{shown(value)}, marked {', '.join(texts)}" if texts else shown(value)


def _dims(dims: set[Any]) -> str:
    return ", ".join(str(dim) for dim in sorted(dim for dim in dims if type(dim) is int))


#: What was found, where it is not just the values at the guard's sources.
_READ: dict[Test, Callable[[Look], str]] = {
    Test.IS: _identity,
    Test.IS_TARGET: _identity,
    Test.LENGTH: _length,
    Test.DICT_LENGTH: _length,
    Test.TENSOR: _tensor_found,
    Test.UNIQUE: _same,
    Test.SAME: _same,
    Test.MODE_STACK: _modes,
    Test.TUPLE_ITER_LEN: _items_left,
    Test.DIM_MARKING: _marking,
    Test.DYNAMIC_INDICES: _marking,
    Test.GLOBAL_STATE: lambda seen: "; ".join(map(str, seen.differences)) or "another state",
    Test.DUAL_LEVEL: lambda seen: shown(forward_ad._current_level),
    Test.INFERENCE_MODE: lambda seen: repr(torch.is_inference_mode_enabled()),
    Test.DEFAULT_DEVICE: lambda seen: shown(_device.CURRENT_DEVICE),
    Test.SAVED_HOOKS: lambda seen: "others",
}
