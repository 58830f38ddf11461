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
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._guards import TracingContext

from unified_guards import _C
from unified_guards.dynamo import compat, lookups
from unified_guards.dynamo.extras import (
    WRAPPERS,
    Call,
    Dims,
    Extra,
    Known,
    Layout,
    Live,
    can_change,
    is_constant,
    mro_of,
    order_of,
    own_of,
    parts,
    same_object,
)
from unified_guards.dynamo.lift import described
from unified_guards.dynamo.provenance import is_barrier
from unified_guards.dynamo.reads import taken
from unified_guards.dynamo.tap import TENSOR_FACTS
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard

MAKER = "strict"


# -- what the backend was given ----------------------------------------------------------------------------------------


_calls: weakref.WeakKeyDictionary[TracingContext, Call] = weakref.WeakKeyDictionary()


class _Given(NamedTuple):
    """An input of the graph: torch's name of its source, the tensor, and what the graph has in its place."""

    name: str | None
    tensor: Any
    fake: Any


def _given(graph_module: Any) -> list[_Given]:
    parameters = getattr(graph_module, "_param_name_to_source", None) or {}
    own = dict(graph_module.named_parameters()) | dict(graph_module.named_buffers()) if parameters else {}
    found = [_Given(getattr(source, "name", None), own.get(name), None) for name, source in parameters.items()]
    for node in graph_module.graph.find_nodes(op="placeholder"):
        argument, fake = node.meta.get("grapharg"), node.meta.get("example_value")
        tensor = getattr(argument, "example", None)
        found.append(_Given(getattr(getattr(argument, "source", None), "name", None), tensor, fake))
    return found


def _fixed(number: Any) -> int | None:
    """A number of the graph; None for a symbol: torch guards what depends on that."""
    return number if type(number) is int else number.node.maybe_as_int()


def _dims_of(fake: Any) -> Dims | None:
    """What the graph has made constants of where a tensor is in memory; None where it is not in memory."""
    if not isinstance(fake, torch.Tensor) or _storage(fake) is None:
        return None
    sizes, strides = (tuple(map(_fixed, each)) for each in (fake.size(), fake.stride()))
    return Dims(sizes, strides, _fixed(fake.storage_offset()))


def _layouts(given: list[_Given]) -> dict[str | None, Layout]:
    found = {}
    for each in given:
        own = _dims_of(each.fake)
        if own is not None:
            found[each.name] = Layout(own, _dims_of(each.fake._base))
    return found


#: What is traced with these depends on where a tensor begins in its memory.
_OFFSET_READERS = frozenset({"storage_offset", "as_strided", "as_strided_"})


def _reads_offsets(context: TracingContext | None) -> bool:
    codes = getattr(context, "traced_code", None) or ()
    return any(not _OFFSET_READERS.isdisjoint(code.co_names) for code in codes)


def _pattern(given: list[_Given], reads_offsets: bool) -> str:
    """Which inputs share memory, and how: what compiled code depends on and no key of torch's caches says.

    Empty where no input shares memory with another and none is read by its place in memory: others keep the keys that
    they have without us.
    """
    groups: dict[int | None, list[int]] = {}
    for at, each in enumerate(given):
        groups.setdefault(_storage(each.tensor), []).append(at)
    groups.pop(None, None)
    shared = [group for group in groups.values() if len(group) > 1 or reads_offsets]
    return ";".join(",".join(f"{at}:{_memory_of(given[at].tensor)}" for at in group) for group in shared)


def _memory_of(tensor: torch.Tensor) -> str:
    base = tensor._base
    of = f" of {bytes_of_storage(tensor)} bytes"
    if base is not None:
        of += f" of {tuple(base.size())}{tuple(base.stride())}{base.storage_offset()}{base.dtype}"
    return f"{tensor.storage_offset()}{tuple(tensor.size())}{tuple(tensor.stride())}{tensor.dtype}{of}"


def _hits() -> int:
    return int(counters["aot_autograd"]["autograd_cache_hit"])


def noting_calls(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """``OutputGraph.call_user_compiler``, with what the backend was given noted while ``wanted`` says so.

    What a strict guard tells apart must not come out of a cache of torch's as the same.
    """

    def call_user_compiler(self: Any, gm: Any, *args: Any, **kwargs: Any) -> Any:
        if not wanted():
            return original(self, gm, *args, **kwargs)
        given, before, reads_offsets = _given(gm), _hits(), _reads_offsets(self.tracing_context)
        inputs, layouts = [each.name for each in given], _layouts(given)
        pattern = _pattern(given, reads_offsets)
        del given  # keeps tensors alive
        with compat.caches_apart(pattern) if pattern else contextlib.nullcontext():
            result = original(self, gm, *args, **kwargs)
        _calls[self.tracing_context] = Call(inputs, _hits() != before, layouts, reads_offsets)
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

#: How Dynamo gets from the call of a module to its ``forward``, without tracing it.
_CALLS_FORWARD = (nn.Module.__call__, nn.Module._call_impl)


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
        if defaults is not None and is_constant(defaults):
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

    def extras(self) -> Iterator[Extra]:
        for item in self.known.guard_set:
            if item.test is Test.TYPE_IS:
                yield from self._of(_C.object_at(item.params[0]), item.source.child(Access.TYPE), item.source)
            elif item.test is Test.IS and isinstance(_C.object_at(item.params[0]), type):
                yield from self._of(_C.object_at(item.params[0]), item.source, item.source)

    def _of(self, kind: type, source: Source, place: Source) -> Iterator[Extra]:
        if not self.known.first(kind):
            return
        yield from order_of(kind, source, place, self.known)
        mro = mro_of(kind)
        where = [source, *(source.child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, at) for at in range(1, len(mro)))]
        dicts = [each.child(Access.TYPE_DICT) for each in where]
        for at, owner in enumerate(mro):
            for name, value in list(own_of(owner).items()):
                function = self._inlined(value, issubclass(kind, nn.Module))
                if function is None:
                    continue
                yield from self._unshadowed(name, list(zip(mro[:at], dicts, strict=False)), place)
                if self.known.first(owner, name):
                    yield from self._method(dicts[at].child(Access.DICT_ITEM, name), value, function, place)

    def _inlined(self, value: Any, of_a_module: bool) -> types.FunctionType | None:
        if type(value) in WRAPPERS:
            value = getattr(value, WRAPPERS[type(value)])
        if type(value) is not types.FunctionType:
            return None
        asked = id(value.__code__) in self.traced or (of_a_module and value in _CALLS_FORWARD)
        return value if asked else None

    def _unshadowed(self, name: str, before: list[tuple[type, Source]], place: Source) -> Iterator[Extra]:
        """That no class that is asked first has got a method of this name."""
        for owner, source in before:
            if name not in own_of(owner) and can_change(owner) and self.known.first(owner, name):
                yield Extra(guard(Test.DICT_CONTAINS, (source,), (name, False)), place, "a method of a class")

    def _method(self, source: Source, value: Any, function: types.FunctionType, place: Source) -> Iterator[Extra]:
        if type(value) in WRAPPERS:
            source = source.child(Access.ATTR, WRAPPERS[type(value)])
        yield Extra(same_object(source, function), place, "a method of a class")
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

#: Of these, none is equal to one of another type.
_ALONE = frozenset({str, bytes, type(None), type(...), type, torch.dtype, torch.device})


def _is_ambiguous(container: Any) -> bool:
    """Whether ``==`` may take other parts for these: True for 1, 0.0 for -0.0, a set for a frozenset, another order."""
    if type(container) is torch.Size:
        return False  # has nothing but exact integers
    held = list(parts(container) or ())
    return any(type(part) not in _ALONE for part in held) or (type(container) is dict and len(container) > 1)


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
        if all(map(is_constant, keys)):
            made = guard(Test.MAPPING_KEYS, (item.source,), (keys,))
            yield Extra(made, item.source, "the order of an OrderedDict")


# -- memory ------------------------------------------------------------------------------------------------------------


class _Input(NamedTuple):
    guard: Guard  # the tensor's
    tensor: torch.Tensor
    written: bool
    layout: Layout | None  # what the graph has made constants

    @property
    def source(self) -> Source:
        return self.guard.source


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
            yield _Input(place, tensor, written, known.call.layout(name))


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
        if known.call is not None and known.call.cached and len(group) > 1:
            yield from _overlap(group)


def _of_one_storage(group: list[_Input]) -> Iterator[Extra]:
    for each in group[1:]:
        pair = (group[0].source, each.source)
        yield Extra(guard(Test.SHARES_STORAGE, pair), each.source, "inputs that are written to share memory")
    if len(group) == 1 or not any(each.written for each in group):
        return
    # AOTAutograd makes views of one tensor of them, and of where each begins and of that tensor's sizes, constants;
    # where these are symbols torch guards them, and where the inputs overlap.
    for each in group:
        yield from _beginning(each.source, each.tensor, each.layout.own if each.layout else None)
    view = next((each for each in group if each.tensor._base is not None), None)
    if view is None:
        yield _bytes(group[0])
    else:
        place, base = view.source.child(Access.ATTR, "_base"), view.tensor._base
        dims = view.layout.base if view.layout else None
        yield Extra(_tensor(place, base, dims), view.source, "what shared inputs are views of")
        yield from _beginning(place, base, dims)


def _beginning(source: Source, tensor: torch.Tensor, dims: Dims | None) -> Iterator[Extra]:
    if dims is None or dims.offset is not None:
        made = guard(Test.EQUALS, (source.child(Access.TENSOR_OFFSET),), (tensor.storage_offset(),))
        yield Extra(made, source, "where an input that is shared begins")


def _bytes(given: _Input) -> Extra:
    """AOTAutograd makes one tensor of the whole memory where inputs that share it are views of none."""
    place = given.source.child(Access.CALL1, bytes_of_storage)
    made = guard(Test.EQUALS, (place,), (bytes_of_storage(given.tensor),))
    return Extra(made, given.source, "the memory that inputs share")


def bytes_of_storage(tensor: torch.Tensor) -> int:
    return int(torch.Tensor.untyped_storage(tensor).nbytes())


def _overlap(group: list[_Input]) -> Iterator[Extra]:
    """What torch guards when AOTAutograd compiles, and not when the result comes from its cache."""
    tensors = [each.tensor for each in group]
    touching = torch._C._dynamo.guards.compute_overlapping_tensors(tensors, symbolic=True)
    order = sorted(range(len(group)), key=lambda at: at not in touching)
    made = guard(Test.OVERLAP, tuple(group[at].source for at in order), (len(touching),))
    yield Extra(made, group[0].source, "where inputs that are written to overlap")


def offsets(known: Known) -> Iterator[Extra]:
    """Where tensors begin, when what was traced depends on it by itself."""
    if known.call is None or not known.call.reads_offsets:
        return
    tensors = {id(tensor): name for name, tensor in known.tensors.items() if _storage(tensor) is not None}
    for item in known.guard_set:
        tensor = known.live(item.source) if item.test is Test.TENSOR else None
        if id(tensor) in tensors:
            layout = known.call.layout(tensors[id(tensor)])
            yield from _beginning(item.source, tensor, layout.own if layout else None)


def _tensor(source: Source, tensor: torch.Tensor, known: Dims | None) -> Guard:
    keys, dtype, device, requires_grad = _C.tensor_facts(tensor, None)
    kind = type(tensor)
    sizes = known.sizes if known else tuple(tensor.size())
    strides = known.strides if known else tuple(tensor.stride())
    names = (described(id(kind)), str(tensor.dtype).removeprefix("torch."))
    facts = TensorFacts(id(kind), keys, dtype, device, requires_grad, sizes, strides, False, *names)
    return guard(Test.TENSOR, (source,), (facts,))


# -- all of it ---------------------------------------------------------------------------------------------------------

RULES: tuple[Callable[[Known], Iterator[Extra]], ...] = (
    hooks,
    methods,
    functions,
    values,
    orders,
    memory,
    offsets,
    *lookups.RULES,
)


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
    known = Known(
        guard_set=guard_set,
        live=live,
        code=code,
        f_globals=output_graph.global_scope,
        traced=traced,
        tensors=tensors,
        call=call,
        mutated=_mutated(context, call),
        reads=taken(context),
        resolve=output_graph.resolve_source_value,
        done=set(),
    )
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
