"""Code of the user's that a guard runs: it changes what a fact has vouched for, or frees what is read next."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unified_guards import _C
from unified_guards.guards.ir import Access, TensorFacts, Test, guard

from ...guards import X, attr, checker, equals, item
from ..protocol import Holder, Run, direct, program


def _like(source: Any, value: Any) -> Any:
    keys, dtype, index, requires_grad = _C.tensor_facts(value, None)
    facts = TensorFacts(
        id(type(value)),
        keys,
        dtype,
        index,
        requires_grad,
        tuple(value.size()),
        tuple(value.stride()),
        False,
        "T",
        "dtype",
    )
    return guard(Test.TENSOR, (source,), (facts,))


class World:
    """What the code of the user's does once it is armed, and what it does it to."""

    def __init__(self, action: str) -> None:
        self.armed, self.junk = False, []
        self.cfg, self.owner = Holder(), Holder()
        self.cfg.other = 1
        self.cfg.values = [1, 2]
        self.cfg.table = {"k": 1}
        self.cfg.tensor = torch.ones(3)
        self.cfg.inner = Holder()
        self.cfg.inner.deep = 1
        self.action: Callable[[], None] = getattr(self, action)

    def ran(self) -> None:
        if self.armed:
            self.armed = False
            self.action()

    def attribute(self) -> None:
        self.cfg.other = 2

    def vars(self) -> None:
        vars(self.cfg)["other"] = 2

    def item(self) -> None:
        self.cfg.values[0] = 7

    def table(self) -> None:
        self.cfg.table = {"k": 5}

    def cleared(self) -> None:
        self.cfg.table.clear()

    def resized(self) -> None:
        self.cfg.tensor.resize_(5)

    def tensor(self) -> None:
        self.cfg.tensor = torch.ones(6)

    def inner(self) -> None:
        self.cfg.inner = Holder()
        self.cfg.inner.deep = 9
        self._fill()

    def patched(self) -> None:
        Holder.deep = property(lambda self: 8)

    def collected(self) -> None:
        self.cfg.inner = Holder()
        self.cfg.inner.deep = 1
        gc.collect()
        self._fill()

    def _fill(self) -> None:
        for size in (16, 32, 48, 64, 80, 96, 112, 128, 184, 232, 240):
            self.junk.extend(bytearray(b"\x41" * size) for _ in range(100))


ACTIONS = ("attribute", "vars", "item", "table", "cleared", "resized", "tensor", "inner", "patched", "collected")


def _rest(x: Any, cfg: Any) -> Any:
    return x * cfg.other + cfg.values[0] + cfg.table.get("k", 3) + cfg.tensor.shape[0] + cfg.inner.deep


def _with_getattr(world: World) -> tuple[Any, Any]:
    class Asked:
        def __getattr__(self, name: str) -> Any:
            world.ran()
            raise AttributeError(name)

    return Asked(), lambda x, asked, cfg: x if hasattr(asked, "extra") else _rest(x, cfg)


def _with_property(world: World) -> tuple[Any, Any]:
    class Asked:
        @property
        def scale(self) -> int:
            world.ran()
            return 3

    return Asked(), lambda x, asked, cfg: x * asked.scale + _rest(x, cfg)


def _with_key(world: World) -> tuple[Any, Any]:
    class Key:
        def __hash__(self) -> int:
            return hash("kk")

        def __eq__(self, other: Any) -> bool:
            world.ran()
            return False

    return {Key(): 1, "kk": 2}, lambda x, asked, cfg: x * asked["kk"] + _rest(x, cfg)


def _with_len(world: World) -> tuple[Any, Any]:
    class Sized(list):
        def __len__(self) -> int:
            world.ran()
            return 2

    return Sized([1, 2]), lambda x, asked, cfg: x * len(asked) + _rest(x, cfg)


def _with_getitem(world: World) -> tuple[Any, Any]:
    class Items(dict):
        def __getitem__(self, key: Any) -> Any:
            world.ran()
            return dict.__getitem__(self, key)

    return Items(k=2), lambda x, asked, cfg: x * asked["k"] + _rest(x, cfg)


def _with_contains(world: World) -> tuple[Any, Any]:
    class Has(dict):
        def __contains__(self, key: Any) -> bool:
            world.ran()
            return dict.__contains__(self, key)

    return Has(k=2), lambda x, asked, cfg: (x * 2 if "k" in asked else x) + _rest(x, cfg)


def _with_bool(world: World) -> tuple[Any, Any]:
    class Truth:
        def __bool__(self) -> bool:
            world.ran()
            return True

    return Truth(), lambda x, asked, cfg: (x * 2 if asked else x) + _rest(x, cfg)


def _with_eq(world: World) -> tuple[Any, Any]:
    class Equal:
        def __eq__(self, other: Any) -> bool:
            world.ran()
            return other == 3

        __hash__ = None

    return Equal(), lambda x, asked, cfg: (x * 2 if asked == 3 else x) + _rest(x, cfg)


def _with_getattribute(world: World) -> tuple[Any, Any]:
    class Asked:
        def __init__(self) -> None:
            self.scale = 3

        def __getattribute__(self, name: str) -> Any:
            world.ran()
            return object.__getattribute__(self, name)

    return Asked(), lambda x, asked, cfg: x * asked.scale + _rest(x, cfg)


def _with_sizes(world: World) -> tuple[Any, Any]:
    class Sub(torch.Tensor):
        @property
        def shape(self) -> Any:
            world.ran()
            return torch.Size((3,))

    return torch.ones(3).as_subclass(Sub), lambda x, asked, cfg: x + _rest(x, cfg) * (asked.dim() + 1)


def _with_iter(world: World) -> tuple[Any, Any]:
    class Table(dict):
        def keys(self) -> Any:
            world.ran()
            return dict.keys(self)

        def __iter__(self) -> Any:
            world.ran()
            return dict.__iter__(self)

    return Table(k=2), lambda x, asked, cfg: x * sum(asked[key] for key in asked) + _rest(x, cfg)


def _with_del(world: World) -> tuple[Any, Any]:
    """A property gives a temporary, whose ``__del__`` runs when the guard drops it."""

    class Temporary:
        scale = 3

        def __del__(self) -> None:
            world.ran()

    class Asked:
        @property
        def made(self) -> Any:
            return Temporary()

    return Asked(), lambda x, asked, cfg: x * asked.made.scale + _rest(x, cfg)


def _with_weakref(world: World) -> tuple[Any, Any]:
    class Temporary:
        scale = 3

    class Asked:
        @property
        def made(self) -> Any:
            temporary = Temporary()
            world.junk.append(weakref.ref(temporary, lambda reference: world.ran()))
            return temporary

    return Asked(), lambda x, asked, cfg: x * asked.made.scale + _rest(x, cfg)


def _with_metaclass(world: World) -> tuple[Any, Any]:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            world.ran()
            if name == "scale":
                return 3
            raise AttributeError(name)

    class Asked(metaclass=Meta):
        pass

    return Asked, lambda x, asked, cfg: x * asked.scale + _rest(x, cfg)


def _with_hash(world: World) -> tuple[Any, Any]:
    class Key(str):
        def __hash__(self) -> int:
            world.ran()
            return str.__hash__(self)

        def __eq__(self, other: Any) -> bool:
            world.ran()
            return str.__eq__(self, other)

    return {Key("k"): 2}, lambda x, asked, cfg: x * asked["k"] + _rest(x, cfg)


WAYS = {name.removeprefix("_with_"): make for name, make in list(globals().items()) if name.startswith("_with_")}


@program(way=tuple(WAYS))
def guard_changes_another_fact(run: Run, way: str) -> None:
    for action in ACTIONS:
        for order in ("before", "after") if action in ACTIONS[:2] else ("after",):
            torch._dynamo.reset()
            world = World(action)
            asked, function = WAYS[way](world)
            if order == "after":
                ordinary = function
                function = lambda x, asked, cfg, ordinary=ordinary: _rest(x, cfg) + ordinary(x, asked, cfg)  # noqa: E731
            x, cfg = torch.ones(2), world.cfg
            compiled = run.compile(function)
            try:
                run.warm(lambda: compiled(x, asked, cfg))
                world.armed = True
                # Torch's own verdict may come before the change or after: what is right is what the next call says.
                run.spring(lambda: compiled(x, asked, cfg), f"{action} {order}, armed")
                world.armed = False
                for _ in range(2):
                    run.step(lambda: compiled(x, asked, cfg), lambda: function(x, asked, cfg), f"{action} {order}")
            finally:
                vars_of = vars(Holder)
                if "deep" in vars_of:
                    del Holder.deep


@program(way=("getattr", "property", "key", "getitem", "del", "weakref", "metaclass"))
def the_call_itself(run: Run, way: str) -> None:
    """The call under which the change happens: where torch's tree reads the changed thing later, it misses."""
    for action in ("attribute", "item", "table", "tensor"):
        torch._dynamo.reset()
        world = World(action)
        asked, function = WAYS[way](world)
        x, cfg = torch.ones(2), world.cfg
        compiled = run.compile(function)
        run.warm(lambda: compiled(x, asked, cfg))
        world.armed = True
        got = compiled(x, asked, cfg)
        run.step(lambda got=got, world=world: (got, world.armed)[0], lambda: function(x, asked, cfg), action)


@direct
def key_with_python_eq(run: Run) -> None:
    junk: list[Any] = []

    class Evil:
        armed = False

        def __hash__(self) -> int:
            return hash("kk")

        def __eq__(self, other: Any) -> bool:
            if Evil.armed:
                Evil.armed = False
                tensor = vars(thing).pop("t")
                del tensor
                junk.append(torch.ones(4, 4).to_sparse())
            return False

    thing = Holder()
    for make in (lambda: torch.ones(4, 4).to_sparse(), lambda: torch.ones(4, 4)):
        thing.d, thing.t = {Evil(): 1, "".join(["k", "k"]): 2}, make()
        made = checker(equals(item("d").child(Access.DICT_ITEM, "kk"), 2), _like(item("t"), thing.t))
        for tier in (made.exact, made.check):
            thing.t = make()
            for _ in range(4):
                assert made.check({"x": thing})
            Evil.armed = True
            verdict = tier({"x": thing})
            run.steps.append({"name": "freed", "verdict": verdict, "right": "t" in vars(thing), "text": ""})


@direct
def len_frees_the_path(run: Run) -> None:
    junk: list[Any] = []
    for free in (True, False):

        class Seq:
            armed = False

            def __len__(self, free: bool = free) -> int:
                if type(self).armed:
                    type(self).armed = False
                    shown["x"].clear() if free else shown["x"].__setitem__(0, None)
                    junk.extend(bytearray(b"\x41" * size) for size in range(16, 256, 8) for _ in range(100))
                return 2

            def __getitem__(self, index: int) -> Any:
                raise IndexError

        class Flagged:
            def __init__(self) -> None:
                self.flag = 1

        def fresh() -> list[Any]:
            holder = Holder()
            holder.seq, holder.inner = Seq(), Flagged()
            return [holder]

        shown = {"x": fresh()}
        first = X.child(Access.LIST_ITEM, 0)
        made = checker(
            guard(Test.LENGTH, (item("seq", first),), (2, False)), equals(item("flag", item("inner", first)), 1)
        )
        for tier in (made.exact, made.check):
            shown["x"] = fresh()
            for _ in range(4):
                assert made.check(shown)
            Seq.armed = True
            tier(shown)
            run.expect(made, shown, False, "the path is gone")


@direct
def attribute_frees_its_owner(run: Run) -> None:
    """Each kind of reading code frees the owner of what is read next."""
    junk: list[Any] = []

    class Asked:
        armed = False

        @property
        def scale(self) -> int:
            if Asked.armed:
                Asked.armed = False
                vars(shown["x"]).pop("inner")
                gc.collect()
                junk.extend(bytearray(b"\x41" * size) for size in range(16, 256, 8) for _ in range(50))
            return 3

    shown = {"x": Holder()}
    holder = shown["x"]
    holder.asked = Asked()
    inner = item("inner")
    tensor = torch.ones(3)

    def fill() -> None:
        holder.inner = Holder()
        holder.inner.flag, holder.inner.tensor, holder.inner.values = 1, tensor, [1, [2]]

    fill()
    made = checker(
        equals(attr("scale", item("asked")), 3),
        equals(item("flag", inner), 1),
        _like(item("tensor", inner), tensor),
        equals(item("values", inner).child(Access.LIST_ITEM, 1).child(Access.LIST_ITEM, 0), 2),
    )
    for tier in (made.exact, made.check):
        fill()
        for _ in range(5):
            assert made.check(shown)
        Asked.armed = True
        tier(shown)
        run.expect(made, shown, False, "gone")


@program()
def module_code_in_guards(run: Run) -> None:
    class Net(nn.Module):
        armed = False

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.factor = 2

        def __getattr__(self, name: str) -> Any:
            if type(self).armed and name == "extra":
                type(self).armed = False
                self.__dict__["factor"] = 5
            return super().__getattr__(name)

        def forward(self, x: Any) -> Any:
            return self.linear(x) if hasattr(self, "extra") else self.linear(x) * self.factor

    net, x = Net(), torch.ones(2)
    compiled = run.compile(net)
    run.warm(lambda: compiled(x))
    Net.armed = True
    compiled(x)
    for _ in range(3):
        run.step(lambda: compiled(x), lambda: net(x))


@program(error=(AttributeError, RuntimeError, KeyError, RecursionError, KeyboardInterrupt, StopIteration))
def guards_that_raise(run: Run, error: Any) -> None:
    class Asked:
        armed = False

        @property
        def scale(self) -> int:
            if Asked.armed:
                raise error("of the user's")
            return 3

    def function(x: Any, asked: Any) -> Any:
        return x * asked.scale

    def guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as raised:  # the program raises some of each on purpose
            return type(raised).__name__

    asked, x = Asked(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, asked))
    Asked.armed = True
    for _ in range(2):
        run.step(lambda: guarded(lambda: compiled(x, asked)), lambda: guarded(lambda: function(x, asked)), "raises")
    Asked.armed = False
    for _ in range(3):
        run.step(lambda: compiled(x, asked), lambda: function(x, asked), "as before")


READS: dict[str, Callable[[Any, Any], Any]] = {
    "attribute": lambda x, cfg: x * cfg.other,
    "vars": lambda x, cfg: x * cfg.other,
    "item": lambda x, cfg: x * cfg.values[0],
    "table": lambda x, cfg: x * cfg.table["k"],
    "cleared": lambda x, cfg: x * cfg.table.get("k", 3),
    "resized": lambda x, cfg: x * cfg.tensor.shape[0],
    "tensor": lambda x, cfg: x * cfg.tensor.shape[0],
    "inner": lambda x, cfg: x * cfg.inner.deep,
    "collected": lambda x, cfg: x * cfg.inner.deep,
}
LATE = ("property", "getattribute", "hasattr", "descriptor", "inherited", "subclass")


@program(way=LATE)
def code_put_in_after_the_compile(run: Run, way: str) -> None:
    """Dynamo has traced through no such code. A slot comes to be asked through it, and then it changes what is read
    next: the call under which that happens misses wherever torch's does."""
    for action, read in READS.items():
        torch._dynamo.reset()
        world = World(action)

        class Parent:
            pass

        class Slotted(Parent):
            __slots__ = ("scale",)

            def __getattr__(self, name: str, world: World = world) -> Any:
                if way == "hasattr":
                    world.ran()
                raise AttributeError(name)

        def getter(self: Any, world: World = world) -> int:
            world.ran()
            return 3

        class Describes:
            def __get__(self, instance: Any, owner: Any, world: World = world) -> int:
                world.ran()
                return 3

            def __set__(self, instance: Any, value: Any) -> None:
                raise AttributeError

        def function(x: Any, s: Any, cfg: Any, read: Any = read) -> Any:
            if hasattr(s, "extra"):
                return x
            return read(x * s.scale, cfg)

        def asked(self: Any, name: str, world: World = world) -> Any:
            if name == "scale":
                world.ran()
            return object.__getattribute__(self, name)

        s, x, cfg = Slotted(), torch.ones(2), world.cfg
        s.scale = 3
        compiled = run.compile(function)
        run.warm(lambda: compiled(x, s, cfg))
        if way == "property":
            Slotted.scale = property(getter)
        elif way == "getattribute":
            Slotted.__getattribute__ = asked
        elif way == "descriptor":
            Slotted.scale = Describes()
        elif way == "inherited":
            Parent.scale = property(getter)
            del Slotted.scale
        elif way == "subclass":
            s = type("Sub", (Slotted,), {"__slots__": (), "scale": property(getter)})()
        run.warm(lambda: compiled(x, s, cfg))
        world.armed = True
        run.step(lambda: compiled(x, s, cfg), lambda: function(x, s, cfg), f"{action}: the call itself")
        for _ in range(2):
            run.step(lambda: compiled(x, s, cfg), lambda: function(x, s, cfg), f"{action}: afterwards")
