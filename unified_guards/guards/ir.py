"""The GuardSet: what must hold for compiled code to be reused, as a value of its own.

A *source* is a path to an object (``L['self'].__dict__['training']``); a *guard* is a predicate over one or more
sources. Both are immutable and interned: two that say the same are one object, so equality is identity. A
:class:`GuardSet` is the ordered set of guards of one cache entry, each with its provenance. Entry points:
:meth:`Source.frame` and :meth:`Source.child`, then :func:`guard`, then :class:`GuardSet`. Written by
``dynamo/lift.py`` and ``aot/fx_guards.py``; ``pipeline.py`` shows who reads it.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from weakref import ref

from unified_guards.guards.names import place


class _Texts(enum.Enum):
    """An enum whose members carry a text; two members may have the same one."""

    text: str

    def __new__(cls, text: str) -> _Texts:
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        member.text = text
        return member

    __hash__ = object.__hash__  # members are singletons; Enum's own hashes the name, in Python


class Access(_Texts):
    """How a source is reached from its base. In the text ``{b}`` is the text of the base, ``{k}`` the key."""

    FRAME = ""  # the frame itself: the dict of its locals
    LOCAL = "L[{k!r}]"
    GLOBALS = "G"  # key: the dict; whatever the base
    DICT_ITEM = "{b}[{k!r}]"  # dict.__getitem__, no overrides
    CONSTANT = "<{k}>"  # key: the value
    GLOBAL_WEAKREF = "{b}[{k!r}]()"
    WEAKREF_CALL = "{b}()"
    ITEM = "{b}[{k!r}]"  # operator.getitem, overrides honoured
    LIST_ITEM = "{b}[{k!r}]"
    TUPLE_ITEM = "{b}[{k!r}]"
    SET_ITEM = "list({b})[{k!r}]"
    ATTR = "{b}.{k}"
    GENERIC_ATTR = "object.__getattribute__({b}, {k!r})"
    GENERIC_DICT = "{b}.__dict__"
    TYPE = "type({b})"
    TYPE_DICT = "{b}.__dict__"
    TYPE_MRO = "{b}.__mro__"
    FUNC_DEFAULTS = "{b}.__defaults__"
    FUNC_KWDEFAULTS = "{b}.__kwdefaults__"
    FUNC_CODE = "{b}.__code__"
    FUNC_CLOSURE = "{b}.__closure__"
    TUPLE_ITER_ITEM = "next({b}, skip={k})"
    GRAD = "{b}.grad"
    TENSOR_SIZE = "{b}.size()[{k}]"
    TENSOR_STRIDE = "{b}.stride()[{k}]"
    TENSOR_OFFSET = "{b}.storage_offset()"
    CALL0 = "{b}()"
    CALL1 = "{k}({b})"  # key: a callable of the base
    DICT_KEY_AT = "list({b})[{k}]"
    DICT_VALUE_AT = "list({b}.values())[{k}]"


#: How the numbers of a tensor are reached, by the method that reads them.
TENSOR_NUMBERS = {
    "size": Access.TENSOR_SIZE,
    "stride": Access.TENSOR_STRIDE,
    "storage_offset": Access.TENSOR_OFFSET,
}


class Test(_Texts):
    """What a guard asks of its sources.

    In the text ``{0}`` is the first source, ``{p}`` the parameters, ``{w}`` these in words.
    """

    EXISTS = "{0} exists"
    TYPE_IS = "type({0}) is {p[1]}"  # (address, name)
    IS = "{0} is {p[1]}"  # (address, description)
    IS_NOT = "{0} is not {p[1]}"  # (address, description)
    IS_TARGET = "{0} is {p[1]}"  # (weak reference, description): no other object can take the place of a dead one
    EQUALS = "{0} == {p[0]!r}"  # (value,): the same object, or of exactly its type and ==
    DEEP_EQUALS = "{0} is exactly {p[0]!r}"  # (value,): the same types all the way down, floats bit by bit
    SAME_BITS = "{0} == {p[0]!r} bit by bit"  # (float or complex,)
    LENGTH = "len({0}) == {p[0]}"  # (length, whether sets are measured without overrides)
    DICT_LENGTH = "dict.__len__({0}) == {p[0]}"  # (length,)
    TUPLE_ITER_LEN = "length_hint({0}) == {p[0]}"  # (items left, type address)
    RANGE_ITER = "{0} == iter(range({p[0]}, {p[1]}, {p[2]}))"  # (start, stop, step, type address)
    MAPPING_KEYS = "list({0}.keys()) == {p[0]!r}"  # (tuple of keys,)
    KEYS = "list({0}) is {p[0]!r}, in order"  # (tuple of keys,): an exact dict with exactly these
    DICT_CONTAINS = "({p[0]!r} in {0}) is {p[1]}"  # (key, expected)
    SET_CONTAINS = "({p[0]!r} in {0}) is {p[1]}"  # (item, expected)
    NO_ATTR = "not hasattr({0}, {p[0]!r})"  # (name,)
    FLOAT_NAN = "isnan({0})"
    COMPLEX_NAN = "cmath.isnan({0})"
    DUAL_LEVEL = "torch.autograd.forward_ad._current_level == {p[0]}"  # (level,)
    INFERENCE_MODE = "torch.is_inference_mode_enabled() is {p[0]}"  # (bool,)
    DEFAULT_DEVICE = "torch.get_default_device() == {p[0]!r}"  # (device or None,)
    GLOBAL_STATE = "___check_global_state()"  # (torch's GlobalStateGuard or our GlobalState,)
    MODE_STACK = "torch function modes are {w}"  # (tuple of types,)
    SAVED_HOOKS = "saved tensor hooks are {p[0]!r}"  # (ids or None, callable)
    DICT_VERSION = "dict_version({0}) == {p[0]}"  # (version,)
    DISPATCH_KEYS = "{0} has dispatch keys {p[0]:#x}"  # (key set after the thread's state,)
    SCRIPT_TYPE = "script type of {0} is {p[1]}"  # (address, name, class to unwrap)
    DIM_MARKING = "{0} is {w}"  # (expected, absent, dependent)
    DYNAMIC_INDICES = "{0} is {w}"  # (attribute, set)
    TENSOR = "{0} is {p[0]}"  # (TensorFacts,)
    PREDICATE = "{p[1]}"  # (callable of the source, text)
    SHAPE = "{p[1]}"  # (callable of the frame, shared by all shape guards of a set; expression)
    TORCH_LEAF = "{p[1]}"  # (leaf guard object of torch, text)
    UNIQUE = "no two of ({s}) are the same object"
    SAME = "{0} is {1}"
    OVERLAP = "of ({s}) exactly the first {p[0]} may overlap"  # (how many,)
    UNIQUE_STORAGE = "no two of ({s}) share memory"  # tensors; one without storage shares it with none
    SHARES_STORAGE = "{1} shares the memory of {0}"
    SHAPE_CALL = "{p[3]}"  # (ints, floats, address, text, keepalive)
    EXPRESSION = "{p[0]}"  # (Term of expressions.py, torch's function of the frame for inexact numbers or None)
    OPAQUE = "<{p[0]}>"  # (reason,): came from JSON and cannot be checked here; never holds


_NAME = type.__dict__["__name__"].__get__  # past a metaclass's own


def _marked(expected: dict[str, Any]) -> str:
    """How far a tensor may be marked, by the attributes in which torch notes that."""
    kinds = ((name.removeprefix("_dynamo_").removesuffix("_indices"), dims) for name, dims in expected.items())
    noted = [f"{kind.replace('_', ' ')} in {', '.join(sorted(map(str, dims))) or 'none'}" for kind, dims in kinds]
    return f"marked no further than {' and '.join(noted)}" if noted else "not marked as dynamic"


#: What the parameters are in words, for tests whose text has ``{w}``.
_WORDS: dict[Test, Callable[[tuple[Any, ...]], str]] = {
    Test.MODE_STACK: lambda params: ", ".join(map(_NAME, params[0])) or "none",
    Test.DIM_MARKING: lambda params: _marked(params[0]),
    Test.DYNAMIC_INDICES: lambda params: _marked({params[0]: params[1]} if params[1] else {}),
}

#: Guards that relate several sources.
RELATIONAL = frozenset(
    {
        Test.UNIQUE,
        Test.SAME,
        Test.OVERLAP,
        Test.UNIQUE_STORAGE,
        Test.SHARES_STORAGE,
        Test.SHAPE_CALL,
        Test.EXPRESSION,
    }
)
#: Guards on the state of the thread, read under the torch-function state of the caller.
AMBIENT = frozenset(
    {
        Test.DUAL_LEVEL,
        Test.INFERENCE_MODE,
        Test.DEFAULT_DEVICE,
        Test.GLOBAL_STATE,
        Test.MODE_STACK,
        Test.SAVED_HOOKS,
    }
)
#: Guards of the frame that run after all others.
EPILOGUE = frozenset({Test.SHAPE})

_PLAIN = frozenset({str, int, bool, type(None), bytes})


def _atom(value: object) -> object:
    """A hashable stand-in for ``value``: equal for the same plain values, otherwise by identity (as for NaN)."""
    kind = type(value)
    if kind in _PLAIN:
        return value if kind is str else (kind, value)
    if (kind is float or kind is complex) and value == value:  # noqa: PLR0124
        return (kind, repr(value))
    if kind is tuple:
        return (tuple, *map(_atom, value))  # type: ignore[call-overload]
    if kind is slice:
        return (slice, _atom(value.start), _atom(value.stop), _atom(value.step))  # type: ignore[attr-defined]
    if kind is TensorFacts:
        return value
    return (id, id(value))


class TensorFacts(NamedTuple):
    """What a tensor must be, as `TensorCheck` of torch/csrc/dynamo/guards.h compares it.

    ``keys`` is the raw dispatch key set after the thread's included and excluded keys; ``dtype`` is torch's number of
    the scalar type; a size or stride of ``None`` is not guarded (a symbolic dimension).
    """

    type_id: int
    keys: int
    dtype: int
    device_index: int
    requires_grad: bool
    sizes: tuple[int | None, ...]
    strides: tuple[int | None, ...]
    device_is_current: bool
    type_name: str
    dtype_name: str
    device_name: str = ""  # only for reading: what is compared are its keys and its index

    def __str__(self) -> str:
        dims = ", ".join("*" if size is None else str(size) for size in self.sizes)
        strides = ", ".join("*" if stride is None else str(stride) for stride in self.strides)
        device = self.device_name or f"device {self.device_index}"
        where = f"the current {device.partition(':')[0]} device" if self.device_is_current else device
        grad = ", requires grad" if self.requires_grad else ""
        return f"{self.type_name} {self.dtype_name}[{dims}] strides ({strides}) on {where}{grad}"


class Frozen:
    """A node whose slots are written once, with :func:`write`, by the function that makes the node."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be deleted")


class Source(Frozen):
    """A path to an object, from the frame that is guarded. Interned: compare with ``is``.

    ``str()`` gives the path as Python would write it: ``L['self'].__dict__['negate']``, where ``L`` are the locals and
    ``G`` the globals.

    Attributes:
        access: what the last step does: an attribute, an item, a type, …
        key: its name, index or key; None where it needs none.
        base: the source one step above; None for the frame.
        depth: how many steps it is from the frame.
    """

    __slots__ = ("__weakref__", "_text", "access", "base", "depth", "key")
    access: Access
    key: Any
    base: Source | None
    depth: int
    _text: str | None

    def child(self, access: Access, key: object = None) -> Source:
        """The source one step below this one."""
        return _source(access, key, self)

    def steps(self) -> Iterator[Source]:
        """This source, its base, and so on to the frame."""
        step: Source | None = self
        while step is not None:
            yield step
            step = step.base

    @staticmethod
    def frame() -> Source:
        """The frame itself: the dict of its locals."""
        return _FRAME

    @property
    def text(self) -> str:
        """The path as Python would write it, in the notation of Dynamo's guards."""
        if self._text is None:
            base = self.base.text if self.base is not None else ""
            key = getattr(self.key, "__name__", self.key) if self.access in _NAMED_KEYS else self.key
            text = self.access.text.format(b=base, k=key)
            write(self, "_text", text)
            return text
        return self._text

    def __str__(self) -> str:
        return self.text or "<frame>"

    def __repr__(self) -> str:
        return f"<Source {self}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Source is not picklable; use GuardSet.to_json")


def with_bases(sources: Iterable[Source]) -> set[Source]:
    """These sources and all on the way to them."""
    found: set[Source] = set()
    for source in sources:
        for step in source.steps():
            if step in found:
                break
            found.add(step)
    return found


_NAMED_KEYS = frozenset({Access.CONSTANT, Access.CALL1})


class Guard(Frozen):
    """A predicate over sources. Interned: compare with ``is``.

    ``str()`` gives it as :func:`explain` prints it: ``L['self'].__dict__['negate'] is False``.

    Attributes:
        test: what is asked.
        sources: of which objects.
        params: what they are compared with.
    """

    __slots__ = ("__weakref__", "params", "sources", "test")
    test: Test
    sources: tuple[Source, ...]
    params: tuple[Any, ...]

    @property
    def source(self) -> Source:
        """The first source."""
        return self.sources[0]

    def worded(self, sources: Sequence[str], all_of_them: str) -> str:
        """The text, with these texts for the sources, and one for all of them."""
        words = _WORDS.get(self.test)
        worded = "" if words is None else words(self.params)
        return self.test.text.format(*sources, p=self.params, s=all_of_them, w=worded)

    def __str__(self) -> str:
        sources = [str(source) for source in self.sources]
        return self.worded(sources, ", ".join(sources))

    def __repr__(self) -> str:
        return f"<Guard {self}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Guard is not picklable; use GuardSet.to_json")


#: Writes a slot of a new node, past its own ``__setattr__``.
write = object.__setattr__


class NodeRef(ref):  # type: ignore[type-arg]
    """A weak reference that knows its key in :class:`Nodes`. Making one runs no Python code."""

    __slots__ = ("key",)
    key: Any


class Nodes(dict[Any, NodeRef]):
    """The nodes of one kind that are alive, by what each says.

    References are weak: a node lives as long as some GuardSet uses it, and keeps no model alive. This is a plain dict
    of references, because a model has thousands of nodes and WeakValueDictionary looks each of them up in Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self._when_dead = self._forget  # one bound method for all references

    def alive(self, identity: Any) -> Any:
        """The node that says this, or None. A node keeps alive everything whose id is part of its identity."""
        reference = self.get(identity)
        return None if reference is None else reference()

    def keep(self, identity: Any, made: Any) -> None:
        """Notes a new node until it dies."""
        self[identity] = kept = NodeRef(made, self._when_dead)
        kept.key = identity

    def _forget(self, reference: Any) -> None:
        key = reference.key
        if self.get(key) is reference:
            del self[key]


_sources, _guards = Nodes(), Nodes()


def _source(access: Access, key: object, base: Source | None) -> Source:
    identity = (access, id(base), key if type(key) is str else _atom(key))
    found: Source | None = _sources.alive(identity)
    if found is not None:
        return found
    made = Source.__new__(Source)
    write(made, "access", access)
    write(made, "key", key)
    write(made, "base", base)
    write(made, "depth", 0 if base is None else base.depth + 1)
    write(made, "_text", None)
    _sources.keep(identity, made)
    return made


def guard(test: Test, sources: tuple[Source, ...], params: tuple[Any, ...] = ()) -> Guard:
    """The guard that asks ``test`` with ``params`` of ``sources``."""
    # Sources by address: the table must not keep alive what a source leads to. The guard keeps its sources alive.
    identity = (test, tuple(map(id, sources)), tuple(map(_atom, params)))
    found: Guard | None = _guards.alive(identity)
    if found is not None:
        return found
    made = Guard.__new__(Guard)
    write(made, "test", test)
    write(made, "sources", sources)
    write(made, "params", params)
    _guards.keep(identity, made)
    return made


_FRAME = _source(Access.FRAME, None, None)


class Provenance(NamedTuple):
    """Who made a guard, and for which line of the user's program.

    Attributes:
        maker: ``"dynamo"``, ``"aot"``, ``"shape_env"`` or ``"strict"``.
        code: torch's own text of the guard.
        stack: the user's stack when it was made; None where it is not known.
    """

    maker: str
    code: str = ""
    stack: traceback.StackSummary | None = None

    @property
    def file(self) -> str | None:
        """The user's file, when torch knew it."""
        return self.stack[-1].filename if self.stack else None

    @property
    def line(self) -> int | None:
        """The line in :attr:`file`, counted from 1."""
        return self.stack[-1].lineno if self.stack else None

    def __str__(self) -> str:
        return f"{self.maker}, {place(self.file, self.line)}" if self.stack else self.maker


class GuardSet:
    """The guards of one cache entry, in the order in which they are checked, each with its provenance.

    Iterating gives :class:`Guard` objects. Two sets are equal when they hold the same guards in the same order,
    whoever made them.

    Args:
        entries: (guard, provenance) pairs; a guard that comes twice is kept once, with both provenances.
    """

    __slots__ = ("_provenance",)

    def __init__(self, entries: Iterable[tuple[Guard, Provenance]]) -> None:
        provenance: dict[Guard, tuple[Provenance, ...]] = {}
        for item, maker in entries:
            known = provenance.get(item)
            provenance[item] = (maker,) if known is None else (*known, maker)
        self._provenance = provenance

    def __iter__(self) -> Iterator[Guard]:
        return iter(self._provenance)

    def __len__(self) -> int:
        return len(self._provenance)

    def __contains__(self, item: object) -> bool:
        return item in self._provenance

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GuardSet):
            return NotImplemented
        return list(self._provenance) == list(other._provenance)

    def __hash__(self) -> int:
        return hash(tuple(self._provenance))

    def provenance(self, item: Guard) -> tuple[Provenance, ...]:
        """Everyone who asked for this guard.

        Raises:
            KeyError: the guard is not in the set.
        """
        return self._provenance[item]

    def entries(self) -> Iterator[tuple[Guard, Provenance]]:
        """(guard, provenance) pairs, as the constructor takes them."""
        for item, makers in self._provenance.items():
            for maker in makers:
                yield item, maker

    def counts_by_provenance(self) -> dict[str, int]:
        """How many guards each maker asked for."""
        counts: dict[str, int] = {}
        for _, maker in self.entries():
            counts[maker.maker] = counts.get(maker.maker, 0) + 1
        return counts

    def sources(self) -> set[Source]:
        """Every source that some guard reads, those on the way included."""
        return with_bases(source for item in self for source in item.sources)

    def to_json(self) -> str:
        """The set as JSON text. For a guard that only this process can check (an address, a callable), the reason."""
        # Imported here: serialize.py imports this module, and few programs write a set down.
        from unified_guards.guards.serialize import dumps

        return dumps(self)

    @staticmethod
    def from_json(text: str) -> GuardSet:
        """The set that :meth:`to_json` wrote. A guard that could not travel never holds here.

        Raises:
            ValueError: the text is not a GuardSet of this version.
        """
        from unified_guards.guards.serialize import loads

        return loads(text)

    def __str__(self) -> str:
        lines = []
        for item, makers in self._provenance.items():
            lines.append(f"{item}  # {'; '.join(dict.fromkeys(map(str, makers)))}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<GuardSet of {len(self)} guards>"
