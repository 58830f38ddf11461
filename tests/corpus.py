"""One corpus of guarded objects: functions to compile with their inputs, and named mutations of what they read.

An entry is a function that makes everything afresh and returns an :class:`Example`. A mutation is given the locals of
the frame: it changes an object in place, or binds a local to another one. Mutations may come in any order and any
number of times. Entry point: :data:`ENTRIES`.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import math
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor

Locals = dict[str, Any]


class Example:
    """A function to compile, its inputs, and what may happen to them afterwards.

    Attributes:
        function: compiled whole, without graph breaks.
        args: positional arguments.
        kwargs: keyword arguments.
        options: for ``torch.compile``.
        mutations: by name.
        cleanups: put the state of the process back; called last to first.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, dynamic: bool | None = False, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.options: dict[str, Any] = {"dynamic": dynamic, "fullgraph": True}
        self.mutations: dict[str, Callable[[Locals], object]] = {}
        self.cleanups: list[Callable[[], object]] = []

    def mutation(self, change: Callable[[Locals], object]) -> Callable[[Locals], object]:
        """Registers a mutation under its function's name."""
        self.mutations[change.__name__] = change
        return change

    def rebind(self, name: str, **values: Callable[[], Any]) -> Example:
        """Mutations that bind a local to something made afresh."""
        for label, make in values.items():
            self.mutations[label] = lambda f_locals, make=make: f_locals.__setitem__(name, make())
        return self

    def change(self, **changes: Callable[[], object]) -> Example:
        """Mutations that change some object in place."""
        for label, make in changes.items():
            self.mutations[label] = lambda f_locals, make=make: make()
        return self

    def clean_up(self) -> None:
        """Puts the state of the process back."""
        while self.cleanups:
            self.cleanups.pop()()


#: Every entry by name.
ENTRIES: dict[str, Callable[[], Example]] = {}


def entry(make: Callable[[], Example]) -> Callable[[], Example]:
    ENTRIES[make.__name__] = make
    return make


# -- tensors -----------------------------------------------------------------------------------------------------------


class Subclass(torch.Tensor):
    """A tensor that differs by nothing but its class."""


@entry
def static_tensors() -> Example:
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    example = Example(lambda x, y: x + y, x, y)
    example.rebind(
        "x",
        same=lambda: torch.zeros(2, 3),
        dtype=lambda: torch.ones(2, 3, dtype=torch.float64),
        size=lambda: torch.ones(2, 4),
        rank=lambda: torch.ones(1, 2, 3),
        strides=lambda: torch.ones(3, 2).t(),
        offset=lambda: torch.ones(12)[6:].view(2, 3),
        requires_grad=lambda: torch.ones(2, 3, requires_grad=True),
        parameter=lambda: nn.Parameter(torch.ones(2, 3)),
        subclass=lambda: torch.ones(2, 3).as_subclass(Subclass),
        meta=lambda: torch.ones(2, 3, device="meta"),
        sparse=lambda: torch.ones(2, 3).to_sparse(),
        conjugate=lambda: torch.ones(2, 3, dtype=torch.complex64).conj(),
        number=lambda: 3.0,
        none=lambda: None,
    )
    example.mutations["alias"] = lambda f_locals: f_locals.__setitem__("x", f_locals["y"])
    return example.change(
        resize_in_place=lambda: y.resize_(3, 3),
        resize_back=lambda: y.resize_(2, 3),
        requires_grad_in_place=lambda: y.requires_grad_(not y.requires_grad),
        other_data=lambda: setattr(y, "data", torch.ones(2, 3, dtype=torch.float64)),
        same_data=lambda: setattr(y, "data", torch.ones(2, 3)),
        transposed_in_place=lambda: y.t_(),
        mark_dynamic=lambda: torch._dynamo.mark_dynamic(y, 0),
        mark_static=lambda: torch._dynamo.mark_static(y),
    )


@entry
def dynamic_tensors() -> Example:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.size(0) > 3 and x.size(0) % 2 == 0 and y.size(0) == 4 else x * 3

    x = torch.ones(8, 3)
    torch._dynamo.mark_dynamic(x, 0)
    example = Example(function, x, torch.ones(4), dynamic=None)
    for size in (0, 1, 2, 3, 4, 5, 6, 10):
        example.rebind("x", **{f"size_{size}": lambda size=size: torch.ones(size, 3)})
    example.rebind("x", other_static=lambda: torch.ones(8, 4), strides=lambda: torch.ones(3, 8).t())
    example.rebind("y", other_y=lambda: torch.ones(5), same_y=lambda: torch.zeros(4))

    @example.mutation
    def marked_further(f_locals: Locals) -> None:
        torch._dynamo.mark_dynamic(f_locals["x"], 1)

    return example


@entry
def all_dynamic() -> Example:
    def function(x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
        return (x.reshape(-1) + y.reshape(-1)) * n if x.numel() > 2 * n else x - n

    example = Example(function, torch.ones(4, 6), torch.ones(6, 4), 5, dynamic=True)
    example.rebind("n", small=lambda: 2, large=lambda: 20, zero=lambda: 0, one=lambda: 1, true=lambda: True)
    example.rebind("n", real=lambda: 5.0, huge=lambda: 2**70)
    example.rebind(
        "x", bigger=lambda: torch.ones(5, 6), square=lambda: torch.ones(5, 5), empty=lambda: torch.ones(0, 6)
    )
    example.rebind(
        "y", same=lambda: torch.zeros(6, 4), longer=lambda: torch.ones(6, 5), transposed=lambda: torch.ones(5, 5).t()
    )
    return example


@entry
def aliased_tensors() -> Example:
    x = torch.ones(2)

    def function(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y * z

    example = Example(function, x, x, torch.ones(2))

    def bind(*names: str) -> Callable[[Locals], None]:
        def change(f_locals: Locals) -> None:
            made = torch.ones(2)
            f_locals.update(dict.fromkeys(names, made))

        return change

    for names in ("x", "y", "z", "xy", "yz", "xyz"):
        example.mutations[f"same_{names}"] = bind(*names)
    return example.rebind("z", view=lambda: x.view(2), none=lambda: None)


@entry
def tensor_subclasses() -> Example:
    def two(first: torch.Tensor, second: torch.Tensor) -> TwoTensor:
        return TwoTensor(first, second)

    example = Example(
        lambda x, y: (x + 1, y * 2), two(torch.ones(2), torch.ones(2)), torch.ones(2).as_subclass(Subclass)
    )
    return example.rebind(
        "x",
        same=lambda: two(torch.zeros(2), torch.zeros(2)),
        longer=lambda: two(torch.zeros(3), torch.zeros(3)),
        dtype=lambda: two(torch.ones(2).double(), torch.ones(2).double()),
        inner_is_plain=lambda: torch.ones(2),
        inner_is_parameter=lambda: two(nn.Parameter(torch.ones(2)), torch.ones(2)),
        inner_requires_grad=lambda: two(torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)),
    ).rebind("y", plain=lambda: torch.ones(2), same_class=lambda: torch.zeros(2).as_subclass(Subclass))


@entry
def gradients() -> Example:
    weight = torch.ones(2, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if weight.grad is None else x + weight.grad

    return Example(function, torch.ones(2)).change(
        backward=lambda: weight.sum().backward(),
        zero=lambda: setattr(weight, "grad", None),
        frozen=lambda: weight.requires_grad_(not weight.requires_grad),
    )


# -- modules -----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.register_buffer("offset", torch.zeros(3))
        self.flag = True
        self.config = {"alpha": 0.5, "layers": [1, 2]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.linear(x)) if self.flag else self.linear(x)
        if self.offset is not None:
            x = x + self.offset
        return x * self.scale * self.config["alpha"] + len(self.config["layers"])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Identity()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        for head in self.heads.values():
            x = head(x)
        return torch.dropout(x, 0.5, self.training)


@entry
def nested_modules() -> Example:
    model = Model()
    block: Any = model.blocks[1]
    heads: Any = model.heads

    def function(x: torch.Tensor) -> torch.Tensor:
        return model(x)

    example = Example(function, torch.ones(2, 3))
    example.cleanups.append(lambda: setattr(Block, "scale", 2))
    return example.change(
        flag=lambda: setattr(block, "flag", not block.flag),
        flag_same=lambda: setattr(block, "flag", True),
        training=lambda: model.train(not model.training),
        one_layer_training=lambda: block.norm.train(not block.norm.training),
        dtype=lambda: block.linear.to(torch.float64),
        dtype_back=lambda: block.linear.to(torch.float32),
        other_weight=lambda: setattr(block.linear, "weight", nn.Parameter(torch.ones(3, 3))),
        wider_weight=lambda: setattr(block.linear, "weight", nn.Parameter(torch.ones(4, 3))),
        frozen=lambda: block.linear.weight.requires_grad_(not block.linear.weight.requires_grad),
        no_bias=lambda: setattr(block.linear, "bias", None),
        other_layer=lambda: setattr(block, "linear", nn.Linear(3, 3)),
        other_class=lambda: setattr(block, "norm", nn.Identity()),
        no_buffer=lambda: setattr(block, "offset", None),
        buffer_back=lambda: setattr(block, "offset", torch.zeros(3)),
        class_attribute=lambda: setattr(Block, "scale", Block.scale + 1),
        own_attribute=lambda: setattr(block, "scale", 2),
        config_value=lambda: block.config.update(alpha=block.config["alpha"] + 1),
        config_list=lambda: block.config["layers"].append(3),
        longer=lambda: model.blocks.append(Block()),
        shorter=lambda: model.blocks.__delitem__(-1) if len(model.blocks) > 2 else None,
        swapped_heads=lambda: heads.update({"a": heads["b"], "b": heads["a"]}),
        other_eps=lambda: setattr(block.norm, "eps", 1e-3),
        counter=lambda: setattr(model, "calls", 1),
        forward_patched=lambda: setattr(block.linear, "forward", lambda x: x),
    )


# -- containers --------------------------------------------------------------------------------------------------------


@entry
def dict_of_text() -> Example:
    d: dict[Any, Any] = {"a": 1, "b": torch.ones(2), "c": [1, 2]}
    example = Example(lambda x, d: x * d["a"] + d["b"] + len(d["c"]), torch.ones(2), d)
    return example.change(
        value=lambda: d.__setitem__("a", d["a"] + 1),
        same_value=lambda: d.__setitem__("a", 1),
        true=lambda: d.__setitem__("a", True),
        tensor=lambda: d.__setitem__("b", torch.ones(3)),
        missing=lambda: d.pop("a", None),
        extra=lambda: d.__setitem__("z", 1),
        inner=lambda: d["c"].append(3),
        reordered=lambda: d.__setitem__("b", d.pop("b")),
    ).rebind(
        "d",
        copy=lambda: {"a": 1, "b": torch.ones(2), "c": [1, 2]},
        ordered=lambda: collections.OrderedDict(a=1, b=torch.ones(2), c=[1, 2]),
        empty=dict,
        none=lambda: None,
    )


@entry
def dict_of_many_keys() -> Example:
    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    d: dict[Any, Any] = {1: 2, (1, "a"): 3, Color.RED: 4, 2.5: 5, b"k": 6, True or 0: 2, torch.float32: 7}

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * d[1] + d[(1, "a")] + d[Color.RED] + d[2.5] + d[b"k"] + d[torch.float32]

    return Example(function, torch.ones(2)).change(
        number=lambda: d.__setitem__(1, d[1] + 1),
        pair=lambda: d.__setitem__((1, "a"), 30),
        member=lambda: d.__setitem__(Color.RED, 40),
        unused=lambda: d.__setitem__(Color.BLUE, 41),
        real=lambda: d.__setitem__(2.5, 50),
        octets=lambda: d.__setitem__(b"k", 60),
        dtype=lambda: d.__setitem__(torch.float32, 70),
        emptied=d.clear,
        filled=lambda: d.update({1: 2, (1, "a"): 3, Color.RED: 4, 2.5: 5, b"k": 6, torch.float32: 7}),
    )


@entry
def dict_that_is_iterated() -> Example:
    d = {"a": 1, "b": 2, "c": 3}

    def function(x: torch.Tensor) -> torch.Tensor:
        for key, value in d.items():
            x = x + value if key != "b" else x * value
        return x + len(d) + ("z" in d)

    return Example(function, torch.ones(2)).change(
        value=lambda: d.__setitem__("b", d.get("b", 0) + 1),
        unchanged=lambda: d.__setitem__("b", d.get("b", 2)),
        moved=lambda: d.__setitem__("a", d.pop("a", 1)),
        removed=lambda: d.pop("c", None),
        added=lambda: d.__setitem__("z", 4),
        refilled=lambda: (d.clear(), d.update(a=1, b=2, c=3)),
        emptied=d.clear,
    )


class Attributes(collections.OrderedDict):  # type: ignore[type-arg]
    """A dict that also has attributes."""


@entry
def unusual_dicts() -> Example:
    ordered = collections.OrderedDict(a=1, b=2)
    default = collections.defaultdict(list, a=[1])
    own = Attributes(a=1)
    counter = collections.Counter("aab")

    def function(x: torch.Tensor) -> torch.Tensor:
        for key, value in ordered.items():
            x = x + value if key == "a" else x * value
        return x + len(default["a"]) + own["a"] + counter["a"] + ("b" in default)

    return Example(function, torch.ones(2)).change(
        moved_to_end=lambda: ordered.move_to_end(next(iter(ordered))),
        ordered_value=lambda: ordered.__setitem__("b", 3),
        ordered_refilled=lambda: (ordered.clear(), ordered.update(a=1, b=2)),
        default_grows=lambda: default["a"].append(2),
        default_missing=lambda: default["b"],
        default_removed=lambda: default.pop("a", None),
        own_value=lambda: own.__setitem__("a", 2),
        own_attribute=lambda: setattr(own, "extra", 1),
        counted=lambda: counter.update("a"),
    )


@entry
def lists() -> Example:
    items: list[Any] = [1, torch.ones(2), [2, [3]], "text"]

    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x * items[0] + items[1] + items[2][1][0] + len(items)

    return (
        Example(function, torch.ones(2), items)
        .change(
            first=lambda: items.__setitem__(0, items[0] + 1) if items and type(items[0]) is int else None,
            real=lambda: items.__setitem__(0, 1.0) if items else None,
            longer=lambda: items.append(0),
            shorter=lambda: items.pop() if len(items) > 3 else None,
            innermost=lambda: items[2][1].__setitem__(0, 4),
            unguarded=lambda: items[2].__setitem__(0, 9),
            tensor=lambda: items.__setitem__(1, torch.ones(3)),
            same_tensor=lambda: items.__setitem__(1, torch.zeros(2)),
        )
        .rebind(
            "items",
            equal=lambda: [1, torch.ones(2), [2, [3]], "text"],
            pair=lambda: (1, torch.ones(2), [2, [3]], "text"),
            subclass=lambda: type("Items", (list,), {})([1, torch.ones(2), [2, [3]], "text"]),
            empty=list,
        )
    )


class Point(NamedTuple):
    x: int
    y: Any


@entry
def tuples() -> Example:
    def function(x: torch.Tensor, pair: Any, point: Any) -> torch.Tensor:
        return x * pair[0] + pair[1][0] + point.x + point.y

    example = Example(function, torch.ones(2), (1, (2, "a")), Point(3, torch.ones(2)))
    example.rebind(
        "pair",
        equal=lambda: (1, (2, "b")),
        first=lambda: (2, (2, "a")),
        inner=lambda: (1, (3, "a")),
        longer=lambda: (1, (2, "a"), 3),
        listed=lambda: [1, (2, "a")],
        true=lambda: (True, (2, "a")),
        none=lambda: None,
    )
    return example.rebind(
        "point",
        same=lambda: Point(3, torch.zeros(2)),
        other=lambda: Point(4, torch.ones(2)),
        plain=lambda: (3, torch.ones(2)),
        number=lambda: Point(3, 1),
        namesake=lambda: collections.namedtuple("Point", "x y")(3, torch.ones(2)),
    )


@entry
def sets() -> Example:
    numbers, frozen, words = {1, 2}, frozenset({"a"}), {"x"}

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1 if 1 in numbers else x - 1
        x = x * 2 if 3 in numbers else x * 3
        return x + len(words) + ("a" in frozen)

    return Example(function, torch.ones(2)).change(
        removed=lambda: numbers.discard(1),
        restored=lambda: numbers.add(1),
        third=lambda: numbers.add(3),
        not_third=lambda: numbers.discard(3),
        unrelated=lambda: numbers.add(7),
        word=lambda: words.add("y"),
        no_word=lambda: words.discard("y"),
        emptied=numbers.clear,
    )


@entry
def set_arguments() -> Example:
    def function(x: torch.Tensor, s: Any) -> torch.Tensor:
        return x + len(s) + sum(s) if 1 in s else x

    return Example(function, torch.ones(2), {1}).rebind(
        "s",
        same=lambda: {1},
        other=lambda: {2},
        more=lambda: {1, 2},
        frozen=lambda: frozenset({1}),
        listed=lambda: [1],
        empty=set,
        true=lambda: {True},
    )


@entry
def iterators() -> Example:
    def function(x: torch.Tensor, t: Iterator[int], r: Iterator[int]) -> torch.Tensor:
        return x + next(t) * next(r)

    example = Example(function, torch.ones(2), iter((1, 2, 3)), iter(range(2, 8, 2)))
    example.rebind(
        "t",
        same_t=lambda: iter((1, 2, 3)),
        other_t=lambda: iter((2, 2, 3)),
        longer_t=lambda: iter((1, 2, 3, 4)),
        empty_t=lambda: iter(()),
        list_t=lambda: iter([1, 2, 3]),
        exhausted_t=lambda: advanced(iter((1,)), 2),
        advanced_t=lambda: advanced(iter((0, 1, 2, 3)), 1),
    )
    return example.rebind(
        "r",
        same_r=lambda: iter(range(2, 8, 2)),
        other_r=lambda: iter(range(2, 10, 2)),
        advanced_r=lambda: advanced(iter(range(0, 8, 2)), 1),
        empty_r=lambda: iter(range(0)),
        huge_r=lambda: iter(range(2, 10**30, 2)),
        tuple_r=lambda: iter((2, 4, 6)),
    )


def advanced(iterator: Iterator[Any], steps: int) -> Iterator[Any]:
    for _ in range(steps):
        next(iterator, None)
    return iterator


@entry
def ranges_and_slices() -> Example:
    def function(x: torch.Tensor, r: range, s: slice) -> torch.Tensor:
        for i in r:
            x = x + i
        return x[s]

    example = Example(function, torch.ones(4), range(0, 4, 2), slice(1, 3))
    example.rebind(
        "r",
        same_r=lambda: range(0, 4, 2),
        equal_r=lambda: range(0, 3, 2),
        other_r=lambda: range(3),
        empty_r=lambda: range(0),
        list_r=lambda: [0, 2],
    )
    return example.rebind(
        "s", same_s=lambda: slice(1, 3), other_s=lambda: slice(1, 4), open_s=lambda: slice(1, None), number_s=lambda: 1
    )


@entry
def deques_and_views() -> Example:
    queue = collections.deque([1, 2], maxlen=4)
    proxy_target = {"a": 1, "b": 2}
    proxy = types.MappingProxyType(proxy_target)

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + queue[0] + len(queue) + proxy["a"]

    return Example(function, torch.ones(2)).change(
        appended=lambda: queue.append(3),
        rotated=lambda: queue.rotate(1),
        refilled=lambda: (queue.clear(), queue.extend([1, 2])),
        proxied=lambda: proxy_target.update(a=proxy_target["a"] + 1),
        proxied_back=lambda: proxy_target.update(a=1),
        proxied_more=lambda: proxy_target.update(c=1),
    )


# -- plain values ------------------------------------------------------------------------------------------------------


class IntSubclass(int):
    pass


@entry
def plain_arguments() -> Example:
    def function(x: torch.Tensor, i: Any, s: Any, b: Any, n: Any) -> torch.Tensor:
        x = x + i
        if s == "mode":
            x = x * 2
        if b:
            x = x - 1
        return x if n is None else x + n

    example = Example(function, torch.ones(2), 3, "mode", True, None)
    example.rebind("i", same_i=lambda: 3, other_i=lambda: 4, real_i=lambda: 3.0, true_i=lambda: True)
    example.rebind("i", big_i=lambda: 2**70, own_i=lambda: IntSubclass(3), no_i=lambda: None)
    example.rebind("s", same_s=lambda: "".join(["mo", "de"]), other_s=lambda: "other", bytes_s=lambda: b"mode")
    example.rebind("b", false_b=lambda: False, one_b=lambda: 1, same_b=lambda: True)
    return example.rebind("n", number_n=lambda: 1, tensor_n=lambda: torch.ones(2), same_n=lambda: None)


@entry
def special_floats() -> Example:
    def function(x: torch.Tensor, f: Any, g: Any, c: Any) -> torch.Tensor:
        x = x + 1 if math.isnan(f) else x - 1
        x = x * 2 if g == 0.0 else x
        return x + c.real

    example = Example(function, torch.ones(2), float("nan"), 0.0, 1 + 2j)
    example.rebind(
        "f", same_f=lambda: float("nan"), one_f=lambda: 1.0, infinite_f=lambda: float("inf"), int_f=lambda: 1
    )
    example.rebind("g", same_g=lambda: 0.0, minus_g=lambda: -0.0, tiny_g=lambda: 5e-324, int_g=lambda: 0)
    return example.rebind(
        "c",
        same_c=lambda: complex(1, 2),
        other_c=lambda: complex(1, 3),
        nan_c=lambda: complex(math.nan, 2),
        real_c=lambda: 1.0,
    )


@entry
def torch_constants() -> Example:
    def function(x: torch.Tensor, dtype: Any, device: Any, size: Any, layout: Any) -> torch.Tensor:
        return x + torch.zeros(size, dtype=dtype, device=device) + (layout is torch.strided)

    example = Example(function, torch.ones(2), torch.float32, torch.device("cpu"), torch.Size([2]), torch.strided)
    example.rebind("dtype", same_dtype=lambda: torch.float32, other_dtype=lambda: torch.float64, no_dtype=lambda: None)
    example.rebind("device", same_device=lambda: torch.device("cpu"), text_device=lambda: "cpu")
    example.rebind(
        "size", same_size=lambda: torch.Size([2]), other_size=lambda: torch.Size([1]), plain_size=lambda: (2,)
    )
    return example.rebind("layout", other_layout=lambda: torch.sparse_coo, same_layout=lambda: torch.strided)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@entry
def enums() -> Example:
    def function(x: torch.Tensor, color: Any, level: Any) -> torch.Tensor:
        return (x + 1 if color is Color.RED else x - 1) * level

    example = Example(function, torch.ones(2), Color.RED, Level.LOW)
    example.rebind("color", blue=lambda: Color.BLUE, red=lambda: Color.RED, number=lambda: 1)
    return example.rebind("level", high=lambda: Level.HIGH, low=lambda: Level.LOW, one=lambda: 1)


# -- objects -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Config:
    width: int = 2
    name: str = "a"
    inner: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: int = 2
    items: tuple[int, ...] = (1, 2)


@entry
def dataclass_instances() -> Example:
    config, frozen = Config(inner=Config(3)), Frozen()

    def function(x: torch.Tensor, config: Config, frozen: Frozen) -> torch.Tensor:
        return x * config.width + config.inner.width + frozen.items[0] + (config.name == "a") + frozen.width

    example = Example(function, torch.ones(2), config, frozen)
    example.change(
        width=lambda: setattr(config, "width", config.width + 1),
        width_back=lambda: setattr(config, "width", 2),
        name=lambda: setattr(config, "name", "b"),
        inner=lambda: setattr(config, "inner", Config(3, "other")),
        other_inner=lambda: setattr(config, "inner", Config(4)),
        no_inner=lambda: setattr(config, "inner", None),
        extra=lambda: setattr(config, "extra", 1),
        thawed=lambda: object.__setattr__(frozen, "items", (5, 6)),
    )
    return example.rebind(
        "frozen", equal=Frozen, other=lambda: Frozen(3), longer=lambda: Frozen(2, (1, 2, 3)), config=lambda: Config(2)
    )


class Computed:
    """Attributes of every origin."""

    shared = 1
    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        self.own = 2
        self.slot = 3
        self._value = 4

    @property
    def value(self) -> int:
        return self._value

    def method(self) -> int:
        return self.own


class Dynamic:
    """Attributes that only ``__getattr__`` has."""

    def __init__(self) -> None:
        self.table = {"a": 1}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["table"][name]
        except KeyError:
            raise AttributeError(name) from None


@entry
def attributes() -> Example:
    computed, dynamic = Computed(), Dynamic()

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + computed.shared + computed.own + computed.slot + computed.value + computed.method()
        x = x + dynamic.a
        return x + 1 if hasattr(computed, "optional") else x

    example = Example(function, torch.ones(2))
    example.cleanups.append(lambda: setattr(Computed, "shared", 1))
    return example.change(
        own=lambda: setattr(computed, "own", computed.own + 1),
        own_back=lambda: setattr(computed, "own", 2),
        slot=lambda: setattr(computed, "slot", 30),
        value=lambda: setattr(computed, "_value", 40),
        of_the_class=lambda: setattr(Computed, "shared", Computed.shared + 1),
        shadowed=lambda: setattr(computed, "shared", 1),
        optional=lambda: setattr(computed, "optional", 1),
        not_optional=lambda: vars(computed).pop("optional", None),
        dynamic_value=lambda: dynamic.table.update(a=dynamic.table["a"] + 1),
        dynamic_back=lambda: dynamic.table.update(a=1),
        found_directly=lambda: setattr(dynamic, "a", 1),
    )


@entry
def class_hierarchies() -> Example:
    class Base:
        level = 1

    class Other:
        level = 1

    class Derived(Base):
        own = 2

    thing = Derived()

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + thing.level + Derived.own + Derived.level

    return Example(function, torch.ones(2)).change(
        base=lambda: setattr(Base, "level", Base.level + 1),
        base_back=lambda: setattr(Base, "level", 1),
        overridden=lambda: setattr(Derived, "level", 1),
        own=lambda: setattr(Derived, "own", 3),
        other_bases=lambda: setattr(Derived, "__bases__", (Other,)),
        bases_back=lambda: setattr(Derived, "__bases__", (Base,)),
        unrelated=lambda: setattr(Base, "unrelated", 1),
        on_the_instance=lambda: setattr(thing, "level", 1),
        other_class=lambda: setattr(thing, "__class__", type("Third", (Derived,), {})),
        class_back=lambda: setattr(thing, "__class__", Derived),
    )


@entry
def namespaces() -> Example:
    config = types.SimpleNamespace(heads=2, inner=types.SimpleNamespace(eps=0.5), unused=1)

    def function(x: torch.Tensor, config: Any) -> torch.Tensor:
        return x * config.heads + config.inner.eps + getattr(config, "optional", 0)

    return (
        Example(function, torch.ones(2), config)
        .change(
            heads=lambda: setattr(config, "heads", config.heads + 1),
            heads_back=lambda: setattr(config, "heads", 2),
            eps=lambda: setattr(config.inner, "eps", 0.25),
            inner=lambda: setattr(config, "inner", types.SimpleNamespace(eps=0.5)),
            unused=lambda: setattr(config, "unused", 2),
            optional=lambda: setattr(config, "optional", 3),
            removed=lambda: vars(config).pop("optional", None),
        )
        .rebind("config", copied=lambda: types.SimpleNamespace(heads=2, inner=types.SimpleNamespace(eps=0.5)))
    )


class Sized:
    def __init__(self, items: list[int]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int) -> int:
        return self.items[at]

    def __contains__(self, item: object) -> bool:
        return item in self.items


@entry
def own_containers() -> Example:
    sized = Sized([1, 2])

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + len(sized) + sized[0] + (5 in sized)

    return Example(function, torch.ones(2)).change(
        first=lambda: sized.items.__setitem__(0, 3),
        first_back=lambda: sized.items.__setitem__(0, 1),
        longer=lambda: sized.items.append(5),
        shorter=lambda: sized.items.pop() if len(sized.items) > 2 else None,
        replaced=lambda: setattr(sized, "items", [1, 2]),
        tupled=lambda: setattr(sized, "items", (1, 2)),
    )


# -- functions ---------------------------------------------------------------------------------------------------------


@entry
def closures() -> Example:
    scale, items = 2, [1]

    def helper(x: torch.Tensor) -> torch.Tensor:
        return x * scale + items[0]

    def function(x: torch.Tensor) -> torch.Tensor:
        return helper(x) + scale

    def rescale(value: Any) -> Callable[[Locals], None]:
        def change(f_locals: Locals) -> None:
            nonlocal scale
            scale = value
            f_locals["scale"] = value

        return change

    example = Example(function, torch.ones(2))
    for label, value in {"scale": 3, "scale_back": 2, "real": 2.0, "none": None}.items():
        example.mutations[label] = rescale(value)

    def other_helper(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    example.rebind("helper", other_helper=lambda: other_helper, helper_back=lambda: helper)
    return example.change(item=lambda: items.__setitem__(0, 5), item_back=lambda: items.__setitem__(0, 1))


@entry
def defaults() -> Example:
    def helper(x: torch.Tensor, a: Any = 2, *, b: Any = 3) -> torch.Tensor:
        return x * a + b

    def other(x: torch.Tensor, a: Any = 2, *, b: Any = 3) -> torch.Tensor:
        return x * a - b

    code = helper.__code__
    return Example(lambda x: helper(x), torch.ones(2)).change(
        default=lambda: setattr(helper, "__defaults__", (4,)),
        default_back=lambda: setattr(helper, "__defaults__", (2,)),
        no_defaults=lambda: setattr(helper, "__defaults__", None),
        longer_defaults=lambda: setattr(helper, "__defaults__", (torch.ones(2), 2)),
        kwdefault=lambda: setattr(helper, "__kwdefaults__", {"b": 4}),
        kwdefault_back=lambda: setattr(helper, "__kwdefaults__", {"b": 3}),
        kwdefault_in_place=lambda: (helper.__kwdefaults__ or {}).update(b=5),
        no_kwdefaults=lambda: setattr(helper, "__kwdefaults__", None),
        code=lambda: setattr(helper, "__code__", other.__code__),
        code_back=lambda: setattr(helper, "__code__", code),
    )


def scaled(x: torch.Tensor, factor: Any, *, offset: Any = 0) -> torch.Tensor:
    return x * factor + offset


@entry
def partials() -> Example:
    def function(x: torch.Tensor, f: Any) -> torch.Tensor:
        return f(x)

    return Example(function, torch.ones(2), functools.partial(scaled, factor=2, offset=1)).rebind(
        "f",
        same=lambda: functools.partial(scaled, factor=2, offset=1),
        other_keyword=lambda: functools.partial(scaled, factor=3, offset=1),
        fewer_keywords=lambda: functools.partial(scaled, factor=2),
        other_function=lambda: functools.partial(torch.add, other=2),
        nested=lambda: functools.partial(functools.partial(scaled, factor=2), offset=1),
        plain=lambda: torch.sin,
    )


class Counter:
    def __init__(self, step: int) -> None:
        self.step = step

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.step


@entry
def bound_methods() -> Example:
    counter = Counter(1)

    def function(x: torch.Tensor, f: Any) -> torch.Tensor:
        return f(x)

    return (
        Example(function, torch.ones(2), counter.apply)
        .change(step=lambda: setattr(counter, "step", counter.step + 1), step_back=lambda: setattr(counter, "step", 1))
        .rebind(
            "f",
            again=lambda: counter.apply,
            same_step=lambda: Counter(1).apply,
            other_step=lambda: Counter(2).apply,
            function=lambda: torch.sin,
        )
    )


GLOBAL_NUMBER: Any = 3
GLOBAL_LIST: Any = [1, 2]
GLOBAL_TENSOR: Any = torch.ones(2)


def global_helper(x: torch.Tensor) -> torch.Tensor:
    return x + GLOBAL_NUMBER


@entry
def module_globals() -> Example:
    scope = globals()
    before = {name: scope[name] for name in ("GLOBAL_NUMBER", "GLOBAL_LIST", "GLOBAL_TENSOR", "global_helper")}

    def function(x: torch.Tensor) -> torch.Tensor:
        return global_helper(x) * GLOBAL_LIST[0] + GLOBAL_TENSOR

    example = Example(function, torch.ones(2))
    example.cleanups.append(lambda: scope.update(before, GLOBAL_LIST=[1, 2]))
    return example.change(
        number=lambda: scope.update(GLOBAL_NUMBER=4),
        number_back=lambda: scope.update(GLOBAL_NUMBER=3),
        real=lambda: scope.update(GLOBAL_NUMBER=3.0),
        item=lambda: scope.update(GLOBAL_LIST=[5, 2]),
        items_back=lambda: scope.update(GLOBAL_LIST=[1, 2]),
        other_tensor=lambda: scope.update(GLOBAL_TENSOR=torch.ones(1)),
        tensor_back=lambda: scope.update(GLOBAL_TENSOR=torch.zeros(2)),
        other_helper=lambda: scope.update(global_helper=torch.sin),
        helper_back=lambda: scope.update(global_helper=before["global_helper"]),
        removed=lambda: scope.pop("GLOBAL_NUMBER", None),
        unrelated=lambda: scope.update(UNRELATED_GLOBAL=object()),
    )


@entry
def weak_references() -> Example:
    block = Block()
    reference = weakref.ref(block)

    def function(x: torch.Tensor, reference: Any) -> torch.Tensor:
        target = reference()
        return x if target is None else x + target.scale

    kept: list[Any] = [block]
    return (
        Example(function, torch.ones(2), reference)
        .change(scale=lambda: setattr(kept[0], "scale", 3), scale_back=lambda: setattr(kept[0], "scale", 2))
        .rebind(
            "reference",
            another=lambda: weakref.ref(kept.append(Block()) or kept[-1]),
            dead=lambda: weakref.ref(Block()),
            same=lambda: weakref.ref(kept[0]),
        )
    )


# -- the state of the thread -------------------------------------------------------------------------------------------


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@entry
def thread_state() -> Example:
    example = Example(lambda x: x * 2, torch.ones(2))
    modes: list[FunctionMode] = []

    def push() -> None:
        modes.append(FunctionMode())
        modes[-1].__enter__()

    def pop() -> None:
        if modes:
            modes.pop().__exit__(None, None, None)

    example.cleanups += [lambda: torch.set_grad_enabled(True), lambda: torch.set_default_dtype(torch.float32)]
    example.cleanups += [lambda: torch.use_deterministic_algorithms(False), lambda: [pop() for _ in list(modes)]]
    example.cleanups.append(lambda: torch.set_autocast_enabled("cpu", False))
    return example.change(
        no_grad=lambda: torch.set_grad_enabled(False),
        grad=lambda: torch.set_grad_enabled(True),
        default_dtype=lambda: torch.set_default_dtype(torch.float64),
        default_dtype_back=lambda: torch.set_default_dtype(torch.float32),
        deterministic=lambda: torch.use_deterministic_algorithms(True),
        not_deterministic=lambda: torch.use_deterministic_algorithms(False),
        autocast=lambda: torch.set_autocast_enabled("cpu", True),
        no_autocast=lambda: torch.set_autocast_enabled("cpu", False),
        mode=push,
        no_mode=pop,
    )
