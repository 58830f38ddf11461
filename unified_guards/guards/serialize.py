"""A :class:`GuardSet` as JSON text, and back: ``GuardSet.to_json`` and ``GuardSet.from_json``.

Users need it where a set leaves its process: a graph that ``make_fx`` returns cannot be pickled with its guards, so
``graph.guards.to_json()`` is kept beside it (docs/guards.md) and read, compared or evaluated elsewhere.

The text holds a table of sources (access, key, base), a table of guards (test, sources, params, who made it) and the
user's stacks. An address means nothing elsewhere: types, functions and modules travel by name and get the address
that they have where they are loaded. What only one process can check (a lambda, the identity of some object) travels
as :attr:`Test.OPAQUE` with the reason, which never holds. Entry points: :func:`dumps`, :func:`loads`.
"""

from __future__ import annotations

import builtins
import enum
import importlib
import json
import math
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch._C._dynamo import guards as native
from torch._functorch._aot_autograd import utils as saved_hooks

from unified_guards.guards.expressions import expression, numbered, parse, written
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard

#: The version of the format. A text of another version is refused.
VERSION = 1


class _Stays(Exception):
    """A value cannot leave, or enter, this process; the message says why."""


# -- objects by name ---------------------------------------------------------------------------------------------------

_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, enum.Enum)

_EMPTY: tuple[Any, ...] = ((), [], {}, set(), range(0), "", {}.keys(), {}.values(), {}.items())
_HIDDEN = (
    *(kind for kind in vars(types).values() if isinstance(kind, type) and kind.__module__ == "builtins"),
    *(type(iter(value)) for value in _EMPTY),
    *(type(value) for value in _EMPTY),
)
#: Types that say they are in ``builtins`` and are not.
_HIDDEN_BUILTINS = {kind.__qualname__: kind for kind in _HIDDEN if not hasattr(builtins, kind.__qualname__)}


def _find(name: str) -> Any:
    """The object called ``module:qualname``.

    Raises:
        _Stays: there is none, or the object that is found has another name of its own.
    """
    module, _, path = name.partition(":")
    found: Any
    try:
        if module == "builtins" and path in _HIDDEN_BUILTINS:
            return _HIDDEN_BUILTINS[path]
        found = importlib.import_module(module)
        for part in path.split(".") if path else ():
            found = getattr(found, part)
    except Exception as error:
        raise _Stays(f"{name} cannot be imported") from error
    if not isinstance(found, _NAMED) or _own_name(found) != name:
        raise _Stays(f"{name} is not what is found under that name")
    return found


def _own_name(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"{value.__name__}:"
    if isinstance(value, enum.Enum):
        return f"{_own_name(type(value))}.{value.name}"
    return f"{value.__module__}:{value.__qualname__}"


def _name(value: Any) -> str:
    """The name under which :func:`_find` gives back this very object."""
    if isinstance(value, _NAMED):
        name = _own_name(value)
        if _find(name) is value:
            return name
    raise _Stays(f"a value of type {type(value).__qualname__} cannot be written down")


_SINGLETONS = (None, True, False, Ellipsis, NotImplemented)


def _at(address: int, description: str) -> Any:
    """The object at an address. It is looked for by its description, because it may be dead by now."""
    for value in (*_SINGLETONS, *_HIDDEN_BUILTINS.values()):
        if id(value) == address:
            return value
    for value in _called(description):
        if id(value) == address:
            return value
    raise _Stays(f"{description} is an address of one process")


def _called(description: str) -> Iterator[Any]:
    """What ``a.b.c`` may be: a module, or an attribute of one that is loaded."""
    yield getattr(builtins, description, None)
    parts = description.split(".")
    for end in range(len(parts), 0, -1):
        found: Any = sys.modules.get(".".join(parts[:end]))
        try:
            for part in parts[end:]:
                found = getattr(found, part)
        except Exception:  # nothing there, or a module that raises when asked
            continue
        yield found


# -- values ------------------------------------------------------------------------------------------------------------


def _encode(value: Any) -> Any:
    """A value as JSON: itself where JSON has it, else ``{kind: what it is made of}``.

    Raises:
        _Stays: it cannot be written down.
    """
    kind = type(value)
    if value is None or kind in (bool, str) or (kind is int and abs(value) < 2**63):
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind in _VALUES:
        tag, write, _ = _VALUES[kind]
        return {tag: write(value)}
    if kind is TensorFacts:
        return {"tensor": [_encode(_at(value.type_id, value.type_name)), *map(_encode, value[1:])]}
    return {"object": _name(value)}


def _decode(data: Any) -> Any:
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise ValueError("a value is an array")
        return data
    ((tag, body),) = data.items()
    if tag == "object":
        return _find(body)
    if tag == "tensor":
        facts = [_decode(field) for field in body]
        return TensorFacts(id(facts[0]), *facts[1:])
    return _READERS[tag](body)


def _encode_all(values: Iterable[Any]) -> list[Any]:
    return [_encode(value) for value in values]


def _decode_all(data: list[Any]) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("an array is missing")
    return [_decode(item) for item in data]


def _encode_unordered(values: Iterable[Any]) -> list[Any]:
    return sorted(_encode_all(values), key=json.dumps)


def _encode_range(value: Any) -> list[Any]:
    return _encode_all((value.start, value.stop, value.step))


def _torch_name(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _torch_constant(name: str) -> Any:
    found = getattr(torch, name)
    if type(found) not in (torch.dtype, torch.layout, torch.memory_format):
        raise ValueError(f"torch.{name} is no constant")
    return found


def _global_state(text: str) -> Any:
    state = native.GlobalStateGuard()
    try:
        state.__setstate__(text)
    except RuntimeError as error:
        raise ValueError("the global state cannot be read") from error
    return state


#: For each exact type: its tag, what JSON says of a value, and how to make the value again.
_VALUES: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    int: ("int", hex, lambda text: int(text, 16)),
    float: ("float", repr, float),
    complex: ("complex", repr, complex),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    tuple: ("tuple", _encode_all, lambda data: tuple(_decode_all(data))),
    list: ("list", _encode_all, _decode_all),
    set: ("set", _encode_unordered, lambda data: set(_decode_all(data))),
    frozenset: ("frozenset", _encode_unordered, lambda data: frozenset(_decode_all(data))),
    dict: ("dict", lambda value: list(map(_encode_all, value.items())), lambda data: dict(map(_decode_all, data))),
    slice: ("slice", _encode_range, lambda data: slice(*_decode_all(data))),
    range: ("range", _encode_range, lambda data: range(*_decode_all(data))),
    torch.Size: ("size", _encode_all, lambda data: torch.Size(_decode_all(data))),
    torch.device: ("device", str, torch.device),
    torch.dtype: ("torch", _torch_name, _torch_constant),
    torch.layout: ("torch", _torch_name, _torch_constant),
    torch.memory_format: ("torch", _torch_name, _torch_constant),
    native.GlobalStateGuard: ("global state", lambda value: value.__getstate__(), _global_state),
}
_READERS = {tag: read for tag, _, read in _VALUES.values()}


# -- sources and guards ------------------------------------------------------------------------------------------------

#: What the key of an access must be; None for those that have none.
_KEYS: dict[Access, type | None] = {
    Access.LOCAL: str,
    Access.DICT_ITEM: object,
    Access.CONSTANT: object,
    Access.GLOBAL_WEAKREF: str,
    Access.ITEM: object,
    Access.ATTR: str,
    Access.GENERIC_ATTR: str,
    Access.CALL1: object,
    **dict.fromkeys((Access.LIST_ITEM, Access.TUPLE_ITEM, Access.SET_ITEM, Access.TUPLE_ITER_ITEM), int),
    **dict.fromkeys((Access.TENSOR_SIZE, Access.TENSOR_STRIDE, Access.DICT_KEY_AT, Access.DICT_VALUE_AT), int),
}

#: What the params of a test must be; those that are not listed have none.
_PARAMS: dict[Test, tuple[type, ...]] = {
    Test.TYPE_IS: (int, str),
    Test.IS: (int, str),
    Test.IS_NOT: (int, str),
    Test.IS_TARGET: (int, str),
    Test.EQUALS: (object,),
    Test.DEEP_EQUALS: (object,),
    Test.SAME_BITS: (object,),
    Test.LENGTH: (int, bool),
    Test.DICT_LENGTH: (int,),
    Test.TUPLE_ITER_LEN: (int, int),
    Test.RANGE_ITER: (int, int, int, int),
    Test.MAPPING_KEYS: (tuple,),
    Test.KEYS: (tuple,),
    Test.DICT_CONTAINS: (object, bool),
    Test.SET_CONTAINS: (object, bool),
    Test.NO_ATTR: (str,),
    Test.DUAL_LEVEL: (int,),
    Test.INFERENCE_MODE: (bool,),
    Test.DEFAULT_DEVICE: (object,),
    Test.GLOBAL_STATE: (native.GlobalStateGuard,),
    Test.MODE_STACK: (tuple,),
    Test.SAVED_HOOKS: (type(None), object),
    Test.DISPATCH_KEYS: (int,),
    Test.SCRIPT_TYPE: (int, str, type),
    Test.DIM_MARKING: (dict, list, dict),
    Test.DYNAMIC_INDICES: (str, set),
    Test.TENSOR: (TensorFacts,),
    Test.PREDICATE: (object, str),
    Test.SHAPE: (object, str),
    Test.OVERLAP: (int,),
    Test.EXPRESSION: (str,),
    Test.OPAQUE: (str,),
}

#: Which param is the address of an object, and which one describes it; None where no param does.
_ADDRESSES: dict[Test, tuple[int, int | None]] = {
    Test.TYPE_IS: (0, 1),
    Test.IS: (0, 1),
    Test.IS_NOT: (0, 1),
    Test.IS_TARGET: (0, 1),
    Test.SCRIPT_TYPE: (0, 1),
    Test.TUPLE_ITER_LEN: (1, None),
    Test.RANGE_ITER: (3, None),
}

#: Tests that mean something in one process only.
_STAYING = {
    Test.DICT_VERSION: "the version of a dict belongs to one process",
    Test.TORCH_LEAF: "a guard object of torch belongs to one process",
    Test.SHAPE_CALL: "the address of compiled code belongs to one process",
}

#: How many sources a test may have; those that are not listed have one.
_SOURCES: dict[Test, range] = {
    Test.SAME: range(2, 3),
    Test.UNIQUE: range(1, sys.maxsize),
    Test.OVERLAP: range(1, sys.maxsize),
    Test.UNIQUE_STORAGE: range(1, sys.maxsize),
    Test.SHARES_STORAGE: range(2, 3),
    Test.EXPRESSION: range(1, sys.maxsize),
    Test.OPAQUE: range(1, sys.maxsize),
}


def no_saved_hooks(_: object) -> bool:
    """What ``GuardBuilder.AUTOGRAD_SAVED_TENSORS_HOOKS`` asks when no hooks were set that it could inline."""
    return not saved_hooks.saved_tensors_hooks_are_inlineable(saved_hooks.top_saved_tensors_hooks())


def _encode_params(item: Guard) -> list[Any]:
    if item.test in _STAYING:
        raise _Stays(_STAYING[item.test])
    params = list(item.params)
    if item.test is Test.SAVED_HOOKS:
        if params[0] is not None:
            raise _Stays("the hooks are objects of one process")
        params[1] = no_saved_hooks
    if item.test is Test.EXPRESSION:  # torch's function, the other param, belongs to this process
        names = dict(zip(item.sources, numbered(len(item.sources)), strict=True))
        return [written(params[0], names.__getitem__)]
    if item.test is Test.IS_TARGET:
        target = params[0]()
        if target is None:
            raise _Stays("what it led to is gone")
        params[0] = id(target)
    if item.test in _ADDRESSES:
        at, described = _ADDRESSES[item.test]
        params[at] = _at(params[at], "" if described is None else params[described])
    return _encode_all(params)


def _decode_params(test: Test, data: list[Any]) -> tuple[Any, ...]:
    params = _decode_all(data)
    if test in _ADDRESSES:
        at, _ = _ADDRESSES[test]
        target, params[at] = params[at], id(params[at])
    wanted = _PARAMS.get(test, ())
    if len(params) != len(wanted) or not all(map(isinstance, params, wanted)):
        raise ValueError(f"{test.name} has wrong params")
    return (_reference(target), params[1]) if test is Test.IS_TARGET else tuple(params)


def _reference(target: Any) -> ref[Any]:
    try:
        return ref(target)
    except TypeError as error:
        raise ValueError(f"a {type(target).__name__} cannot be referred to weakly") from error


# Nodes whose values are neither numbers nor texts are interned by the identity of these values, and loading makes
# copies of them. So a node that was written and is still alive is used again if it still says the same: a round trip
# within one process gives equal sets.
_written: WeakValueDictionary[Any, Any] = WeakValueDictionary()


def _text(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


class _Writer:
    def __init__(self) -> None:
        self.sources: list[Any] = []
        self.indices: dict[Source, int] = {}
        self.staying: dict[Source, str] = {}
        self.stacks: dict[tuple[Any, ...], int] = {}

    def write(self, guard_set: GuardSet) -> str:
        rows = [self.guard(item, guard_set.provenance(item)) for item in guard_set]
        parts = {
            "unified_guards": VERSION,
            "torch": torch.__version__,
            "sources": self.sources,
            "stacks": list(self.stacks),
            "guards": rows,
        }
        body = ",\n".join(f"{json.dumps(name)}: {_lines(value)}" for name, value in parts.items())
        return f"{{{body}}}\n"

    def guard(self, item: Guard, makers: tuple[Provenance, ...]) -> list[Any]:
        provenance = [[maker.maker, maker.code, self.stack(maker.stack)] for maker in makers]
        try:
            params = _encode_params(item)
            sources = [self.source(source) for source in item.sources]
        except (_Stays, RecursionError) as reason:
            sources = [self.nearest(source) for source in item.sources]
            return [Test.OPAQUE.name, sources, [f"{_plain_text(item)}: {reason}"], provenance]
        _written[item.test.name, tuple(map(id, item.sources)), _text(params)] = item
        return [item.test.name, sources, params, provenance]

    def source(self, source: Source) -> int:
        """The index of a source in the table, its bases before it."""
        if source in self.indices:
            return self.indices[source]
        if source in self.staying:
            raise _Stays(self.staying[source])
        base = None if source.base is None else self.source(source.base)
        try:
            key = _encode(None if source.access is Access.GLOBALS else source.key)
        except _Stays as reason:
            self.staying[source] = str(reason)
            raise
        _written[source.access.name, id(source.base), _text(key)] = source
        self.sources.append([source.access.name, key, base])
        self.indices[source] = len(self.sources) - 1
        return self.indices[source]

    def nearest(self, source: Source) -> int:
        """The deepest source on the path that can be written down: the frame always can."""
        try:
            return self.source(source)
        except (_Stays, RecursionError):
            return self.nearest(source.base or Source.frame())

    def stack(self, stack: traceback.StackSummary | None) -> int | None:
        if stack is None:
            return None
        frames = tuple((frame.filename, frame.lineno, frame.name) for frame in stack)
        return self.stacks.setdefault(frames, len(self.stacks))


def _lines(value: Any) -> str:
    """One line for each row of a table."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[" + ",\n ".join(map(json.dumps, value)) + "]"


def _plain_text(item: Guard) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(item))
    except Exception:
        return item.test.name  # some value has a repr that raises


def dumps(guard_set: GuardSet) -> str:
    """The set as JSON text. Torch has nothing like it: its guards need the compiler's state to be written down.

    Args:
        guard_set: any set. A guard that only this process can check is written as ``Test.OPAQUE`` with the reason;
            captured globals are left out (see :func:`loads`).

    Returns:
        Text that :func:`loads` reads under the same version of torch.
    """
    return _Writer().write(guard_set)


class _Reader:
    def __init__(self, data: dict[str, Any]) -> None:
        self.stacks = [_stack(frames) for frames in data["stacks"]]
        self.sources: list[Source] = []
        self.staying: dict[int, str] = {}
        for row in data["sources"]:
            self.sources.append(self.source(*row))
        self.rows = data["guards"]

    def source(self, name: str, key: Any, base: int | None) -> Source:
        access = Access[name]
        if base is None:
            if access is not Access.FRAME or key is not None:
                raise ValueError("a source has no base")
            return Source.frame()
        below: Source = _at_index(self.sources, base)
        if base in self.staying:
            self.staying[len(self.sources)] = self.staying[base]
            return below
        known: Source | None = _written.get((name, id(below), _text(key)))
        if known is not None and known.base is below and _says(known.key, key):
            return known
        try:
            return below.child(access, _checked_key(access, _decode(key)))
        except _Stays as reason:
            self.staying[len(self.sources)] = str(reason)
            return below

    def entries(self) -> Iterator[tuple[Guard, Provenance]]:
        for name, indices, params, makers in self.rows:
            item = self.guard(Test[name], indices, params)
            if not makers:
                raise ValueError("a guard has no provenance")
            for maker, code, stack in makers:
                if not (isinstance(maker, str) and isinstance(code, str)):
                    raise ValueError("a provenance is not text")
                yield item, Provenance(maker, code, None if stack is None else _at_index(self.stacks, stack))

    def guard(self, test: Test, indices: list[int], params: list[Any]) -> Guard:
        sources = tuple(_at_index(self.sources, index) for index in indices)
        if len(sources) not in _SOURCES.get(test, range(1, 2)):
            raise ValueError(f"{test.name} has a wrong number of sources")
        try:
            for index in indices:
                if index in self.staying:
                    raise _Stays(self.staying[index])
            known: Guard | None = _written.get((test.name, tuple(map(id, sources)), _text(params)))
            if known is not None and known.sources == sources and _encode_params(known) == params:
                return known
            found = _decode_params(test, params)
            if test is Test.EXPRESSION:
                return expression(parse(found[0], dict(zip(numbered(len(sources)), sources, strict=True))))
            return guard(test, sources, found)
        except _Stays as reason:
            return guard(Test.OPAQUE, sources, (f"{test.name}: {reason}",))


def _says(value: Any, data: Any) -> bool:
    try:
        return bool(_encode(value) == data)
    except _Stays:
        return False


def _checked_key(access: Access, key: Any) -> Any:
    wanted = _KEYS.get(access)
    if (key is not None) if wanted is None else not isinstance(key, wanted):
        raise ValueError(f"{access.name} has a wrong key")
    return key


def _at_index(table: list[Any], index: int) -> Any:
    if type(index) is not int or not 0 <= index < len(table):
        raise ValueError("an index points outside of its table")
    return table[index]


def _stack(frames: list[list[Any]]) -> traceback.StackSummary:
    summaries = [traceback.FrameSummary(file, line, name, lookup_line=False) for file, line, name in frames]
    return traceback.StackSummary.from_list(summaries)


def loads(text: str) -> GuardSet:
    """The set that :func:`dumps` wrote.

    Args:
        text: what :func:`dumps` returned, under this version of torch: dispatch keys have other numbers in another.

    Returns:
        The set, in the same order and with the same provenance. Within one process it is equal to the one written, as
        long as that one could be written in full. Globals that were captured are gone: such a source stands for the
        globals given to ``semantics.evaluate``. A name that is not found here makes its guard ``Test.OPAQUE``.

    Raises:
        ValueError: the text is not a GuardSet of this version.
    """
    try:
        data = json.loads(text)
        found = data.get("unified_guards") if isinstance(data, dict) else None
        if found is None:
            raise ValueError("it has no format version")
        if found != VERSION:
            raise ValueError(f"it has format version {found}, and this is version {VERSION}")
        if data["torch"] != torch.__version__:
            raise ValueError(f"it was written with torch {data['torch']}, and this is torch {torch.__version__}")
        return GuardSet(_Reader(data).entries())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"this is not the JSON of a GuardSet that can be read here: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{error} is missing or not known" if isinstance(error, KeyError) else str(error)
