"""Guard sets over a world, made from what its objects are at the moment: every access and test that applies.

:func:`children` says where one may go from a value, :func:`tests_of` what one may ask of it. A :class:`Maker` walks at
random from the locals of a frame and keeps what holds for every object that is to share the set.
"""

from __future__ import annotations

import collections
import copy
import ctypes
import functools
import operator
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._C._dynamo import guards as native
from torch.autograd import forward_ad
from torch.utils import _device

from unified_guards import _C
from unified_guards.guards import accesses, semantics
from unified_guards.guards.expressions import expression, numbered, parse
from unified_guards.guards.ir import AMBIENT, Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard

from .world import World

Step = tuple[Access, Any]
Ask = tuple[Test, tuple[Any, ...]]
Locals = Callable[[int], dict[str, Any]]

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, range, slice)
_HASHED = (int, str, float, bytes, bool, tuple, frozenset, type(None))
_TupleIterator, _RangeIterator = type(iter(())), type(iter(range(0)))
_DICT_VERSIONS = True


def _name_of(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# -- where one may go --------------------------------------------------------------------------------------------------


#: Of what nn.Module keeps in an instance.
_OF_MODULES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def _dull(name: Any) -> bool:
    """What nothing changes, or everything: the mode of a fake tensor remembers all that it has made."""
    return name == "fake_mode" or (
        type(name) is str and name[:1] == "_" and name[-6:] in ("_hooks", "kwargs", "called", "ts_set", "impl")
    )


def _of_dict(value: Any) -> Iterator[Step]:
    keys = [(at, key) for at, key in enumerate(dict.keys(value)) if key in _OF_MODULES or not _dull(key)]
    for at, key in keys[:16]:
        yield Access.DICT_ITEM, key
        if type(value) is dict:
            yield Access.ITEM, key
        yield Access.DICT_KEY_AT, at
        yield Access.DICT_VALUE_AT, at


def _of_sequence(access: Access) -> Callable[[Any], Iterator[Step]]:
    def steps(value: Any) -> Iterator[Step]:
        for at in range(min(len(value), 8)):
            yield access, at
            yield Access.ITEM, at

    return steps


def _of_set(value: Any) -> Iterator[Step]:
    for at in range(len(value)):
        yield Access.SET_ITEM, at


_NAMES = ("__name__", "__qualname__")


def _of_function(value: Any) -> Iterator[Step]:
    yield Access.FUNC_CODE, None
    for access, name in (
        (Access.FUNC_DEFAULTS, "__defaults__"),
        (Access.FUNC_KWDEFAULTS, "__kwdefaults__"),
        (Access.FUNC_CLOSURE, "__closure__"),
    ):
        if getattr(value, name) is not None:
            yield access, None
    for name in _NAMES:
        yield Access.ATTR, name
    if isinstance(value, types.MethodType):
        yield Access.ATTR, "__self__"
        yield Access.ATTR, "__func__"


def _of_tensor(value: Any) -> Iterator[Step]:
    yield Access.GRAD, None
    for name in ("shape", "dtype", "device", "requires_grad", "is_leaf", "ndim", "grad"):
        yield Access.ATTR, name
    yield Access.CALL1, torch._C._dispatch_keys
    if value.layout is torch.strided:
        for dim in range(value.dim()):
            yield Access.TENSOR_SIZE, dim
            yield Access.TENSOR_STRIDE, dim
        yield Access.TENSOR_OFFSET, None


_OF_CLASSES = (
    "shared",
    "table",
    "level",
    "family",
    "tag",
    "computed",
    "scale",
    "number",
    "worn",
    "DARK",
    "extra_scale",
)


def _of_type(value: Any) -> Iterator[Step]:
    if value.__module__.endswith("fuzz.world"):
        yield Access.TYPE_DICT, None
    yield Access.TYPE_MRO, None
    for name in (*_OF_CLASSES, *_NAMES):
        if hasattr(value, name):
            yield Access.ATTR, name


def _own_classes(value: Any) -> Iterator[type]:
    return (kind for kind in type(value).__mro__ if kind.__module__.endswith("fuzz.world"))


def _of_object(value: Any) -> Iterator[Step]:
    names: dict[str, None] = {}
    # The interpreter makes a dict for whoever asks for one.
    has_dict = "Inline" not in type(value).__name__ and hasattr(value, "__dict__")
    if has_dict:
        yield Access.GENERIC_DICT, None
        names.update(dict.fromkeys(value.__dict__))
    for kind in _own_classes(value):
        names.update(dict.fromkeys(name for name in vars(kind) if not name.startswith("__")))
    if "Inline" in type(value).__name__:
        names.update(a=None, b=None, c=None, items=None)
    if type(value).__name__ == "Masked":
        names.update(own=None)
    if type(value).__name__ == "Dynamic":
        names.update(found=None, other=None)
    for name in names:
        if isinstance(name, str) and (name in _OF_MODULES or not _dull(name)) and hasattr(value, name):
            yield Access.ATTR, name
            if type(value).__name__ != "Dynamic":
                yield Access.GENERIC_ATTR, name


_STEPS: list[tuple[Any, Callable[[Any], Iterator[Step]]]] = [
    (dict, _of_dict),
    (list, _of_sequence(Access.LIST_ITEM)),
    (tuple, _of_sequence(Access.TUPLE_ITEM)),
    ((set, frozenset), _of_set),
    ((types.FunctionType, types.MethodType), _of_function),
    (torch.Tensor, _of_tensor),
    (type, _of_type),
    (types.CellType, lambda value: iter([(Access.ATTR, "cell_contents")])),
    (weakref.ReferenceType, lambda value: iter([(Access.WEAKREF_CALL, None), (Access.CALL0, None)])),
    (_TupleIterator, lambda value: ((Access.TUPLE_ITER_ITEM, at) for at in range(operator.length_hint(value)))),
]
_WITHOUT_ATTRIBUTES = (
    *(*_PLAIN, _TupleIterator, _RangeIterator, type, types.CellType, types.CodeType, types.BuiltinFunctionType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType, types.GenericAlias),
    *(types.ModuleType, torch.SymInt),
)


def _of_strange(value: Any, kind: str) -> Iterator[Step]:
    """Steps that run code of the class."""
    if kind == "OverDict":
        yield from ((Access.ITEM, key) for key in dict.keys(value))
        yield Access.CALL1, len
    elif kind == "Posted":
        yield Access.CALL1, bool
    elif kind in ("OwnModule", "OtherModule"):
        yield from ((Access.ATTR, name) for name in ("level", "made", "_level"))
        yield Access.GENERIC_DICT, None
    elif isinstance(value, weakref.ProxyTypes):
        yield Access.WEAKREF_CALL, None
        yield from ((Access.ATTR, name) for name in ("own", "items", "shared", "value", "child"))


def children(value: Any) -> list[Step]:
    """Every step from a value that leads to one."""
    # By the real type: a generic alias says that it is what it stands for.
    found = [step for kinds, steps in _STEPS if issubclass(type(value), kinds) for step in steps(value)]
    if type(value) is dict:
        found += [(Access.GLOBAL_WEAKREF, k) for k, v in value.items() if isinstance(v, weakref.ReferenceType)]
    found += _of_strange(value, type(value).__name__)
    if type(value).__name__ == "Sized":
        found += [(Access.ITEM, 0), (Access.CALL1, len)]
    if isinstance(value, collections.deque):
        found.append((Access.ITEM, 0))
    if isinstance(value, functools.partial):
        found += [(Access.ATTR, name) for name in ("func", "args", "keywords")]
    if not issubclass(type(value), _WITHOUT_ATTRIBUTES):
        found += _of_object(value)
    found.append((Access.TYPE, None))
    return found


# -- what one may ask --------------------------------------------------------------------------------------------------


def _truth(value: Any) -> bool:
    return value is not None


def _same_kind(name: str) -> Callable[[Any], bool]:
    return lambda value: type(value).__name__ == name


_MARKINGS = ("dynamic", "weak_dynamic", "unbacked", "strict_unbacked", "static")


def _marking(value: Any) -> Ask:
    names = [f"_dynamo_{name}_indices" for name in _MARKINGS]
    expected = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return Test.DIM_MARKING, (expected, [name for name in names if name not in expected], {})


def facts_of(value: torch.Tensor, choose: random.Random) -> TensorFacts:
    """What a tensor guard expects; now and then without some dimensions."""
    keys, dtype, index, requires_grad = _C.tensor_facts(value, None)
    strided = value.layout is torch.strided

    def some(dims: Any) -> tuple[int | None, ...]:
        return tuple(None if choose.random() < 0.15 else int(dim) for dim in dims)

    strides = value.stride() if strided else [0] * value.dim()
    name = str(value.dtype).removeprefix("torch.")
    return TensorFacts(
        id(type(value)),
        keys,
        dtype,
        index,
        requires_grad,
        some(value.size()),
        some(strides) if strided else (None,) * value.dim(),
        False,
        _name_of(type(value)),
        name,
    )


def _of_container(value: Any) -> Iterator[Ask]:
    if isinstance(value, dict):
        yield Test.DICT_LENGTH, (dict.__len__(value),)
        for key in list(dict.keys(value))[:4]:
            yield Test.DICT_CONTAINS, (key, True)
        yield Test.DICT_CONTAINS, ("absent", False)
        yield Test.DICT_CONTAINS, ("extra", False)
        if type(value) is dict and all(isinstance(key, _HASHED) for key in value):
            yield Test.KEYS, (tuple(value),)
        if all(isinstance(key, _HASHED) for key in value):
            yield Test.MAPPING_KEYS, (tuple(value),)
    elif isinstance(value, (set, frozenset)):
        yield Test.LENGTH, (len(value), True)
        for item in list(value)[:2]:
            yield Test.SET_CONTAINS, (item, True)
        yield Test.SET_CONTAINS, ("absent", False)
    elif isinstance(value, (list, tuple, collections.deque)) or type(value).__name__ == "Sized":
        yield Test.LENGTH, (len(value), False)


def _of_number(value: Any) -> Iterator[Ask]:
    if isinstance(value, (float, complex)):
        yield Test.SAME_BITS, (value,)
        if value != value:
            yield (Test.FLOAT_NAN if isinstance(value, float) else Test.COMPLEX_NAN), ()


def _equal(value: Any) -> bool:
    """Whether a copy may stand for it."""
    if isinstance(value, (list, tuple)):
        return all(map(_equal, value))
    return isinstance(value, _PLAIN) or type(value).__name__ in ("Sly", "Color")


def tests_of(value: Any, choose: random.Random, python: bool = False) -> list[Ask]:
    """Every test that holds of a value, with its parameters; those in Python only now and then, unless asked for."""
    kind = type(value)
    found: list[Ask] = [(Test.EXISTS, ()), (Test.TYPE_IS, (id(kind), _name_of(kind)))]
    found += [(Test.IS, (id(value), f"<{kind.__name__}>")), (Test.IS_NOT, (id(Ellipsis), "..."))]
    if value is not None:
        found.append((Test.IS_NOT, (id(None), "None")))
    if _equal(value) or isinstance(value, type):
        found.append((Test.EQUALS, (list(value) if kind is list else value,)))
    if _equal(value):
        found.append((Test.DEEP_EQUALS, (copy.deepcopy(value),)))
    # swap_tensors() refuses tensors that somebody holds a weak reference to.
    if kind.__weakrefoffset__ and not isinstance(value, torch.Tensor):
        found.append((Test.IS_TARGET, (weakref.ref(value), f"<{kind.__name__}>")))
    found += [*_of_container(value), *_of_number(value)]
    if isinstance(value, torch.Tensor):
        try:
            found += [(Test.TENSOR, (facts_of(value, choose),))] * 3
        except Exception:
            pass  # a nested one has no sizes
        found += [_marking(value), (Test.DYNAMIC_INDICES, ("_dynamo_dynamic_indices", {0}))]
    elif isinstance(value, torch._C.DispatchKeySet):
        found.append((Test.DISPATCH_KEYS, (_C.apply_dispatch_state(value.raw_repr()),)))
    elif kind is _TupleIterator:
        found.append((Test.TUPLE_ITER_LEN, (operator.length_hint(value), id(kind))))
    elif kind is _RangeIterator:
        _, (whole,), position = value.__reduce__()
        start = whole.start + (position or 0) * whole.step
        found.append((Test.RANGE_ITER, (start, whole.stop, whole.step, id(kind))))
    if not hasattr(value, "extra"):
        found.append((Test.NO_ATTR, ("extra",)))
    if python or choose.random() < 0.1:  # Python code, which no witness can stand for and which takes its time
        found.append((Test.PREDICATE, (_truth, "is not None")))
        found.append((Test.TORCH_LEAF, (_same_kind(kind.__name__), "type name")))
    found.append((Test.SCRIPT_TYPE, (id(kind), _name_of(kind), nn.Bilinear)))
    return found


def versions(value: Any) -> list[Ask]:
    """The test that no mutation can be undone for; empty where torch does not have it."""
    try:
        return [(Test.DICT_VERSION, (native.dict_version(value),))]
    except Exception:  # no dict, or a torch without this function
        return []


# -- the state of the thread -------------------------------------------------------------------------------------------


def _no_hooks(_: Any) -> bool:
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def ambient() -> list[Guard]:
    """Guards on the thread as it is."""
    asked: dict[Test, tuple[Any, ...]] = {
        Test.DUAL_LEVEL: (forward_ad._current_level,),
        Test.INFERENCE_MODE: (torch.is_inference_mode_enabled(),),
        Test.DEFAULT_DEVICE: (_device.CURRENT_DEVICE,),
        Test.GLOBAL_STATE: (_C.GlobalState(),),
        Test.MODE_STACK: ((),),
        Test.SAVED_HOOKS: (None, _no_hooks),
    }
    assert set(asked) == AMBIENT
    return [guard(test, (Source.frame(),), params) for test, params in asked.items()]


# -- relations ---------------------------------------------------------------------------------------------------------


def _distinct(found: list[tuple[Source, Any]]) -> dict[int, Source]:
    return {id(value): source for source, value in found}


def relations(found: list[tuple[Source, Any]], choose: random.Random) -> Iterator[Guard]:
    """Guards on several of the values that a walk came by."""
    sources = list(_distinct([pair for pair in found if not isinstance(pair[1], _PLAIN)]).values())
    if len(sources) > 3:
        yield guard(Test.UNIQUE, tuple(choose.sample(sources, min(len(sources), 5))))
    by_address: dict[int, Source] = {}
    for source, value in found:
        known = by_address.setdefault(id(value), source)
        if known is not source:
            yield guard(Test.SAME, (known, source))
    yield from _of_tensors([pair for pair in found if isinstance(pair[1], torch.Tensor)], choose)


def _has_memory(value: torch.Tensor) -> bool:
    plain = type(value) in (torch.Tensor, nn.Parameter) and value.layout is torch.strided and value.device.type == "cpu"
    try:
        return plain and value.untyped_storage()._cdata != 0 and len(value.size()) >= 0
    except Exception:
        return False  # a wrapper of some kind


def _of_tensors(found: list[tuple[Source, Any]], choose: random.Random) -> Iterator[Guard]:
    strided = [pair for pair in found if _has_memory(pair[1])]
    if len(strided) < 2:
        return
    one, two = choose.sample(strided, 2)
    if one[1].untyped_storage()._cdata == two[1].untyped_storage()._cdata:
        yield guard(Test.SHARES_STORAGE, (one[0], two[0]))
    else:
        yield guard(Test.UNIQUE_STORAGE, (one[0], two[0]))
    overlapping = native.compute_overlapping_tensors([one[1], two[1]], symbolic=False)
    if overlapping in (set(), {0, 1}):
        yield guard(Test.OVERLAP, (one[0], two[0]), (len(overlapping),))
    yield from _shapes([pair for pair in strided if pair[1].dim() > 0], choose)


_TEXTS = ("v0 == {0}", "v0 < {1} and v1 >= 0", "v0 * 2 + v1 == {2}", "v0 % {3} == 0")
_ShapeFunction = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double))


def _shapes(found: list[tuple[Source, Any]], choose: random.Random) -> Iterator[Guard]:
    if not found:
        return
    (source, tensor), (other, second) = choose.choice(found), choose.choice(found)
    size, stride = int(tensor.size(0)), int(second.stride(0))
    sources = (source.child(Access.TENSOR_SIZE, 0), other.child(Access.TENSOR_STRIDE, 0))
    text = choose.choice(_TEXTS).format(size, size + 2, size * 2 + stride, max(size, 1))
    yield expression(parse(text, dict(zip(numbered(2), sources, strict=True))))
    if choose.random() < 0.2:

        @_ShapeFunction
        def compiled(ints: Any, floats: Any) -> int:
            return int(ints[0] == size)

        address = ctypes.cast(compiled, ctypes.c_void_p).value
        yield guard(Test.SHAPE_CALL, sources[:1], (1, 0, address, f"{sources[0]} == {size}", compiled))


def shape_function(f_locals: dict[str, Any]) -> bool:
    """Stands for torch's function of all shape guards of a frame."""
    return bool(f_locals.get("n", 5) == 5)


# -- sets --------------------------------------------------------------------------------------------------------------


def reached(f_locals: dict[str, Any], scope: Any, deepest: int = 9) -> Iterator[tuple[Source, Any, bool]]:
    """Sources from the frame down, each with its value and whether it is the first to lead to that object."""
    known: dict[int, Any] = {}
    level: list[tuple[Source, Any]] = [(Source.frame().child(Access.GLOBALS, scope), scope)]
    level.append((Source.frame().child(Access.CONSTANT, scope["items"]), scope["items"]))
    level += [(Source.frame().child(Access.LOCAL, name), value) for name, value in f_locals.items()]
    for _ in range(deepest):
        below = []
        for source, value in level:
            first = id(value) not in known
            known[id(value)] = value  # kept, or a new object could have its address
            yield source, value, first
            if first:
                for step in children(value):
                    child = source.child(*step)
                    try:
                        below.append((child, accesses.ACCESSES[child.access](value, child.key)))
                    except Exception:  # user code on the way raises, or what was there is gone
                        continue
        level = below


def by_type(f_locals: dict[str, Any], scope: Any) -> list[list[Source]]:
    """The sources that lead to one kind of object, for each kind. Keeps no object alive."""
    found: dict[Any, list[Source]] = {}
    for source, value, _ in reached(f_locals, scope, deepest=8):
        one = source.base is not None and source.base.text.endswith(".kinds")
        found.setdefault((type(value), source.access, source.key if one else None), []).append(source)
    return list(found.values())


#: What the space has whose class springs traps.
_TRAPPED = (
    *("dynamic", "hooked", "sized", "sly", "sly_keys", "over_dict", "over_list", "over_tuple", "over_set", "answered"),
    *("sneaky", "own_module", "equal_keys", "posted", "fleeting"),
)


IDENTITIES = (Test.IS, Test.IS_TARGET)


class Maker:
    """Makes guard sets for one family of roots.

    Args:
        world: what they are about.
        f_locals: the locals of the call whose root has a number.
        roots: how many roots there are.
        choose: the source of randomness.
        known: sources by what they lead to, for ways that are not at random (see :func:`by_type`).
    """

    def __init__(
        self,
        world: World,
        f_locals: Locals,
        roots: int,
        choose: random.Random,
        known: list[list[Source]] | None = None,
    ) -> None:
        self.world, self.f_locals, self.roots, self.choose, self.known = world, f_locals, roots, choose, known

    def way(self, at: int) -> list[tuple[Source, Any]]:
        """The sources down to some object, each kind of object as likely as the others."""
        assert self.known is not None
        *sources, _frame = self.choose.choice(self.choose.choice(self.known)).steps()
        f_locals = self.f_locals(at)
        try:
            return [(source, accesses.resolve(source, f_locals)) for source in reversed(sources)]
        except Exception:
            return []  # what was there died, and what came in its place has no such thing

    def walk(self, at: int, most: int = 9, below: tuple[str, ...] = ()) -> list[tuple[Source, Any]]:
        """The sources on one random way down, each with its value. With `below`: through one of these attributes."""
        value: Any = self.f_locals(at)
        source = Source.frame()
        found: list[tuple[Source, Any]] = []
        for depth in range(self.choose.randint(1, most)):
            if below and depth < 2:
                step = (Access.ATTR, self.choose.choice(below)) if depth else (Access.LOCAL, "w")
            elif depth == 0:
                step = self._first(value)
            else:
                steps = children(value)
                deeper = [step for step in steps if step[0] is not Access.TYPE]
                step = self.choose.choice(deeper if deeper and self.choose.random() < 0.9 else steps)
            source = source.child(*step)
            try:
                value = accesses.ACCESSES[source.access](value, source.key)
            except Exception:  # user code on the way raises, or what was there is gone: the way ends here
                break
            found.append((source, value))
        return found

    def _focus(self) -> tuple[str, ...]:
        """A few attributes of the space: guards all over it would meet few mutations each."""
        if "w" not in self.f_locals(0) or self.choose.random() < 0.1:
            return ()
        names = [name for name in vars(self.world.space) if name not in _TRAPPED]
        more = [name for name in ("mortal", "scratch", "kinds") if self.choose.random() < 0.4]
        return (*self.choose.sample(names, 3), *more, *more)

    def _first(self, value: dict[str, Any]) -> Step:
        if self.choose.random() < 0.15:
            return Access.GLOBALS, self.world.scope
        if self.choose.random() < 0.03:
            return Access.CONSTANT, self.world.scope["items"]
        names = list(value)
        root = [name for name in names if name in ("self", "w")]
        return Access.LOCAL, self.choose.choice(root * len(names) + names)

    def make(self, walks: int, versioned: bool = False, trapped: bool = False) -> GuardSet:
        """A set that holds for every root now; `trapped` are those whose evaluation runs user code all over."""
        below = _TRAPPED if trapped else self._focus()
        made: dict[Guard, None] = {}
        if self.choose.random() < 0.5:
            made.update(dict.fromkeys(self.choose.sample(ambient(), 3)))
        if self.choose.random() < 0.2:
            made[guard(Test.SHAPE, (Source.frame(),), (shape_function, "a shape function"))] = None
        seen: list[tuple[Source, Any]] = []
        for _ in range(walks):
            if self.known and self.choose.random() < (0.2 if below else 0.6):
                found = self.way(0)
            else:
                found = self.walk(0, below=below)
            seen += found
            if trapped and found:
                source = self.choose.choice(found)[0]
                made[guard(Test.PREDICATE, (source,), (self.world.traps.passing, "a trap"))] = None
            for source, value in found:
                for test, params in self._asked(value):
                    # What dies and comes again is another object: one guard on that spoils a set for good.
                    if test not in IDENTITIES or not _dies(source) or self.choose.random() < 0.05:
                        made[guard(test, (source,), params)] = None
                if versioned and type(value) is dict and self.choose.random() < 0.1:
                    made.update((guard(test, (source,), params), None) for test, params in versions(value))
        related = list(relations(seen, self.choose))
        # Torch compiles one function of all shape guards of a frame, and a program has room for one.
        calls = [item for item in related if item.test is Test.SHAPE_CALL]
        made.update(dict.fromkeys(item for item in related if item not in calls[1:]))
        return GuardSet((item, Provenance("fuzz")) for item in in_order(self.holding(made)))

    def _asked(self, value: Any) -> list[Ask]:
        asks = tests_of(value, self.choose)
        count = self.choose.choice((0, 1, 1, 2, 3))
        first = [asks[1]] if self.choose.random() < 0.5 else []  # torch's own sets nearly always ask for the type
        return first + self.choose.sample(asks, min(count, len(asks)))

    def holding(self, guards: Any) -> list[Guard]:
        """Those of ``guards`` that hold for each root, twice over: a new object each time has a new address."""
        frames = [self.f_locals(at) for at in range(self.roots)]
        kept = []
        for item in guards:
            if not all(semantics.holds(item, frame) for frame in frames) or not semantics.holds(item, self.f_locals(0)):
                continue
            if item.test in IDENTITIES and is_made_anew(item.source, frames[0]):
                continue
            kept.append(item)
        return kept


def _dies(source: Source) -> bool:
    return "mortal" in source.text or ".kinds" in source.text


def is_made_anew(source: Source, f_locals: dict[str, Any]) -> bool:
    """Whether each look finds another object, such as a bound method: its address is up to the allocator."""
    one, two = accesses.resolve(source, f_locals), accesses.resolve(source, f_locals)
    return one is not two


def in_order(guards: list[Guard]) -> list[Guard]:
    """As a walk down from the frame comes by them: what is below one source stays together."""
    first: dict[Source, int] = {}

    def rank(source: Source) -> tuple[int, ...]:
        steps = [first.setdefault(step, len(first)) for step in source.steps()]
        return tuple(reversed(steps))

    return sorted(guards, key=lambda item: rank(item.sources[0]))
