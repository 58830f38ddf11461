"""From the arguments of a call, and the state that it reads, to guards and the leaves of a graph.

A :class:`Lifting` walks values along their sources. Containers become guards on their structure; tensors, and integers
that are to be symbolic, become :class:`Leaf` objects, whose guards wait until the fake tensors say which dimensions are
symbolic; everything else becomes a constant. Entry points: :class:`Lifting`, :class:`Dimensions`.
"""

from __future__ import annotations

import collections
import enum
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from unified_guards import _C
from unified_guards.errors import Unguardable
from unified_guards.guards.accesses import MISSING
from unified_guards.guards.ir import Access, Guard, Provenance, Source, TensorFacts, Test, guard
from unified_guards.guards.memory import storage_of
from unified_guards.guards.names import name_at


class Role(enum.Enum):
    """What a leaf is to the graph. Parameters and buffers keep static shapes, as torch has it."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    ARGUMENT = "argument"
    CAPTURED = "captured"


class Leaf:
    """A value that goes into the graph: a tensor, or an integer that is to be symbolic.

    Attributes:
        source: where it is found.
        value: the real one.
        role: what it is to the graph.
        dynamic: of a tensor, which dimensions are to be symbolic.
        places: items of a module's dicts that hold it: while tracing they hold the traced one.
        fake: what it was converted to, once.
        maker: the provenance of its guards.
        absent: of a tensor, the attributes that the function asked for and that it does not have.
    """

    __slots__ = ("absent", "dynamic", "fake", "maker", "places", "role", "source", "value")

    def __init__(self, source: Source, value: Any, role: Role, dynamic: tuple[bool, ...], maker: Provenance) -> None:
        self.source = source
        self.value = value
        self.role = role
        self.dynamic = dynamic
        self.places: list[tuple[dict[str, Any], str]] = []
        self.fake: Any = None
        self.maker = maker
        self.absent: set[str] = set()


class Dimensions:
    """Which sizes and integers are symbolic: all (``dynamic=True``), none (False), or those that changed (None)."""

    def __init__(self, dynamic: bool | None) -> None:
        self.dynamic = dynamic
        self._sizes: dict[str, list[int | None]] = {}
        self._ints: dict[str, int | None] = {}

    def of_tensor(self, source: Source, value: torch.Tensor) -> tuple[bool, ...]:
        """For each dimension of the tensor at ``source``, whether it is to be symbolic."""
        sizes = tuple(value.shape)
        if self.dynamic is not None:
            return (self.dynamic,) * len(sizes)
        seen = self._sizes.get(str(source))
        if seen is None or len(seen) != len(sizes):
            self._sizes[str(source)] = list(sizes)
            return (False,) * len(sizes)
        for dim, size in enumerate(sizes):
            if seen[dim] != size:
                seen[dim] = None
        return tuple(size is None for size in seen)

    def of_int(self, source: Source, value: int) -> bool:
        """Whether the integer at ``source`` is to be symbolic. 0 and 1 never are, as in torch."""
        if value in (0, 1) or not -(2**62) < value < 2**62:
            return False
        if self.dynamic is not None:
            return self.dynamic
        seen = self._ints.setdefault(str(source), value)
        if seen != value:
            self._ints[str(source)] = None
        return seen != value


#: Compared by type and ``==``; immutable, and equal means interchangeable.
_EQUAL = frozenset({int, str, bytes, torch.dtype, torch.device, torch.layout, torch.memory_format})
_BITS = frozenset({float, complex})
_SINGLETONS = (None, True, False, Ellipsis, NotImplemented)
#: Of these, keys that are equal and of one type are interchangeable.
_EXACT_KEYS = frozenset({str, int, bool, bytes, type(None)})

#: Builds a value out of the traced leaves.
Template = Callable[[dict[Leaf, Any]], Any]


def is_constant(value: object) -> bool:
    """Whether ``value`` is immutable and stands for itself."""
    return type(value) in _EQUAL or type(value) in _BITS or any(value is known for known in _SINGLETONS)


def _is_plain(value: Any, depth: int = 8) -> bool:
    """Whether it is a constant, or made of constants."""
    if depth == 0 or is_constant(value):
        return depth > 0
    if type(value) is dict:
        return all(is_constant(key) and _is_plain(item, depth - 1) for key, item in value.items())
    return type(value) in (tuple, list) and all(_is_plain(item, depth - 1) for item in value)


def _is_same_plain(value: object, other: object) -> bool:
    return value is other or (type(value) is type(other) and repr(value) == repr(other))


def _slots_of(kind: type) -> list[str]:
    """The names of the slots of a class and its bases."""
    declared = [vars(base).get("__slots__", ()) for base in kind.__mro__ if base.__module__ != "builtins"]
    names = [name for slots in declared for name in ((slots,) if isinstance(slots, str) else slots)]
    return [name for name in names if name not in ("__dict__", "__weakref__") and not name.startswith("__")]


class _Flatten:
    """A pytree node of a registered class, as (children, context)."""

    def __init__(self, kind: type) -> None:
        self.node = pytree.SUPPORTED_NODES[kind]
        self.__name__ = f"flatten_{kind.__name__}"

    def __call__(self, value: Any) -> tuple[tuple[Any, ...], Any]:
        children, context = self.node.flatten_fn(value)
        return tuple(children), context


class _Inner:
    """The names of the inner tensors of a wrapper subclass, and its other metadata."""

    __name__ = "__tensor_flatten__"

    def __call__(self, value: Any) -> tuple[tuple[str, ...], Any]:
        names, metadata = value.__tensor_flatten__()
        return tuple(names), metadata


_inner = _Inner()
_flattens: dict[type, _Flatten] = {}


def flatten_function(kind: type) -> _Flatten:
    """One function for each class, so that equal sources are one source."""
    known = _flattens.get(kind)
    if known is None or known.node is not pytree.SUPPORTED_NODES[kind]:
        known = _flattens[kind] = _Flatten(kind)
    return known


def known_int(number: Any) -> int | None:
    """A size, if it is known: a symbolic one is known once something made it a constant."""
    if isinstance(number, torch.SymInt):
        found: int | None = number.node.maybe_as_int()
        return found
    return int(number)


def tensor_facts(value: torch.Tensor, sizes: Sequence[Any], strides: Sequence[Any]) -> TensorFacts:
    """What a tensor guard expects of ``value``; a symbolic size or stride is not guarded."""
    keys, dtype, device_index, requires_grad = _C.tensor_facts(value, None)
    kind = type(value)
    return TensorFacts(
        id(kind),
        keys,
        dtype,
        device_index,
        requires_grad,
        tuple(map(known_int, sizes)),
        tuple(map(known_int, strides)),
        False,
        name_at(id(kind)),
        str(value.dtype).removeprefix("torch."),
    )


def _strides(value: torch.Tensor) -> tuple[Any, ...]:
    if value.layout is not torch.strided:
        raise Unguardable(f"a tensor of layout {value.layout}")
    return tuple(value.stride())


class Deaths:
    """Told when an object that a guard knows by address is gone. Apart from the lifting, which must not live on."""

    def __init__(self) -> None:
        self.tell: Callable[[], None] | None = None

    def __call__(self, _: object) -> None:
        if self.tell is not None:
            self.tell()


class Lifting:
    """Collects what one call depends on.

    Args:
        dimensions: which sizes and integers are to be symbolic.
        static_arguments: how many of the tensors among the arguments, from the first, are not to be.

    Attributes:
        items: guards with their provenance, and leaves, in the order of their sources.
        leaves: each tensor once, however often it was found.
        inner: the tensors in those that are wrapper subclasses.
        relations: what holds between several sources.
        kept: objects that a guard knows by address, as weak references where they allow it.
        deaths: told when one of those is gone.
        beyond: lifts what is no leaf, no constant and no tree (:class:`unified_guards.aot.state.State`).
        mixed: a tensor that is an argument and was captured, too.
    """

    def __init__(self, dimensions: Dimensions, static_arguments: int = 0) -> None:
        self.dimensions = dimensions
        self.static_arguments = static_arguments
        self.items: list[tuple[Guard, Provenance] | Leaf] = []
        self.leaves: list[Leaf] = []
        self.inner: list[Leaf] = []
        self.relations: list[tuple[Guard, Provenance]] = []
        self.kept: dict[int, Any] = {}
        self.constants: set[int] = set()
        self.deaths = Deaths()
        self.mixed: Source | None = None
        self.beyond: Callable[[Any, Source, Provenance], None]
        self._leaf_of: dict[int, Leaf] = {}

    # -- guards ----------------------------------------------------------------------------------------------------

    def add(self, test: Test, source: Source, params: tuple[Any, ...], maker: Provenance) -> None:
        """Notes a guard on one source."""
        self.items.append((guard(test, (source,), params), maker))

    def is_type(self, value: object, source: Source, maker: Provenance) -> None:
        """The exact type of ``value``."""
        kind = type(value)
        self.keep(kind)
        self.add(Test.TYPE_IS, source, (id(kind), name_at(id(kind))), maker)

    def is_object(self, value: object, source: Source, maker: Provenance) -> None:
        """The identity of ``value``."""
        self.keep(value)
        self.constants.add(id(value))
        self.add(Test.IS, source, (id(value), name_at(id(value))), maker)

    def keep(self, value: object) -> None:
        """An address may not be given to another object while a guard knows it."""
        if id(value) not in self.kept:
            try:
                self.kept[id(value)] = weakref.ref(value, self.deaths)
            except TypeError:
                self.kept[id(value)] = value

    def constant(self, value: Any, source: Source, maker: Provenance) -> bool:
        """Guards a value that stands for itself; says whether it does."""
        if any(value is known for known in _SINGLETONS):
            self.add(Test.IS, source, (id(value), repr(value)), maker)
        elif type(value) in _BITS:
            self.add(Test.SAME_BITS, source, (value,), maker)
        elif type(value) in _EQUAL:
            self.add(Test.EQUALS, source, (value,), maker)
        else:
            return False
        return True

    # -- leaves ----------------------------------------------------------------------------------------------------

    def tensor(self, value: torch.Tensor, source: Source, role: Role, maker: Provenance) -> Leaf:
        """The leaf of a tensor; a second source of the same one is guarded to stay the same."""
        known = self._leaf_of.get(id(value))
        if known is not None:
            self.relations.append((guard(Test.SAME, (known.source, source)), maker))
            if known.role is Role.ARGUMENT and role is not Role.ARGUMENT:
                self.mixed = source
            return known
        if isinstance(value, FakeTensor) and not all(type(size) is int for size in value.shape):
            raise Unguardable(f"a fake tensor with symbolic sizes ({source})")
        static = role is Role.PARAMETER or role is Role.BUFFER or len(self._leaf_of) < self.static_arguments
        dims = (False,) * value.dim() if static else self.dimensions.of_tensor(source, value)
        leaf = self._leaf(source, value, role, dims, maker)
        self._leaf_of[id(value)] = leaf
        if is_traceable_wrapper_subclass(value):
            self._wrapper(value, source, role, maker)
        return leaf

    def _wrapper(self, value: Any, source: Source, role: Role, maker: Provenance) -> None:
        """What a wrapper subclass is beside its inner tensors: 1, True and 1.0 are not interchangeable here either."""
        try:
            names, metadata = _inner(value)
        except Exception as error:
            raise Unguardable(f"a {type(value).__qualname__} that cannot be taken apart ({source}): {error}") from error
        parts = source.child(Access.CALL1, _inner)
        self.add(Test.EQUALS, parts.child(Access.TUPLE_ITEM, 0), (names,), maker)
        self.exact(metadata, parts.child(Access.TUPLE_ITEM, 1), maker)
        for name in names:
            found, below = getattr(value, name), source.child(Access.ATTR, name)
            if isinstance(found, torch.Tensor):
                self.inner.append(Leaf(below, found, role, (), maker))
            if is_traceable_wrapper_subclass(found):
                self._wrapper(found, below, role, maker)
        inner = {name: getattr(value, name) for name in names}
        unflatten = type(value).__tensor_unflatten__
        self._attributes(value, lambda: unflatten(inner, metadata, value.size(), value.stride()), source, maker)

    def _leaf(self, source: Source, value: Any, role: Role, dims: tuple[bool, ...], maker: Provenance) -> Leaf:
        leaf = Leaf(source, value, role, dims, maker)
        self.leaves.append(leaf)
        self.items.append(leaf)
        return leaf

    def keep_ints(self) -> None:
        """Makes symbolic integers constants after all."""
        for leaf in self.leaves:
            if not isinstance(leaf.value, torch.Tensor):
                leaf.fake = leaf.value
        self.leaves = [leaf for leaf in self.leaves if isinstance(leaf.value, torch.Tensor)]

    def known_leaf(self, value: object) -> Leaf | None:
        """The leaf that was made of this very object."""
        return self._leaf_of.get(id(value))

    # -- arguments -------------------------------------------------------------------------------------------------

    def argument(self, value: Any, source: Source, maker: Provenance) -> Template:
        """Lifts an argument, of any structure, and says how to build it again out of traced leaves."""
        if isinstance(value, torch.Tensor):
            leaf = self.tensor(value, source, Role.ARGUMENT, maker)
            return lambda traced: traced[leaf]
        kind = type(value)
        if kind is int and self.dimensions.of_int(source, value):
            self.is_type(value, source, maker)
            number = self._leaf(source, value, Role.ARGUMENT, (), maker)
            return lambda traced: traced.get(number, value)
        if self.constant(value, source, maker):
            return lambda traced: value
        if isinstance(value, tuple) or kind is list:
            return self._sequence(value, source, maker)
        if kind is dict or kind is collections.OrderedDict:
            return self._mapping(value, source, maker)
        if kind in pytree.SUPPORTED_NODES:
            return self._node(value, source, maker)
        self.beyond(value, source, maker)
        return lambda traced: value

    def _sequence(self, value: Any, source: Source, maker: Provenance) -> Template:
        kind = type(value)
        self.is_type(value, source, maker)
        self.add(Test.LENGTH, source, (len(value), True), maker)
        access = Access.LIST_ITEM if kind is list else Access.TUPLE_ITEM
        parts = [self.argument(item, source.child(access, at), maker) for at, item in enumerate(value)]
        if kind is tuple:
            return lambda traced: tuple([part(traced) for part in parts])
        if kind is list:
            return lambda traced: [part(traced) for part in parts]
        self._no_attributes(value, source, maker)
        if hasattr(kind, "_make"):
            return lambda traced: kind._make(part(traced) for part in parts)
        return lambda traced: kind([part(traced) for part in parts])

    def _mapping(self, value: Any, source: Source, maker: Provenance) -> Template:
        kind, keys = type(value), list(value)
        self.keys(value, source, maker)
        self._no_attributes(value, source, maker)
        order = {id(key): at for at, key in enumerate(dict.keys(value))}
        parts = [self.argument(value[key], self.item_source(source, key, order[id(key)]), maker) for key in keys]
        return lambda traced: kind(zip(keys, [part(traced) for part in parts], strict=True))

    def _no_attributes(self, value: Any, source: Source, maker: Provenance) -> None:
        """A tuple or dict of a class that can have attributes is built again without any."""
        names = getattr(value, "__dict__", None)
        if names:
            raise Unguardable(f"a {type(value).__qualname__} with attributes beside its items ({source})")
        if names is not None:
            self.add(Test.DICT_LENGTH, source.child(Access.GENERIC_DICT), (0,), maker)

    def keys(self, value: dict[Any, Any], source: Source, maker: Provenance) -> None:
        """The exact class and the exact keys of a dict, in order."""
        kind, keys = type(value), tuple(dict.keys(value))
        for key in keys:
            self.keep(key)
        if kind is not dict:
            self.is_type(value, source, maker)
        if kind is collections.OrderedDict:  # in an order of its own
            self.add(Test.MAPPING_KEYS, source, (tuple(value),), maker)
        if kind is dict and all(type(key) in _EXACT_KEYS for key in keys):
            self.add(Test.KEYS, source, (keys,), maker)
            return
        if kind is dict:
            self.is_type(value, source, maker)
        self.add(Test.DICT_LENGTH, source, (len(keys),), maker)
        for at, key in enumerate(keys):
            self.exact(key, source.child(Access.DICT_KEY_AT, at), maker)

    def item_source(self, source: Source, key: Any, at: int) -> Source:
        """Where the value of a key is, the ``at``-th in the dict's own order."""
        if type(key) is str:
            return source.child(Access.DICT_ITEM, key)
        return source.child(Access.DICT_VALUE_AT, at)

    def exact(self, value: Any, source: Source, maker: Provenance) -> None:
        """Plain data, compared by type all the way down; other objects by ``==`` where they define it."""
        if self.constant(value, source, maker):
            return
        self.is_type(value, source, maker)
        if type(value) in (tuple, list):
            self.add(Test.LENGTH, source, (len(value), True), maker)
            access = Access.LIST_ITEM if type(value) is list else Access.TUPLE_ITEM
            for at, item in enumerate(value):
                self.exact(item, source.child(access, at), maker)
        elif type(value) is dict:
            self.keys(value, source, maker)
            for at, (key, item) in enumerate(value.items()):
                self.exact(item, self.item_source(source, key, at), maker)
        else:
            self.keep(value)
            self.add(Test.EQUALS, source, (value,), maker)

    def parts(self, value: Any, names: tuple[str, ...], source: Source, maker: Provenance) -> None:
        """An immutable object that is what its attributes are: a slice, a range."""
        self.constants.add(id(value))
        self.is_type(value, source, maker)
        for name in names:
            self.exact(getattr(value, name), source.child(Access.ATTR, name), maker)

    def _node(self, value: Any, source: Source, maker: Provenance) -> Template:
        """An instance of a class that is registered with pytree: its own function takes it apart, on every call."""
        flatten = flatten_function(type(value))
        children, context = flatten(value)
        self.is_type(value, source, maker)
        flat = source.child(Access.CALL1, flatten)
        self.exact(context, flat.child(Access.TUPLE_ITEM, 1), maker)
        items = flat.child(Access.TUPLE_ITEM, 0)
        self.add(Test.LENGTH, items, (len(children), True), maker)
        parts = [self.argument(child, items.child(Access.TUPLE_ITEM, at), maker) for at, child in enumerate(children)]
        unflatten = flatten.node.unflatten_fn
        self._attributes(value, lambda: unflatten(list(children), context), source, maker)
        return lambda traced: unflatten([part(traced) for part in parts], context)

    def _attributes(self, value: Any, rebuild: Callable[[], Any], source: Source, maker: Provenance) -> None:
        """While tracing, an instance is one that was built again: it must have no attribute that this loses."""
        names, slots = getattr(value, "__dict__", None), _slots_of(type(value))
        if type(names) is not dict and not slots:
            return
        try:
            made = rebuild()
        except Exception as error:
            raise Unguardable(f"a {type(value).__qualname__} that cannot be built again ({source}): {error}") from error
        if type(names) is dict:
            below = source.child(Access.GENERIC_DICT)
            self.keys(names, below, maker)
            for at, name in enumerate(names):
                found = names[name], vars(made).get(name, MISSING)
                self._attribute(value, *found, self.item_source(below, name, at), maker)
            if len(vars(made)) != len(names):
                raise Unguardable(f"a {type(value).__qualname__} without some attribute of its own ({source})")
        for name in slots:
            found = getattr(value, name, MISSING), getattr(made, name, MISSING)
            self._attribute(value, *found, source.child(Access.ATTR, name), maker)

    def _attribute(self, value: Any, own: Any, other: Any, source: Source, maker: Provenance) -> None:
        if own is MISSING or other is MISSING or (_is_plain(own) and not _is_same_plain(own, other)):
            raise Unguardable(f"a {type(value).__qualname__} with an attribute of its own ({source})")
        if _is_plain(own):
            self.exact(own, source, maker)

    # -- after tracing ---------------------------------------------------------------------------------------------

    def leaf_guards(self, leaf: Leaf) -> list[tuple[Guard, Provenance]]:
        """The guards of a leaf, whose fake counterpart says which dimensions are symbolic."""
        value, source = leaf.value, leaf.source
        if not isinstance(value, torch.Tensor):
            constant = known_int(leaf.fake)
            return [] if constant is None else [(guard(Test.EQUALS, (source,), (constant,)), leaf.maker)]
        facts = tensor_facts(value, leaf.fake.size(), leaf.fake.stride())
        found = [(guard(Test.TENSOR, (source,), (facts,)), leaf.maker)]
        found += [(guard(Test.NO_ATTR, (source,), (name,)), leaf.maker) for name in sorted(leaf.absent)]
        if isinstance(value, FakeTensor):
            mode, device = source.child(Access.ATTR, "fake_mode"), source.child(Access.ATTR, "fake_device")
            self.keep(value.fake_mode)
            found.append((guard(Test.IS, (mode,), (id(value.fake_mode), "that FakeTensorMode")), leaf.maker))
            found.append((guard(Test.EQUALS, (device,), (value.fake_device,)), leaf.maker))
        if is_traceable_wrapper_subclass(value):
            self._inner_guards(value, leaf.fake, source, leaf.maker, found)
        return found

    def _inner_guards(
        self, value: Any, fake: Any, source: Source, maker: Provenance, found: list[tuple[Guard, Provenance]]
    ) -> None:
        for name in _inner(value)[0]:
            inner, inner_fake = getattr(value, name), getattr(fake, name)
            if not isinstance(inner, torch.Tensor):
                continue
            below = source.child(Access.ATTR, name)
            facts = tensor_facts(inner, inner_fake.size(), inner_fake.stride())
            found.append((guard(Test.TENSOR, (below,), (facts,)), maker))
            if is_traceable_wrapper_subclass(inner):
                self._inner_guards(inner, inner_fake, below, maker, found)

    def entries(self) -> list[tuple[Guard, Provenance]]:
        """Every guard on one source, in order. The leaves have their fakes."""
        return list(
            itertools.chain.from_iterable(
                self.leaf_guards(item) if isinstance(item, Leaf) else (item,) for item in self.items
            )
        )


def memory_of(value: torch.Tensor) -> int:
    """What tensors that share memory have in common; of one without memory its own address."""
    return storage_of(value) or id(value)


def _sharing(leaves: list[Leaf]) -> list[Leaf]:
    """Those that share memory with another."""
    owners = {leaf: memory_of(leaf.value) for leaf in leaves if isinstance(leaf.value, torch.Tensor)}
    counts = collections.Counter(owners.values())
    return [leaf for leaf, owner in owners.items() if counts[owner] > 1]


def shares_memory(leaves: list[Leaf]) -> bool:
    """Whether any two do."""
    return bool(_sharing(leaves))


def keep_shared_memory_static(leaves: list[Leaf]) -> None:
    """Whether two parts of one memory overlap follows from their sizes: these are not made symbolic."""
    for leaf in _sharing(leaves):
        leaf.dynamic = (False,) * len(leaf.dynamic)


def check_supported(value: torch.Tensor, source: Source) -> None:
    """Raises :class:`Unguardable` for a tensor whose metadata cannot be guarded."""
    try:
        _strides(value)
    except RuntimeError:
        raise Unguardable(f"a tensor without strides ({source})") from None
