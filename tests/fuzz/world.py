"""The live objects that the fuzzer's guards are about. Entry point: :class:`World`.

Everything, classes included, is made afresh for each world and looks the same in each. What a mutation changes is put
back by the restore of its row, so a world can be driven for millions of steps.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C import _functorch
from torch._subclasses.fake_tensor import FakeTensorMode

#: How many objects share one guard set: the layers of a model that have one ``forward``.
ROOTS = 6


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int = 1
    y: Any = 2


class Traps:
    """User code that runs inside a check, and does what it was armed with, once."""

    def __init__(self) -> None:
        self.action: Callable[[], object] | None = None
        self.sprung = 0

    def spring(self) -> None:
        action = self.action
        if action is not None:
            self.action = None
            self.sprung += 1
            action()

    def passing(self, _: object) -> bool:
        """A predicate that holds."""
        self.spring()
        return True


def make_classes(traps: Traps) -> types.SimpleNamespace:
    """The classes of one world: type attributes, bases and metaclasses are mutated, too."""

    class Meta(type):
        tag = 1

        @property
        def computed(cls) -> int:
            return cls.__dict__.get("shared", 0) + 1

    class OtherMeta(Meta):
        tag = 2

    class Root:
        level = 1

        def method(self) -> Any:
            return self.__dict__.get("own")

    class Base(Root):
        family = "base"

        @classmethod
        def build(cls) -> str:
            return cls.family

        @staticmethod
        def plain() -> int:
            return 7

    class OtherBase(Root):
        family = "base"

    class Worn:
        """What is an attribute of a class, and may become a descriptor there."""

        mark = 1

    class Shade(enum.Enum):
        DARK = 1
        LIGHT = 2

    class Thing(Base, metaclass=Meta):
        shared = 1
        worn = Worn()
        table = {"a": 1, "b": [1, 2]}

        def __init__(self) -> None:
            self.own = 2
            self.text = "text"
            self.real = 0.5
            self._value = 4
            self.flag = True
            self.items = [1, 2.5, "three", [4, (5,)]]
            self.config = {"alpha": 0.5, "deep": {"k": [1]}, 3: None}
            self.pair = (1, (2, "x"), None)
            self.child = Inline()

        @property
        def value(self) -> Any:
            return self._value

    class Twin(Thing):
        pass

    class Inline:
        """Its guards never ask for a ``__dict__``, so that the interpreter need not make one."""

        kind = "inline"

        def __init__(self) -> None:
            self.a = 1
            self.b = "b"
            self.c = None
            self.items = [1, 2]

    class OtherInline(Inline):
        pass

    class Slotted:
        __slots__ = ("__weakref__", "a", "b", "c")

        def __init__(self) -> None:
            self.a = 1
            self.b = [1, 2]

    class SlottedTwin(Slotted):
        __slots__ = ()

    class Dynamic:
        def __init__(self) -> None:
            self.table = {"found": 1, "other": [1]}

        def __getattr__(self, name: str) -> Any:
            traps.spring()
            try:
                return self.__dict__["table"][name]
            except KeyError:
                raise AttributeError(name) from None

    class Hooked:
        def __init__(self) -> None:
            self.seen = 1

        def __getattribute__(self, name: str) -> Any:
            traps.spring()
            return object.__getattribute__(self, name)

    class Sly:
        """Equality that runs a trap."""

        def __init__(self, number: int) -> None:
            self.number = number

        def __eq__(self, other: object) -> bool:
            traps.spring()
            return isinstance(other, Sly) and self.number == other.number

        def __hash__(self) -> int:
            traps.spring()
            return self.number

    class Sized:
        def __init__(self) -> None:
            self.content = [1, 2]

        def __len__(self) -> int:
            traps.spring()
            return len(self.content)

        def __getitem__(self, at: int) -> Any:
            return self.content[at]

    class Attributes(collections.OrderedDict):  # type: ignore[type-arg]
        """A dict with attributes."""

    class PlainList(list):  # type: ignore[type-arg]
        pass

    class Subclass(torch.Tensor):
        pass

    @dataclasses.dataclass
    class Config:
        width: int = 2
        name: str = "a"
        inner: Any = None

    @dataclasses.dataclass(frozen=True)
    class Frozen:
        width: int = 2
        items: tuple[int, ...] = (1, 2)

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.zeros(3))
            self.weight = nn.Parameter(torch.ones(3))
            self.limit = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.offset if self.limit else x * self.weight

    class OtherInner(Inner):
        pass

    class Layer(nn.Module):
        scale = 2

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.norm = nn.LayerNorm(3)
            self.inner = Inner()
            self.blocks = nn.ModuleList([Inner(), nn.Sequential(nn.Linear(3, 3), Inner())])
            self.heads = nn.ModuleDict({"a": nn.Identity(), "b": Inner()})
            self.flag = True
            self.eps = 0.5
            self.config = {"alpha": 0.5, "layers": [1, 2]}
            self.names = ["q", "k"]

        def forward(self, x: torch.Tensor, n: int = 1, mask: Any = None) -> torch.Tensor:
            x = self.norm(self.linear(x)) if self.flag else self.linear(x)
            x = self.inner(x) * self.config["alpha"] + len(self.config["layers"]) + self.eps
            for block in self.blocks:
                x = block(x)
            return self.heads["b"](x) * self.scale * n if mask is None else x + mask

    class OtherLayer(Layer):
        pass

    return types.SimpleNamespace(**{name: value for name, value in locals().items() if name != "traps"})


def make_strange_classes(traps: Traps) -> types.SimpleNamespace:
    """Siblings of what guards are usually about, of which each answers for itself what is usually read in memory."""

    class Extra:
        extra_scale = 3

    class MroMeta(type):
        """Puts a class into the mro that is no base."""

        def mro(cls) -> Any:
            found = super().mro()
            return [*found[:-1], Extra, found[-1]]

    class MroMade(metaclass=MroMeta):
        def __init__(self) -> None:
            self.own = 1

    class Answering(type):
        def __getattribute__(cls, name: str) -> Any:
            traps.spring()
            return type.__getattribute__(cls, name)

    class Answered(metaclass=Answering):
        shared = 1

    class OverDict(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            traps.spring()
            return dict.__getitem__(self, key)

        def __contains__(self, key: Any) -> bool:
            traps.spring()
            return dict.__contains__(self, key)

        def __len__(self) -> int:
            traps.spring()
            return dict.__len__(self)

        def keys(self) -> Any:
            traps.spring()
            return dict.keys(self)

    class OverList(list):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            traps.spring()
            return list.__getitem__(self, at)

        def __len__(self) -> int:
            traps.spring()
            return list.__len__(self)

    class OverTuple(tuple):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            traps.spring()
            return tuple.__getitem__(self, at)

        def __len__(self) -> int:
            traps.spring()
            return tuple.__len__(self)

    class OverSet(set):  # type: ignore[type-arg]
        def __contains__(self, item: Any) -> bool:
            traps.spring()
            return set.__contains__(self, item)

        def __iter__(self) -> Any:
            traps.spring()
            return set.__iter__(self)

        def __len__(self) -> int:
            traps.spring()
            return set.__len__(self)

    class Lender:
        __slots__ = ("a", "b")

    class Borrower:
        """Laid out as :class:`Lender`, whose descriptors have nothing to say about it."""

        __slots__ = ("a", "b")

        def __init__(self) -> None:
            self.a, self.b = 1, [1]

    class SlyDict(dict):  # type: ignore[type-arg]
        """To be an instance's ``__dict__``: the interpreter goes past what it overrides, Python code does not."""

        def __contains__(self, key: Any) -> bool:
            traps.spring()
            return dict.__contains__(self, key)

        def __getitem__(self, key: Any) -> Any:
            traps.spring()
            return dict.__getitem__(self, key)

    class Sneaky:
        def __init__(self) -> None:
            self.__dict__ = SlyDict(own=1, items=[1])

    class Masked:
        """What it shows as its ``__dict__`` is another dict than the one it has."""

        stash: dict[str, Any] = {"shown": 1}

        def __init__(self) -> None:
            object.__setattr__(self, "own", 1)

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            return Masked.stash

    class OwnModule(types.ModuleType):
        @property
        def level(self) -> Any:
            traps.spring()
            return self.__dict__.get("_level")

        def __getattr__(self, name: str) -> Any:
            traps.spring()
            if name == "made":
                return self.__dict__["_level"]
            raise AttributeError(name)

    class OtherModule(OwnModule):
        pass

    class EqualKey:
        """A key that a lookup of the guarded one comes by, of the same hash."""

        def __hash__(self) -> int:
            return hash("kk")

        def __eq__(self, other: object) -> bool:
            traps.spring()
            return False

    class Posted:
        def __init__(self) -> None:
            self._price = 5

        @property
        def price(self) -> Any:
            traps.spring()
            return self._price

        def __bool__(self) -> bool:
            traps.spring()
            return self._price == 5

    class Dying:
        def __del__(self) -> None:
            traps.spring()

    watches: list[Any] = [None]  # what is changed by a guard must not be what a guard reads

    class Fleeting:
        """Makes objects whose end, right after the guard that looked at them, runs code."""

        def __init__(self) -> None:
            self.own = 1

        @property
        def dying(self) -> Any:
            return Dying()

        @property
        def mourned(self) -> Any:
            made = Posted()
            watches[0] = weakref.ref(made, lambda _: traps.spring())
            return made

    class Telling(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            traps.spring()
            return super().__torch_function__(func, types, args, kwargs or {})

    class Wrapper(torch.Tensor):
        """A tensor without memory of its own."""

        @staticmethod
        def __new__(cls, inner: torch.Tensor) -> Any:
            return torch.Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype)

        def __init__(self, inner: torch.Tensor) -> None:
            self.inner = inner

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    return types.SimpleNamespace(**{name: value for name, value in locals().items() if name != "traps"})


def make_functions() -> types.SimpleNamespace:
    """Functions with everything that a function has, and others to take fields from."""
    scale: Any = 2
    items: Any = [1, 2]

    def helper(x: Any, a: Any = 2, *rest: Any, b: Any = 3, c: Any = None) -> Any:
        return x * a * scale + b + items[0]

    def other(x: Any, a: Any = 2, *rest: Any, b: Any = 3, c: Any = None) -> Any:
        return x * a * scale - b - items[0]

    def bare() -> int:
        return 5

    helper.note = {"k": 1}  # type: ignore[attr-defined]
    return types.SimpleNamespace(helper=helper, other=other, bare=bare)


#: An entry that changes with every call; no guard asks for it.
STIRRED = "_is_called"


def stir(entries: Any) -> None:
    if isinstance(entries, dict):  # what an object has for a __dict__ may be anything
        dict.__setitem__(entries, STIRRED, not dict.get(entries, STIRRED))


class World:
    """All guarded objects.

    Half of the layers and things have a dict that changes with every call, and so has one dict of the space.

    Args:
        stirs_scope: the globals change with every call, too.

    Attributes:
        traps: what the user code that guards run is armed with.
        classes, strange, functions: see :func:`make_classes`, :func:`make_strange_classes`, :func:`make_functions`.
        layers, things, inlines: each a group of objects that one guard set is for.
        space: everything else, below one object.
        scope: what plays the globals.
        inputs: what a call passes beside its root; every call gets a dict of its own.
    """

    def __init__(self, stirs_scope: bool = False) -> None:
        self.stirs_scope = stirs_scope
        self.traps = Traps()
        self.entered: list[Any] = []  # the modes that the thread is in
        self.changed_kinds: dict[str, None] = {}  # of the tensors of every kind, those that are not as they were
        self.advanced = 1  # how far the iterators among the inputs are
        self.classes = made = make_classes(self.traps)
        self.strange = make_strange_classes(self.traps)
        self.functions = make_functions()
        self.layers = [made.Layer() for _ in range(ROOTS)]
        self.things = [made.Thing() for _ in range(ROOTS)]
        self.inlines = [made.Inline() for _ in range(ROOTS)]
        self.space: Any = types.SimpleNamespace()
        self._containers()
        self._objects()
        self._strange()
        self._tensors()
        target = made.Thing()
        self.kept: dict[str, Any] = {"target": target}
        self.scope: dict[str, Any] = {"number": 3, "items": [1, 2], "step": 0, "helper": self.functions.helper}
        self.scope["ref"] = weakref.ref(target)
        for one in (*self.layers, *self.things):
            stir(vars(one))
        stir(self.scope)
        self.scope["layer_ref"] = weakref.ref(self.layers[0])
        self.space.ref = weakref.ref(self.things[0])
        self.inputs: dict[str, Any] = {"x": torch.ones(2, 3), "n": 5, "text": "mode", "real": 1.5}
        self.kwargs: dict[str, Any] = {"mask": torch.zeros(3), "scale": 2.0, "flag": True}

    def _containers(self) -> None:
        space, made = self.space, self.classes
        space.numbers = {1: 2, (1, "a"): 3, Color.RED: 4, 2.5: [5], b"k": 6, torch.float32: 7}
        space.words = {f"word{i}": i for i in range(12)}
        space.deep = {"a": {"b": {"c": {"d": 1}}}, "list": [[[1]]]}
        space.ordered = collections.OrderedDict(a=1, b=[2], c=3)
        space.default = collections.defaultdict(list, a=[1])
        # No text in sets: where it comes in the order differs from process to process.
        space.counter = collections.Counter("aab")
        space.attributes = made.Attributes(a=1)
        space.items = [1, "text", [2, [3]], (4, 5), None, True]
        space.plain_list = made.PlainList([1, 2])
        space.nested = (1, (2, [3]), {"k": 1})
        space.point = Point()
        space.group = {1, 50, (2, 3)}
        space.frozen_group = frozenset({1, 2})
        space.queue = collections.deque([1, 2])
        space.octets = b"octets"
        space.empty = {}
        space.stirred = {"number": 3, "items": [1, 2], "real": 0.5, "inner": {"k": 1}, "text": "t", STIRRED: False}
        space.sly_keys = {made.Sly(1): "one"}

    def _objects(self) -> None:
        space, made = self.space, self.classes
        space.slotted, space.dynamic, space.hooked = made.Slotted(), made.Dynamic(), made.Hooked()
        space.sized, space.sly = made.Sized(), made.Sly(3)
        space.config, space.frozen = made.Config(inner=made.Config(3)), made.Frozen()
        space.name_space = types.SimpleNamespace(heads=2, inner=types.SimpleNamespace(eps=0.5))
        space.thing_class, space.layer_class, space.shades = made.Thing, made.Layer, made.Shade
        space.helper, space.bare = self.functions.helper, self.functions.bare
        space.partial = functools.partial(self.functions.helper, a=2)
        space.method = self.things[0].method
        space.color, space.dtype, space.device = Color.RED, torch.float32, torch.device("cpu")
        space.size, space.span, space.part = torch.Size([2, 3]), range(1, 9, 2), slice(1, 4)
        space.nan, space.zero, space.pole = float("nan"), 0.0, complex(1, float("nan"))
        # Not kept alive by anything else: what a mutation makes in their place may get their addresses.
        space.mortal = types.SimpleNamespace()
        for name, make in self.mortals().items():
            setattr(space.mortal, name, make(0))

    def mortals(self) -> dict[str, Callable[[int], Any]]:
        """Makers of objects that die and come again, as they should be (0) or otherwise (1)."""
        made, strange = self.classes, self.strange

        def thing(variant: int) -> Any:
            new = made.Inline()
            new.a = 1 + variant
            return new

        def slotted(variant: int) -> Any:
            new = made.Slotted()
            new.a = 1 + variant
            return new

        def function(variant: int) -> Any:
            def inner(a: Any = variant) -> Any:
                return a, variant

            return inner

        def klass(variant: int) -> Any:
            return type("Made", (), {"number": variant})

        def module(variant: int) -> Any:
            new = made.Inner()
            new.limit = 3 + variant
            return new

        return {
            "thing": thing,
            "slotted": slotted,
            "function": function,
            "klass": klass,
            "module": module,
            "dict": lambda variant: {"k": variant, "same": 1},
            "list": lambda variant: [variant, 1],
            "tuple": lambda variant: (variant, [1]),
            "set": lambda variant: {variant, 70},
            "cell": lambda variant: types.CellType(variant),
            "number": lambda variant: 10**20 + variant,
            "real": lambda variant: 0.25 + variant,
            "tensor": lambda variant: torch.ones(2 + variant, 3),
            "ordered": lambda variant: collections.OrderedDict(k=variant),
            "name_space": lambda variant: types.SimpleNamespace(k=variant),
            "instance": lambda variant: (made.OtherInline if variant else made.Inline)(),
            "method": lambda variant: types.MethodType(function(variant), self.inlines[0]),
            "partial": lambda variant: functools.partial(self.functions.helper, a=variant),
            "reference": lambda variant: weakref.ref(self.things[variant]),
            "proxy": lambda variant: weakref.proxy(self.things[variant]),
            "mro_class": lambda variant: strange.MroMeta("Made", (), {"number": variant}),
            "over_dict": lambda variant: strange.OverDict(k=variant),
            "over_list": lambda variant: strange.OverList([variant, 1]),
            "over_tuple": lambda variant: strange.OverTuple([variant, 1]),
            "over_set": lambda variant: strange.OverSet({variant, 70}),
            "sneaky": lambda variant: strange.Sneaky() if variant == 0 else made.Inline(),
            "borrower": lambda variant: (strange.Lender if variant else strange.Borrower)(),
            "own_module": lambda variant: (strange.OtherModule if variant else strange.OwnModule)("made"),
        }

    def _strange(self) -> None:
        space, made = self.space, self.strange
        space.over_dict, space.over_list = made.OverDict(a=1, b=[1]), made.OverList([1, [2]])
        space.over_tuple, space.over_set = made.OverTuple([1, [2]]), made.OverSet({1, 50})
        space.mro_made, space.answered, space.borrower = made.MroMade(), made.Answered, made.Borrower()
        space.sneaky, space.masked, space.posted, space.fleeting = (
            made.Sneaky(),
            made.Masked(),
            made.Posted(),
            made.Fleeting(),
        )
        space.own_module = made.OwnModule("own")
        space.own_module._level = 3
        space.equal_keys = {made.EqualKey(): 1, "".join(["k", "k"]): 2}
        space.proxy = weakref.proxy(self.things[1])

    def kinds(self) -> dict[str, Callable[[int], Any]]:
        """Makers of every kind of tensor there is, as it should be (0) or otherwise (1)."""
        strange = self.strange

        def plain(variant: int, dtype: Any = torch.float32) -> torch.Tensor:
            return torch.ones(2 + 2 * variant, 4, dtype=dtype)

        def inference(variant: int) -> torch.Tensor:
            with torch.inference_mode():
                return plain(variant)

        def emptied(variant: int) -> torch.Tensor:
            made = plain(variant)
            made.untyped_storage().resize_(0)
            return made

        def batched(variant: int) -> torch.Tensor:
            level = _functorch._vmap_increment_nesting(3, "error")
            try:
                return _functorch._add_batch_dim(torch.ones(3, 2 + variant, 4), 0, level)
            finally:
                _functorch._vmap_decrement_nesting()

        def nested(layout: Any) -> Callable[[int], torch.Tensor]:
            return lambda variant: torch.nested.nested_tensor(
                [torch.ones(2 + variant, 4), torch.ones(3, 4)], layout=layout
            )

        fake = FakeTensorMode()
        named = {"named": lambda variant: plain(variant).rename_("a", "b")} if hasattr(torch.Tensor, "rename_") else {}
        return named | {
            "plain": plain,
            "view": lambda variant: torch.ones(5, 4)[1 : 3 + variant],
            "view_of_view": lambda variant: torch.ones(5, 4)[1:].view(16)[: 8 - 4 * variant].view(-1, 4),
            "multi_view": lambda variant: torch.ones(4 + 2 * variant, 4).chunk(2)[0],
            "graded_view": lambda variant: torch.ones(5, 4, requires_grad=True)[1 : 3 + variant],
            "parameter": lambda variant: nn.Parameter(plain(variant)),
            "conj": lambda variant: plain(variant, torch.complex64).conj(),
            "neg": lambda variant: plain(variant, torch.complex64).conj().imag,
            "zero": lambda variant: torch._efficientzerotensor((2 + variant, 4)),
            "functional": lambda variant: torch._to_functional_tensor(plain(variant)),
            "coo": lambda variant: plain(variant).to_sparse(),
            "csr": lambda variant: plain(variant).to_sparse_csr(),
            "csc": lambda variant: plain(variant).to_sparse_csc(),
            "bsr": lambda variant: plain(variant).to_sparse_bsr((2, 2)),
            "bsc": lambda variant: plain(variant).to_sparse_bsc((2, 2)),
            "quantised": lambda variant: torch.quantize_per_tensor(plain(variant), 1.0, 0, torch.qint8),
            "mkldnn": lambda variant: plain(variant).to_mkldnn(),
            "meta": lambda variant: plain(variant).to("meta"),
            "wrapper": lambda variant: strange.Wrapper(plain(variant)),
            "telling": lambda variant: plain(variant).as_subclass(strange.Telling),
            "fake": lambda variant: fake.from_tensor(plain(variant)),
            "inference": inference,
            "zero_size": lambda variant: torch.ones(0, 4 + variant),
            "emptied": emptied,
            "strided_nested": nested(torch.strided),
            "jagged": nested(torch.jagged),
            "batched": batched,
        }

    def _tensors(self) -> None:
        space, made = self.space, self.classes
        # Not kept alive by anything else, as what is mortal.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some kinds are in beta
            space.kinds = types.SimpleNamespace(**{name: make(0) for name, make in self.kinds().items()})
        space.ranks = [torch.ones(tuple(range(2, 2 + rank))) for rank in range(7)]
        space.scratch = [torch.ones(2, 3) for _ in range(4)]
        space.param = nn.Parameter(torch.ones(2, 3))
        space.graded = torch.ones(2, requires_grad=True)
        space.graded.sum().backward()
        space.base = torch.arange(12.0)
        space.view = space.base[4:10].view(2, 3)
        space.same_again = space.base
        space.subclass = torch.ones(2, 3).as_subclass(made.Subclass)
        space.noted = torch.ones(2)
        space.noted.note = {"k": 1}
        space.marked = torch.ones(4, 3)
        torch._dynamo.mark_dynamic(space.marked, 0)
        space.conj = torch.ones(2, dtype=torch.complex64)
        space.meta = torch.ones(2, 3, device="meta")
        space.sparse = torch.eye(3).to_sparse()
        params = [nn.Parameter(torch.ones(3)) for _ in range(2)]
        for one in params:
            one.grad = torch.ones(3)
        space.groups = [{"params": params, "lr": 0.1, "betas": (0.9, 0.99), "maximize": False}]
        space.state = {one: {"step": torch.zeros(()), "exp_avg": torch.zeros(3)} for one in params}

    # -- locals of a call: a fresh dict each time, as Dynamo passes ----------------------------------------------------

    def _call(self, stirred: Any) -> None:
        stir(stirred)
        if self.stirs_scope:
            stir(self.scope)

    def layer_locals(self, at: int) -> dict[str, Any]:
        self._call(getattr(self.layers[at], "__dict__", None) if at % 2 else None)
        return {"self": self.layers[at], **self.inputs, "kwargs": dict(self.kwargs)}

    def thing_locals(self, at: int) -> dict[str, Any]:
        thing, given = self.things[at], self.inputs
        self._call(getattr(thing, "__dict__", None) if at % 2 else None)
        given = {"self": thing, **given, "args": (given.get("n"), given.get("x"))}
        try:
            given["fn"] = thing.method
        except AttributeError:
            pass  # its class was changed
        return given

    def inline_locals(self, at: int) -> dict[str, Any]:
        return {"n": self.inputs.get("n"), "self": self.inlines[at]}

    def space_locals(self, at: int) -> dict[str, Any]:
        self._call(self.space.stirred)
        steps, spans = iter((1, 2, 3)), iter(range(1, 9, 2))
        for _ in range(self.advanced):
            next(steps), next(spans)
        return {"w": self.space, "steps": steps, "spans": spans, **self.kwargs, "args": [self.kwargs]}

    def close(self) -> None:
        """Breaks the cycles of what holds much memory."""
        self.traps.action = None
        vars(self.space).clear()
        self.layers.clear()
