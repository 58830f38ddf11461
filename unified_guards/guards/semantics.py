"""The slow and obvious evaluator: what a :class:`GuardSet` means, in Python, one small function for each :class:`Test`.

The tests compare the native checker with it. In a program it only explains why a guard failed, and gives the second
verdict on AOT entry points under ``UNIFIED_GUARDS_VERIFY``; so it is imported when one of these is asked for.

Each guard is evaluated by itself: its sources are followed from the frame anew (``accesses.py``), and nothing is
remembered from one guard to the next. Where torch's guard tree would throw or leave an error pending, the guard fails.
Entry points: :func:`evaluate`, :func:`explain_failure`.
"""

from __future__ import annotations

import ctypes
import operator
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._C._dynamo import guards as native
from torch.autograd import forward_ad
from torch.utils import _device, _python_dispatch

from unified_guards.guards.accesses import is_a, known_dim, need, resolve
from unified_guards.guards.expressions import evaluate as value_of_term
from unified_guards.guards.ir import EPILOGUE, RELATIONAL, Guard, GuardSet, Source, TensorFacts, Test


class _Frame(NamedTuple):
    """Where sources start: the locals, and the globals that stand for every captured dict of globals (or None)."""

    f_locals: dict[str, Any]
    f_globals: dict[str, Any] | None


def evaluate(guard_set: GuardSet, f_locals: dict[str, Any], f_globals: dict[str, Any] | None = None) -> bool:
    """Whether every guard of the set holds, as ``RootGuardManager::check`` of torch/csrc/dynamo/guards.cpp decides it.

    Args:
        guard_set: the guards of one cache entry, simplified or not.
        f_locals: the locals of the frame, cells unboxed.
        f_globals: what to read globals from instead of the dict that was captured when the guards were made. A set
            that came from JSON has no captured one.

    Returns:
        True when the compiled code may be reused. Never raises: a guard that raises does not hold.
    """
    return explain_failure(guard_set, f_locals, f_globals) is None


def explain_failure(
    guard_set: GuardSet, f_locals: dict[str, Any], f_globals: dict[str, Any] | None = None
) -> Guard | None:
    """The first guard of the set that does not hold, as ``RootGuardManager::check_verbose`` finds torch's reason.

    Args:
        guard_set: the guards of one cache entry, simplified or not.
        f_locals: the locals of the frame, cells unboxed.
        f_globals: what to read globals from instead of the captured dict, as for :func:`evaluate`.

    Returns:
        The guard, or None when all hold. Never raises.
    """
    frame = _Frame(f_locals, f_globals)
    # Torch checks the guards on the frame itself first, all others next, those of the epilogue last.
    for phase in (_is_on_frame, _is_on_values, _is_epilogue):
        for item in guard_set:
            if phase(item) and not _holds(item, frame):
                return item
    return None


def holds(item: Guard, f_locals: dict[str, Any]) -> bool:
    """Whether one guard holds, as :func:`evaluate` decides for a set."""
    return _holds(item, _Frame(f_locals, None))


def _is_epilogue(item: Guard) -> bool:
    return item.test in EPILOGUE


def _is_on_frame(item: Guard) -> bool:
    return item.source is Source.frame() and item.test not in RELATIONAL and not _is_epilogue(item)


def _is_on_values(item: Guard) -> bool:
    return not _is_on_frame(item) and not _is_epilogue(item)


def _holds(item: Guard, frame: _Frame) -> bool:
    """Torch functions are off, save for the guards on the frame itself: those ask for the state of the caller."""
    try:
        if _is_on_frame(item):
            return bool(_ask(item, frame))
        with torch._C.DisableTorchFunction():
            return bool(_ask(item, frame))
    except BaseException:
        return False  # KeyboardInterrupt and SystemExit too: torch clears whatever a guard raises


def _ask(item: Guard, frame: _Frame) -> object:
    values = [resolve(source, frame.f_locals, frame.f_globals) for source in item.sources]
    if item.test is Test.EXPRESSION:
        return _expression(item, values, frame)
    if item.test in RELATIONAL:
        return _RELATIONS[item.test](values, item.params)
    return _TESTS[item.test](values[0], item.params)


# -- tests: (value, params) -> truth -----------------------------------------------------------------------------------


def _equals(value: Any, params: tuple[Any, ...]) -> bool:
    (expected,) = params
    return value is expected or (type(value) is type(expected) and bool(value == expected))


def _bits(value: float | complex) -> bytes:
    return struct.pack("dd", value.real, value.imag)


def _is_target(value: Any, params: tuple[Any, ...]) -> bool:
    return value is not None and value is params[0]()


def _deep_equals(found: Any, expected: Any) -> bool:
    """Values without parts are compared by ``==``, floats by their bits; what has parts is compared part by part."""
    kind: Any = type(expected)
    if found is expected or type(found) is not kind:
        return found is expected
    if kind in (float, complex):
        return _bits(found) == _bits(expected)
    if kind is slice:
        return _deep_equals((found.start, found.stop, found.step), (expected.start, expected.stop, expected.step))
    if kind is dict:
        return _deep_equals(tuple(found.items()), tuple(expected.items()))
    if kind is list or issubclass(kind, tuple):
        sequence: Any = list if kind is list else tuple
        return sequence.__len__(found) == sequence.__len__(expected) and all(
            map(_deep_equals, sequence.__iter__(found), sequence.__iter__(expected))
        )
    if kind in _SETS:
        members = {member: member for member in found}
        return len(found) == len(expected) and all(
            member in members and _deep_equals(members[member], member) for member in expected
        )
    return bool(found == expected)


def _same_bits(value: Any, params: tuple[Any, ...]) -> bool:
    (expected,) = params
    return type(value) is type(expected) and type(value) in (float, complex) and _bits(value) == _bits(expected)


_SETS: tuple[Any, ...] = (set, frozenset)

_sequence_length = ctypes.pythonapi.PySequence_Size
_sequence_length.argtypes, _sequence_length.restype = [ctypes.c_void_p], ctypes.c_ssize_t


def _length(value: Any, params: tuple[Any, ...]) -> bool:
    """The length of a sequence. A dict is none: the interpreter is asked, which tells a sequence from a mapping."""
    expected, measure_sets = params
    for kind in _SETS if measure_sets else ():
        if is_a(value, kind):
            return bool(kind.__len__(value) == expected)
    return bool(_sequence_length(id(value)) == expected)


def _tuple_iterator_length(value: Any, params: tuple[Any, ...]) -> bool:
    left, kind = params
    return id(type(value)) == kind and bool(operator.length_hint(value) == left)


def _range_iterator(value: Any, params: tuple[Any, ...]) -> bool:
    start, stop, step, kind = params
    if id(type(value)) != kind:
        return False
    _, (whole,), position = value.__reduce__()
    return (whole.start + (position or 0) * whole.step, whole.stop, whole.step) == (start, stop, step)


def _mapping_keys(value: Any, params: tuple[Any, ...]) -> bool:
    return bool(list(value.keys()) == list(params[0]))


def _keys(value: Any, params: tuple[Any, ...]) -> bool:
    (expected,) = params
    return (
        type(value) is dict
        and len(value) == len(expected)
        and all(_equals(found, (key,)) for found, key in zip(value, expected, strict=True))
    )


def _dict_contains(value: Any, params: tuple[Any, ...]) -> bool:
    key, expected = params
    return (is_a(value, dict) and dict.__contains__(value, key)) is bool(expected)


def _set_contains(value: Any, params: tuple[Any, ...]) -> bool:
    item, expected = params
    for kind in _SETS:
        if is_a(value, kind):
            hash(item)  # set.__contains__ would look for a frozenset in place of an unhashable set
            return bool(kind.__contains__(value, item)) is bool(expected)
    return not expected


def _has_attribute(value: Any, name: str) -> bool:
    try:
        getattr(value, name)
    except BaseException:
        return False
    return True


def _float_nan(value: Any, _: tuple[Any, ...]) -> bool:
    return type(value) is float and value != value  # noqa: PLR0124 (that is what makes it a NaN)


def _complex_nan(value: Any, _: tuple[Any, ...]) -> bool:
    return type(value) is complex and value != value  # noqa: PLR0124


def _dual_level(_: Any, params: tuple[Any, ...]) -> bool:
    level = forward_ad._current_level
    return type(level) is int and level == params[0]


def _default_device(_: Any, params: tuple[Any, ...]) -> bool:
    found, (expected,) = _device.CURRENT_DEVICE, params
    return found is expected or bool(expected == found)


def _mode_stack(_: Any, params: tuple[Any, ...]) -> bool:
    depth = torch._C._len_torch_function_stack()
    found = [type(torch._C._get_function_stack_at(i)) for i in range(depth)]
    return len(found) == len(params[0]) and all(map(operator.is_, found, params[0]))


def after_dispatch_state(keys: torch._C.DispatchKeySet) -> int:
    """A key set as a guard compares it: ``LocalState::apply`` of torch/csrc/dynamo/guards.h."""
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    found = (keys | included) - excluded
    if not _python_dispatch.is_in_any_mode_without_ignore_compile_internals():
        for name in ("Python", "PythonTLSSnapshot", "PythonDispatcher"):
            found = found.remove(getattr(torch._C.DispatchKey, name))
    return int(found.raw_repr())


def _dispatch_keys(value: Any, params: tuple[Any, ...]) -> bool:
    return is_a(value, torch._C.DispatchKeySet) and after_dispatch_state(value) == params[0]


def _script_type(value: Any, params: tuple[Any, ...]) -> bool:
    kind, _, wrapper = params
    unwrapped = value.real_obj if isinstance(value, wrapper) else value
    return bool(id(type(unwrapped)) == kind)


def _marked_within(value: Any, name: str, most: Any) -> bool:
    return not _has_attribute(value, name) or bool(getattr(value, name).issubset(most))


def _dim_marking(value: Any, params: tuple[Any, ...]) -> bool:
    expected, absent, dependent = params
    if not _has_attribute(value, "_has_dynamo_dim_marking"):
        return True
    if not expected and not dependent:
        return False
    within = all(_marked_within(value, name, most) for name, most in expected.items())
    unmarked = not any(_has_attribute(value, name) for name in absent)
    return within and unmarked and all(_dependent_marking(value, name, *rule) for name, rule in dependent.items())


def _dependent_marking(value: Any, name: str, expected: Any, gate: str) -> bool:
    """A marking that counts only where another attribute, the gate, is there."""
    if not _has_attribute(value, gate):
        return True
    if expected is None:
        return not _has_attribute(value, name) or getattr(value, name) is None
    return _has_attribute(value, name) and bool(getattr(value, name) == expected)


def _dynamic_indices(value: Any, params: tuple[Any, ...]) -> bool:
    name, most = params
    return _marked_within(value, name, most)


def strides_of(value: Any) -> tuple[Any, ...]:
    """Sparse compressed tensors have none, and match no guarded one."""
    if value.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return (None,) * int(value.dim())
    return tuple(torch.Tensor.stride(value))


def _dims_match(found: tuple[Any, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(
        want is None or known_dim(dim) == want for dim, want in zip(found, expected, strict=True)
    )


def _tensor(value: Any, params: tuple[Any, ...]) -> bool:
    facts: TensorFacts = params[0]
    if id(type(value)) != facts.type_id or not is_a(value, torch.Tensor):
        return False
    index = -1 if value.device.index is None else value.device.index
    expected = torch.accelerator.current_device_index() if facts.device_is_current else facts.device_index
    return (
        after_dispatch_state(torch._C._dispatch_keys(value)) == facts.keys
        and str(value.dtype) == f"torch.{facts.dtype_name}"
        and index == expected
        and value.requires_grad == facts.requires_grad
        and _dims_match(torch.Tensor.size(value), facts.sizes)
        and _dims_match(strides_of(value), facts.strides)
    )


def _calls(value: Any, params: tuple[Any, ...]) -> Any:
    return params[0](value)


_TESTS: dict[Test, Callable[[Any, tuple[Any, ...]], Any]] = {
    Test.EXISTS: lambda value, _: True,
    Test.TYPE_IS: lambda value, params: id(type(value)) == params[0],
    Test.IS: lambda value, params: id(value) == params[0],
    Test.IS_NOT: lambda value, params: id(value) != params[0],
    Test.IS_TARGET: _is_target,
    Test.EQUALS: _equals,
    Test.DEEP_EQUALS: lambda value, params: _deep_equals(value, params[0]),
    Test.SAME_BITS: _same_bits,
    Test.LENGTH: _length,
    Test.DICT_LENGTH: lambda value, params: is_a(value, dict) and dict.__len__(value) == params[0],
    Test.TUPLE_ITER_LEN: _tuple_iterator_length,
    Test.RANGE_ITER: _range_iterator,
    Test.MAPPING_KEYS: _mapping_keys,
    Test.KEYS: _keys,
    Test.DICT_CONTAINS: _dict_contains,
    Test.SET_CONTAINS: _set_contains,
    Test.NO_ATTR: lambda value, params: not _has_attribute(value, params[0]),
    Test.FLOAT_NAN: _float_nan,
    Test.COMPLEX_NAN: _complex_nan,
    Test.DUAL_LEVEL: _dual_level,
    Test.INFERENCE_MODE: lambda value, params: torch.is_inference_mode_enabled() is params[0],
    Test.DEFAULT_DEVICE: _default_device,
    Test.GLOBAL_STATE: lambda value, params: params[0].check(),
    Test.MODE_STACK: _mode_stack,
    Test.SAVED_HOOKS: lambda value, params: params[1](value),
    Test.DICT_VERSION: lambda value, params: is_a(value, dict) and native.dict_version(value) == params[0],
    Test.DISPATCH_KEYS: _dispatch_keys,
    Test.SCRIPT_TYPE: _script_type,
    Test.DIM_MARKING: _dim_marking,
    Test.DYNAMIC_INDICES: _dynamic_indices,
    Test.TENSOR: _tensor,
    Test.PREDICATE: _calls,
    Test.SHAPE: _calls,
    Test.TORCH_LEAF: _calls,
    Test.OPAQUE: lambda value, params: False,
}


# -- relations: (values, params) -> truth ------------------------------------------------------------------------------


def _overlap(values: list[Any], params: tuple[Any, ...]) -> bool:
    """Torch's own rule, on offsets, sizes and strides: which tensors may share memory with another one."""
    found = native.compute_overlapping_tensors(values, symbolic=False)
    return bool(found == set(range(params[0])))


def _storage(value: Any) -> int | None:
    """The address of a tensor's storage; None for one that has none (a sparse one)."""
    need(is_a(value, torch.Tensor))
    return int(torch.Tensor.untyped_storage(value)._cdata) if torch._C._has_storage(value) else None


def _unique_storage(values: list[Any], _: tuple[Any, ...]) -> bool:
    found = [storage for storage in map(_storage, values) if storage is not None]
    return len(set(found)) == len(found)


def _shares_storage(values: list[Any], _: tuple[Any, ...]) -> bool:
    first, second = map(_storage, values)
    return first is not None and first == second


def _expression(item: Guard, values: list[Any], frame: _Frame) -> bool:
    """Torch's own function decides on numbers that are no exact int or float: comparing a SymInt would add a guard to
    somebody's ShapeEnv."""
    made, asked = item.params
    if all(type(value) in (int, float) for value in values[: len(made.sources)]):
        return bool(value_of_term(made, dict(zip(made.sources, values, strict=False)).__getitem__))
    return asked is not None and bool(asked(frame.f_locals))


_ShapeFunction = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double))


def _shape_call(values: list[Any], params: tuple[Any, ...]) -> bool:
    ints, floats, address, _, _ = params
    numbers, reals = values[:ints], values[ints:]
    fits = all(is_a(number, int) and -(2**63) <= number < 2**63 for number in numbers)
    if not fits or not all(is_a(real, float) for real in reals):
        return False
    function = _ShapeFunction(address)
    return bool(function((ctypes.c_int64 * max(ints, 1))(*numbers), (ctypes.c_double * max(floats, 1))(*reals)))


_RELATIONS: dict[Test, Callable[[list[Any], tuple[Any, ...]], bool]] = {
    Test.UNIQUE: lambda values, _: len({id(value) for value in values}) == len(values),
    Test.SAME: lambda values, _: values[0] is values[1],
    Test.OVERLAP: _overlap,
    Test.UNIQUE_STORAGE: _unique_storage,
    Test.SHARES_STORAGE: _shares_storage,
    Test.SHAPE_CALL: _shape_call,
}
