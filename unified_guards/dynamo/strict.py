"""What torch's own guards do not look at, as guards of the set: ``install(strict=True)``.

Torch leaves out on purpose, or overlooks, what a graph depends on: hooks of modules, methods of classes, dunders of
functions, the memory that inputs share, the order of an ``OrderedDict``, the difference between ``True`` and ``1`` in a
container and between ``0.0`` and ``-0.0``. Each rule here reads the set that was lifted and the live objects that it is
about, and yields guards that hold now; they only ever make more misses. Each guard goes behind one on the object that
it is about, so that the path to it is walked once. Entry point: :func:`with_extras`.
"""

from __future__ import annotations

import collections
import contextlib
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._guards import TracingContext

from unified_guards import _C
from unified_guards.dynamo.lift import described
from unified_guards.dynamo.provenance import is_barrier
from unified_guards.dynamo.tap import TENSOR_FACTS
from unified_guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.reference import follow

MAKER = "strict"


class Extra(NamedTuple):
    """A guard that torch does not have, the source in whose place it is checked, and why it is there."""

    guard: Guard
    place: Source
    why: str


class Live:
    """The objects that the sources of a set lead to now; each step is taken once."""

    def __init__(self, f_locals: dict[str, Any]) -> None:
        self.values: dict[Source, Any] = {Source.frame(): f_locals}

    def __call__(self, source: Source) -> Any:
        """The object; None, too, where there is none."""
        if source not in self.values:
            found = None
            with contextlib.suppress(Exception):  # whatever code of the user's raises on the way
                found = follow(source, self(source.base)) if source.base is not None else None
            self.values[source] = found
        return self.values[source]


class Known(NamedTuple):
    """What a rule can read."""

    guard_set: GuardSet
    live: Live
    code: types.CodeType  # of the frame
    traced: frozenset[int]  # addresses of the code objects that Dynamo inlined in it
    tensors: dict[str, Any]  # that torch guards, by torch's names of their sources
    call: Call | None
    mutated: list[bool] | None  # of the inputs of `call`, as far as is known; None when none is


# -- what the backend was given ----------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call of a backend: torch's names of the graph's inputs, and whether AOTAutograd had the result in its cache."""

    inputs: list[str | None]
    cached: bool


_calls: weakref.WeakKeyDictionary[TracingContext, Call] = weakref.WeakKeyDictionary()


def _input_names(graph_module: Any) -> list[str | None]:
    parameters = getattr(graph_module, "_param_name_to_source", None) or {}
    inputs = (node.meta.get("grapharg") for node in graph_module.graph.find_nodes(op="placeholder"))
    sources = [*parameters.values(), *(getattr(each, "source", None) for each in inputs)]
    return [getattr(source, "name", None) for source in sources]


def _hits() -> int:
    return int(counters["aot_autograd"]["autograd_cache_hit"])


def noting_calls(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """``OutputGraph.call_user_compiler``, with what the backend was given noted while ``wanted`` says so."""

    def call_user_compiler(self: Any, gm: Any, *args: Any, **kwargs: Any) -> Any:
        if not wanted():
            return original(self, gm, *args, **kwargs)
        inputs, before = _input_names(gm), _hits()
        result = original(self, gm, *args, **kwargs)
        _calls[self.tracing_context] = Call(inputs, _hits() != before)
        return result

    is_barrier(call_user_compiler)
    call_user_compiler.__doc__ = original.__doc__
    return call_user_compiler


def _mutated(context: TracingContext | None, call: Call | None) -> list[bool] | None:
    """Which inputs of the graph its compiled code writes to; all of them where that cannot be told.

    AOTAutograd counts inputs anew when it replaces some that share memory by their base, and says nothing of a result
    that it took from its cache. Without AOTAutograd the graph's own operators run, on whatever shares memory.
    """
    if call is None:
        return None
    metadata = getattr(context, "fw_metadata", None)
    if metadata is None:
        return [True] * len(call.inputs) if call.cached else None
    written = [info.mutates_data or info.mutates_storage_metadata for info in metadata.input_info]
    if not any(written):
        return None
    return written if len(written) == len(call.inputs) else [True] * len(call.inputs)


# -- hooks of modules --------------------------------------------------------------------------------------------------

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _kind(item: Guard) -> type | None:
    """The class that a guard says that its object is of."""
    if item.test is Test.TYPE_IS:
        found = _C.object_at(item.params[0])
        return found if isinstance(found, type) else None
    return type(_C.object_at(item.params[0])) if item.test is Test.IS else None


def _is_called(kind: Any) -> bool:
    """Whether this is a class of modules that can be called, as ModuleList and its kind cannot."""
    if kind is None or not issubclass(kind, nn.Module):
        return False
    return bool(kind.__call__ is not nn.Module.__call__ or kind.forward is not nn.Module.forward)


def hooks(known: Known) -> Iterator[Extra]:
    """That modules without hooks have none; hooks that there are, torch guards. Then those of all modules."""
    modules = dict.fromkeys(item.source for item in known.guard_set if _is_called(_kind(item)))
    for source in modules:
        if _is_of_the_frame(known, source):
            continue
        attributes = source.child(Access.GENERIC_DICT)
        for name in _HOOKS:
            place = attributes.child(Access.DICT_ITEM, name)
            if _is_empty(known.live(place)):
                yield Extra(guard(Test.DICT_LENGTH, (place,), (0,)), source, "hooks of a module")
    if not modules:
        return
    module = Source.frame().child(Access.CONSTANT, nn.modules.module).child(Access.GENERIC_DICT)
    for name in _HOOKS:
        place = module.child(Access.DICT_ITEM, f"_global{name}")
        keys = tuple(known.live(place))
        made = guard(Test.MAPPING_KEYS, (place,), (keys,)) if keys else guard(Test.DICT_LENGTH, (place,), (0,))
        yield Extra(made, place, "hooks of all modules")


def _is_of_the_frame(known: Known, source: Source) -> bool:
    """Whether this is the module whose ``forward`` the frame runs: who called it has run its hooks."""
    forward = getattr(type(known.live(source)), "forward", None)
    return source.access is Access.LOCAL and getattr(forward, "__code__", None) is known.code


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not dict.__len__(value)


# -- classes and functions ---------------------------------------------------------------------------------------------

_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
#: How Dynamo gets from the call of a module to its ``forward``, without tracing it.
_CALLS_FORWARD = (nn.Module.__call__, nn.Module._call_impl)
#: What wraps a function in a class, and the attribute that has it.
_WRAPPERS: dict[type, str] = {classmethod: "__func__", staticmethod: "__func__", property: "fget"}


def _mro(kind: type) -> tuple[type, ...]:
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


def _own(kind: type) -> Mapping[str, Any]:
    found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return found


def _same_object(source: Source, value: Any) -> Guard:
    return guard(Test.IS_TARGET, (source,), (weakref.ref(value), described(id(value))))


def _dunders(known: Known, source: Source, function: types.FunctionType, place: Source) -> Iterator[Extra]:
    """That a function that was inlined still has its code, and defaults that are constants."""
    place_of_code, code = source.child(Access.FUNC_CODE), function.__code__
    if guard(Test.IS, (place_of_code,), (id(code), described(id(code)))) not in known.guard_set:
        name = f"the code of {described(id(function))}"
        yield Extra(guard(Test.IS_TARGET, (place_of_code,), (weakref.ref(code), name)), place, "code of a function")
    for access, defaults in (
        (Access.FUNC_DEFAULTS, function.__defaults__),
        (Access.FUNC_KWDEFAULTS, function.__kwdefaults__),
    ):
        if defaults is not None and _is_constant(defaults):
            below = source.child(access)
            yield Extra(guard(Test.DEEP_EQUALS, (below,), (_copied(defaults),)), place, "defaults of a function")


def _copied(defaults: Any) -> Any:
    """Defaults by keyword are a dict, which may be changed in place."""
    return dict(defaults) if type(defaults) is dict else defaults


class _Methods:
    """The methods that Dynamo inlined, found in the classes that the set says objects are of."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.traced = known.traced
        self.done: set[tuple[Any, ...]] = set()

    def extras(self) -> Iterator[Extra]:
        for item in self.known.guard_set:
            if item.test is Test.TYPE_IS:
                yield from self._of(_C.object_at(item.params[0]), item.source.child(Access.TYPE), item.source)
            elif item.test is Test.IS and isinstance(_C.object_at(item.params[0]), type):
                yield from self._of(_C.object_at(item.params[0]), item.source, item.source)

    def _of(self, kind: type, source: Source, place: Source) -> Iterator[Extra]:
        if not self._first(kind):
            return
        mro = _mro(kind)
        where = [source, *(source.child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, at) for at in range(1, len(mro)))]
        dicts = [each.child(Access.TYPE_DICT) for each in where]
        for at, owner in enumerate(mro):
            for name, value in list(_own(owner).items()):
                function = self._inlined(value, issubclass(kind, nn.Module))
                if function is None:
                    continue
                yield from self._unshadowed(name, list(zip(mro[:at], dicts, strict=False)), place)
                if self._first(owner, name):
                    yield from self._method(dicts[at].child(Access.DICT_ITEM, name), value, function, place)

    def _first(self, *what: Any) -> bool:
        known = what in self.done
        self.done.add(what)
        return not known

    def _inlined(self, value: Any, of_a_module: bool) -> types.FunctionType | None:
        if type(value) in _WRAPPERS:
            value = getattr(value, _WRAPPERS[type(value)])
        if type(value) is not types.FunctionType:
            return None
        asked = id(value.__code__) in self.traced or (of_a_module and value in _CALLS_FORWARD)
        return value if asked else None

    def _unshadowed(self, name: str, before: list[tuple[type, Source]], place: Source) -> Iterator[Extra]:
        """That no class that is asked first has got a method of this name."""
        for owner, source in before:
            if name not in _own(owner) and not owner.__flags__ & _IMMUTABLE_TYPE and self._first(owner, name):
                yield Extra(guard(Test.DICT_CONTAINS, (source,), (name, False)), place, "a method of a class")

    def _method(self, source: Source, value: Any, function: types.FunctionType, place: Source) -> Iterator[Extra]:
        if type(value) in _WRAPPERS:
            source = source.child(Access.ATTR, _WRAPPERS[type(value)])
        yield Extra(_same_object(source, function), place, "a method of a class")
        yield from _dunders(self.known, source, function, place)


def methods(known: Known) -> Iterator[Extra]:
    """That classes have the methods that were inlined, and that these are as they were."""
    return _Methods(known).extras()


_FUNCTION_FIELDS = frozenset({Access.FUNC_CODE, Access.FUNC_DEFAULTS, Access.FUNC_KWDEFAULTS, Access.FUNC_CLOSURE})


def functions(known: Known) -> Iterator[Extra]:
    """The same of functions that the set reads something of."""
    sources: dict[Source, Source] = {}  # of functions, and a guarded one below each
    for item in known.guard_set:
        for source in item.sources:
            for step in source.steps():
                if step.access in _FUNCTION_FIELDS and step.base is not None:
                    sources.setdefault(step.base, item.source)
    for source, place in sources.items():
        function = known.live(source)
        function = getattr(function, "__func__", function)
        if type(function) is types.FunctionType and id(function.__code__) in known.traced:
            yield from _dunders(known, source, function, place)


# -- values ------------------------------------------------------------------------------------------------------------

_LEAVES = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), type, torch.dtype, torch.device})
#: Of these, none is equal to one of another type.
_ALONE = frozenset({str, bytes, type(None), type(...), type, torch.dtype, torch.device})
_CONTAINERS = (tuple, list, set, frozenset)


def _parts(value: Any) -> Iterable[Any] | None:
    """What a container holds; None where this is no container that is compared part by part."""
    kind = type(value)
    if kind is dict:
        return (*value.keys(), *value.values())
    if kind is slice:
        return (value.start, value.stop, value.step)
    return tuple.__iter__(value) if isinstance(value, tuple) else value if kind in _CONTAINERS else None


def _is_constant(value: Any) -> bool:
    parts = _parts(value)
    return type(value) in _LEAVES if parts is None else all(map(_is_constant, parts))


def _is_ambiguous(container: Any) -> bool:
    """Whether ``==`` may take other parts for these: True for 1, 0.0 for -0.0, a set for a frozenset, another order."""
    if type(container) is torch.Size:
        return False  # has nothing but exact integers
    parts = list(_parts(container) or ())
    return any(type(part) not in _ALONE for part in parts) or (type(container) is dict and len(container) > 1)


def _has_a_zero(value: Any) -> bool:
    return (type(value) is float and value == 0) or (type(value) is complex and 0 in (value.real, value.imag))


def values(known: Known) -> Iterator[Extra]:
    """That constants are the same to the last bit, and containers of them all the way down."""
    for item in known.guard_set:
        source = item.source
        if item.test is Test.FLOAT_NAN or item.test is Test.COMPLEX_NAN:
            value = known.live(source)
            if type(value) in (float, complex):
                yield Extra(guard(Test.SAME_BITS, (source,), (value,)), source, "the bits of a NaN")
        elif item.test is Test.EQUALS:
            (value,) = item.params
            if _has_a_zero(value):
                yield Extra(guard(Test.SAME_BITS, (source,), (value,)), source, "the sign of a zero")
            elif _is_ambiguous(value):
                yield Extra(guard(Test.DEEP_EQUALS, (source,), (value,)), source, "types within a container")


def orders(known: Known) -> Iterator[Extra]:
    """That an OrderedDict whose items are guarded by position is still in its own order."""
    by_position = {
        source.base
        for source in known.guard_set.sources()
        if source.access in (Access.DICT_KEY_AT, Access.DICT_VALUE_AT) and source.base is not None
    }
    for item in known.guard_set:
        kind = _kind(item) if item.source in by_position else None
        if kind is None or not issubclass(kind, collections.OrderedDict):
            continue
        by_position.discard(item.source)
        keys = tuple(known.live(item.source) or ())
        if all(map(_is_constant, keys)):
            made = guard(Test.MAPPING_KEYS, (item.source,), (keys,))
            yield Extra(made, item.source, "the order of an OrderedDict")


# -- memory ------------------------------------------------------------------------------------------------------------


class _Input(NamedTuple):
    guard: Guard  # the tensor's
    tensor: torch.Tensor
    written: bool

    @property
    def source(self) -> Source:
        return self.guard.source

    @property
    def is_static(self) -> bool:
        facts: TensorFacts = self.guard.params[0]
        return None not in facts.sizes + facts.strides


def _inputs(known: Known) -> Iterator[_Input]:
    """The inputs of the graph that are guarded tensors."""
    if known.call is None or known.mutated is None:
        return
    places: dict[int, Guard] = {}
    for item in known.guard_set:
        if item.test is Test.TENSOR:
            places.setdefault(id(known.live(item.source)), item)
    for name, written in zip(known.call.inputs, known.mutated, strict=True):
        tensor = known.tensors.get(name or "")
        place = places.get(id(tensor))
        if place is not None and _storage(tensor) is not None:
            yield _Input(place, tensor, written)


def _storage(tensor: Any) -> int | None:
    """Which memory a tensor is in; None where it has none, or keeps it to itself (sparse ones, some subclasses)."""
    if isinstance(tensor, torch.Tensor) and torch._C._has_storage(tensor):
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return int(torch.Tensor.untyped_storage(tensor)._cdata)
    return None


def memory(known: Known) -> Iterator[Extra]:
    """That inputs that are written to share memory with just those that they shared it with, in the same places.

    For the others nothing depends on it. One input stands for all that share a storage.
    """
    groups: dict[int | None, list[_Input]] = {}
    for each in _inputs(known):
        groups.setdefault(_storage(each.tensor), []).append(each)
    if not any(each.written for group in groups.values() for each in group):
        return
    first = tuple(group[0].source for group in groups.values())
    if len(first) > 1:
        yield Extra(guard(Test.UNIQUE_STORAGE, first), first[0], "inputs that are written to share no memory")
    for group in groups.values():
        yield from _of_one_storage(group)


def _of_one_storage(group: list[_Input]) -> Iterator[Extra]:
    for each in group[1:]:
        pair = (group[0].source, each.source)
        yield Extra(guard(Test.SHARES_STORAGE, pair), each.source, "inputs that are written to share memory")
    if len(group) == 1 or not any(each.written for each in group) or not all(each.is_static for each in group):
        return  # of symbolic sizes, torch guards where they overlap
    # AOTAutograd makes views of one tensor of them, and of where each begins and of that tensor's sizes, constants.
    for each in group:
        made = guard(Test.EQUALS, (each.source.child(Access.TENSOR_OFFSET),), (each.tensor.storage_offset(),))
        yield Extra(made, each.source, "where an input that is shared begins")
    view = next((each for each in group if each.tensor._base is not None), None)
    if view is not None:
        place = view.source.child(Access.ATTR, "_base")
        yield Extra(_tensor(place, view.tensor._base), view.source, "what shared inputs are views of")


def _tensor(source: Source, tensor: torch.Tensor) -> Guard:
    keys, dtype, device, requires_grad = _C.tensor_facts(tensor, None)
    kind = type(tensor)
    dims = (tuple(tensor.size()), tuple(tensor.stride()))
    names = (described(id(kind)), str(tensor.dtype).removeprefix("torch."))
    facts = TensorFacts(id(kind), keys, dtype, device, requires_grad, *dims, False, *names)
    return guard(Test.TENSOR, (source,), (facts,))


# -- all of it ---------------------------------------------------------------------------------------------------------

RULES: tuple[Callable[[Known], Iterator[Extra]], ...] = (hooks, methods, functions, values, orders, memory)


def _extras(known: Known) -> Iterator[Extra]:
    for rule in RULES:
        yield from rule(known)


def with_extras(guard_set: GuardSet, output_graph: Any, records: Iterable[Any]) -> GuardSet:
    """The set with the guards that torch leaves out.

    Args:
        guard_set: what was lifted of a frame.
        output_graph: Dynamo's of that frame, before its compiled code has run.
        records: what :func:`unified_guards.dynamo.tap.recording` collected while its guards were built.

    Returns:
        A set with the same guards in the same order and others between them, whose maker is ``"strict"``. The set
        itself where Dynamo keeps no context of the compilation: such code (ahead of time) is not looked up.
    """
    context = getattr(output_graph, "tracing_context", None)
    if context is None or not context.traced_code:
        return guard_set
    call = _calls.pop(context, None)
    tensors = {record[3]["tensor_name"]: record[3]["value"] for record in records if record[0] == TENSOR_FACTS}
    code, *inlined = context.traced_code
    live, traced = Live(output_graph.local_scope), frozenset(map(id, inlined))
    known = Known(guard_set, live, code, traced, tensors, call, _mutated(context, call))
    with torch._C.DisableTorchFunction():
        extras = list(_extras(known))
    return _placed(guard_set, extras)


def _placed(guard_set: GuardSet, extras: list[Extra]) -> GuardSet:
    waiting: dict[Source, list[tuple[Guard, Provenance]]] = {}
    for extra in {each.guard: each for each in reversed(extras)}.values():
        waiting.setdefault(extra.place, []).insert(0, (extra.guard, Provenance(MAKER, extra.why)))
    entries: list[tuple[Guard, Provenance]] = []
    for item, maker in guard_set.entries():
        entries.append((item, maker))
        entries += waiting.pop(item.source, ())
    for rest in waiting.values():
        entries += rest
    return GuardSet(entries)
