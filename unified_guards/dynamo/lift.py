"""From what Dynamo asked of its guard tree to a :class:`GuardSet`.

The records of one compilation describe a tree of guard managers; :func:`lift` rebuilds it (:class:`_Node`), with
torch's own rules on what a second call of the same kind does, and writes its guards down in the order in which torch
checks them. What cannot be expressed raises :class:`CannotLift`, and torch's tree stays. Entry point: :func:`lift`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch._C._dynamo import guards as native
from torch._dynamo.source import (
    AttrSource,
    CallMethodItemSource,
    CellContentsSource,
    DictGetItemSource,
    FloatTensorSource,
    GetItemSource,
    GlobalSource,
    ListGetItemSource,
    LocalSource,
    NNModuleSource,
    TensorPropertySource,
)

from unified_guards import _C
from unified_guards.dynamo import compat, distributed
from unified_guards.dynamo.identities import same_object
from unified_guards.dynamo.leaf_guards import IMPLIED_BY_DICT_MANAGER, LEAF_GUARDS, ONCE
from unified_guards.dynamo.provenance import Origins
from unified_guards.dynamo.tap import LAMBDA_PARTS, STATE_NOT_KNOWN, TENSOR_FACTS
from unified_guards.guards.expressions import NotAnExpression, expression, parse, parts_of
from unified_guards.guards.ir import (
    TENSOR_NUMBERS,
    Access,
    Guard,
    GuardSet,
    Provenance,
    Source,
    TensorFacts,
    Test,
    guard,
)
from unified_guards.guards.names import name_at
from unified_guards.statistics import tally


class CannotLift(Exception):
    """This frame's guards stay torch's; the message says why, in words that repeat from frame to frame."""


class Lifted(NamedTuple):
    """What was lifted of a frame, and what the later stages want of the records that it was lifted from.

    Attributes:
        guard_set: the guards.
        tensors: the tensors that torch guards, by torch's names of their sources.
        examples: the values that torch has seen at the sources.
    """

    guard_set: GuardSet
    tensors: dict[str, Any]
    examples: list[Any]


class _Node:
    """One guard manager of torch: the source it stands for, its leaf guards and its children, in order."""

    __slots__ = ("children", "closed", "guards", "manager", "once", "source")

    def __init__(self, source: Source, manager: Any) -> None:
        self.source = source
        self.manager = manager
        self.guards: list[tuple[Guard, Provenance]] = []
        self.children: list[tuple[tuple[int, int], _Node]] = []
        self.once: set[str] = set()
        self.closed = False  # a guarded dict that is empty: torch looks no further


#: Where a child stands among its siblings: accessors as they came, then a dict's keys and values by position.
_ACCESSOR = (-1, 0)

_CHILD = {
    "dict_getitem_manager": (Access.DICT_ITEM, "key"),
    "getitem_manager": (Access.ITEM, "key"),
    "list_getitem_manager": (Access.LIST_ITEM, "key"),
    "tuple_getitem_manager": (Access.TUPLE_ITEM, "key"),
    "set_getitem_manager": (Access.SET_ITEM, "index"),
    "getattr_manager": (Access.ATTR, "attr"),
    "generic_getattr_manager": (Access.GENERIC_ATTR, "attr"),
    "get_generic_dict_manager": (Access.GENERIC_DICT, None),
    "global_weakref_manager": (Access.GLOBAL_WEAKREF, "global_name"),
    "weakref_call_manager": (Access.WEAKREF_CALL, None),
    "globals_dict_manager": (Access.GLOBALS, "f_globals"),
    "type_manager": (Access.TYPE, None),
    "type_dict_manager": (Access.TYPE_DICT, None),
    "type_mro_manager": (Access.TYPE_MRO, None),
    "func_defaults_manager": (Access.FUNC_DEFAULTS, None),
    "func_kwdefaults_manager": (Access.FUNC_KWDEFAULTS, None),
    "code_manager": (Access.FUNC_CODE, None),
    "closure_manager": (Access.FUNC_CLOSURE, None),
    "tuple_iterator_getitem_manager": (Access.TUPLE_ITER_ITEM, "index"),
    "grad_manager": (Access.GRAD, None),
    "tensor_property_size_manager": (Access.TENSOR_SIZE, "idx"),
    "tensor_property_stride_manager": (Access.TENSOR_STRIDE, "idx"),
    "tensor_property_storage_offset_manager": (Access.TENSOR_OFFSET, None),
    "call_function_no_args_manager": (Access.CALL0, None),
    "get_key_manager": (Access.DICT_KEY_AT, "index"),
    "get_value_manager": (Access.DICT_VALUE_AT, "index"),
}


#: How torch's text of a shape guard reads an item.
_ITEMS = {
    DictGetItemSource: Access.ITEM,
    GetItemSource: Access.ITEM,
    ListGetItemSource: Access.LIST_ITEM,
}


#: A property of DTensors that torch's comparisons of identity read.
_MESH = "device_mesh"


class _Leaves(dict[str, Source]):
    """Sources by torch's texts of them. A source is looked for when its text is first asked for."""

    def __init__(self, sources: dict[str, Any], find: Callable[[Any], Source]) -> None:
        self.sources = sources
        self.find = find

    def get(self, text: str, default: Any = None) -> Any:
        if text not in self and text in self.sources:
            self[text] = self.find(self.sources[text])
        return super().get(text, default)


class _Lift:
    def __init__(self, root: Any, origins: Origins) -> None:
        self.origins = origins
        self.tensor_guards: dict[str, Guard] = {}
        self.tensors: dict[str, Any] = {}
        self.examples: list[Any] = []
        self.root = _Node(Source.frame(), root)
        self.nodes: dict[int, _Node] = {id(root): self.root}
        self.relations: list[tuple[Guard, Provenance]] = []
        self.epilogue: list[tuple[Guard, Provenance]] = []
        self.names: dict[int, str] = {}
        self.shapes_left: str | None = None  # why shape guards stay torch's function
        self.parts: tuple[list[str], list[str], str, dict[str, Any]] | None = None

    # -- reading the records ---------------------------------------------------------------------------------------

    def read(self, records: Iterable[tuple[str, Any, tuple[Any, ...], dict[str, Any], Any]]) -> None:
        nodes = self.nodes
        for method, manager, args, kwargs, result in records:
            self._note_values(method, kwargs)
            if result is not None and id(result) in nodes:
                continue  # torch had made this child already
            if manager is None:
                self._function(method, args)
                continue
            node = nodes.get(id(manager))
            if node is None:
                continue  # a tree that was built for a filter and thrown away
            if result is None:
                self._leaf(node, method, args, kwargs)
            elif method in _CHILD:
                self._child(node, method, kwargs, result)
            else:
                self._unusual_child(node, method, kwargs, result)

    def _note_values(self, method: str, kwargs: dict[str, Any]) -> None:
        if "example_value" in kwargs:
            self.examples.append(kwargs["example_value"])
        if method == TENSOR_FACTS:
            self.tensors[kwargs["tensor_name"]] = kwargs["value"]

    def _child(self, node: _Node, method: str, kwargs: dict[str, Any], result: Any) -> None:
        access, name = _CHILD[method]
        key: Any = kwargs[name] if name is not None else None
        order = _ACCESSOR
        if access is Access.DICT_KEY_AT:
            order = (key, 0)
        elif access is Access.DICT_VALUE_AT:
            order = (key, 1)
        self._add(node, node.source.child(access, key), order, kwargs, result)

    def _unusual_child(self, node: _Node, method: str, kwargs: dict[str, Any], result: Any) -> None:
        if method == "framelocals_manager":
            source = node.source.child(Access.LOCAL, kwargs["key"][0])
        elif method == "indexed_manager":
            source = node.source  # (i, x) of torch's symbolic shape guards: only the order matters, which we keep
        elif method == "lambda_manager":
            source = _lambda_child(node.source, kwargs["python_lambda"])
        else:
            raise CannotLift(f"accessor {method} is not known")
        self._add(node, source, _ACCESSOR, kwargs, result)

    def _add(self, node: _Node, source: Source, order: tuple[int, int], kwargs: dict[str, Any], result: Any) -> None:
        child = _Node(source, result)
        self.nodes[id(result)] = child
        if node.closed:
            child.closed = True
            return
        node.children.append((order, child))
        if isinstance(result, native.DictGuardManager):
            self._guard_dict(child, kwargs["example_value"])

    def _guard_dict(self, node: _Node, example: dict[Any, Any]) -> None:
        maker = Provenance("dynamo", "key order of a dict")
        kind = type(example)
        node.guards.append((guard(Test.TYPE_IS, (node.source,), (id(kind), self._name_at(id(kind)))), maker))
        length = dict.__len__(example)
        node.guards.append((guard(Test.DICT_LENGTH, (node.source,), (length,)), maker))
        node.closed = length == 0

    # -- leaf guards -----------------------------------------------------------------------------------------------

    def _leaf(self, node: _Node, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if node.closed:
            return
        if method in ONCE:
            if method in node.once:
                return
            node.once.add(method)
        if method in IMPLIED_BY_DICT_MANAGER and isinstance(node.manager, native.DictGuardManager):
            return
        if method == "add_epilogue_lambda_guard":
            self._epilogue(args)
            return
        if method == TENSOR_FACTS:
            code, stack = kwargs["verbose_code_parts"], kwargs["user_stack"]
            made = self.tensor_guards[kwargs["tensor_name"]] = self._tensor(node.source, args, kwargs)
        else:
            code, stack = args[-2], args[-1]
            parts = distributed.parts_of(self._name_at, node.source, method, args[0])
            if parts is not None:
                node.guards += [(part, Provenance("dynamo", code[0] if code else "", stack)) for part in parts]
                return
            make = LEAF_GUARDS.get(method)
            made = make(self._name_at, node.source, args) if make is not None else _torch_leaf(node, code)
        node.guards.append((made, Provenance("dynamo", code[0] if code else "", stack)))

    def _name_at(self, address: int) -> str:
        known = self.names.get(address)
        if known is None:
            known = self.names[address] = name_at(address)
        return known

    def _tensor(self, source: Source, found: tuple[Any, ...], given: dict[str, Any]) -> Guard:
        value = given["value"]
        kind = given.get("pytype") or type(value)
        keys, dtype, device_index, requires_grad = found
        sizes, strides = given["sizes"], given["strides"]
        facts = TensorFacts(
            id(kind),
            keys,
            dtype,
            device_index,
            requires_grad,
            _dims(sizes) if sizes else tuple(value.size()),
            _dims(strides) if strides else tuple(value.stride()),
            bool(given.get("device_index_is_current", False)),
            self._name_at(id(kind)),
            str(value.dtype).removeprefix("torch."),
            str(value.device),
        )
        return guard(Test.TENSOR, (source,), (facts,))

    # -- relations and epilogues -----------------------------------------------------------------------------------

    def _function(self, method: str, args: tuple[Any, ...]) -> None:
        if method == LAMBDA_PARTS:
            self.parts = args
            return
        if method == STATE_NOT_KNOWN:
            raise CannotLift("the dispatch state that torch has saved with guards has another form than is known")
        nodes = [self.nodes.get(id(manager)) for manager in _managers(args)]
        if None in nodes:
            return  # belongs to a tree that was thrown away
        if any(node.closed for node in nodes if node is not None) and method != "install_no_tensor_aliasing_guard":
            return  # below an empty dict: torch never gets to all of its parts, and so never to the guard
        if method == "install_object_aliasing_guard":
            pair = (self.nodes[id(args[0])].source, self.nodes[id(args[1])].source)
            # Dynamo and AOTAutograd both make such guards; only Dynamo gives a stack.
            maker = "dynamo" if args[3] is not None else "aot"
            self.relations += self._made_by(guard(Test.SAME, pair), maker, args[2][0], args[3])
        elif method == "install_no_tensor_aliasing_guard":
            made = guard(Test.UNIQUE, self._sources(args[0]))
            self.relations.append((made, Provenance("dynamo", args[2][0], args[3])))
        elif method == "install_storage_overlapping_guard":
            made = guard(Test.OVERLAP, self._sources(args[0]) + self._sources(args[1]), (len(args[0]),))
            self.relations += self._made_by(made, "aot", args[2][0], args[3])
        else:
            managers, ints, floats, address, keepalive, code, stack = args
            params = (ints, floats, address, " and ".join(code), keepalive)
            made = guard(Test.SHAPE_CALL, self._sources(managers), params)
            self.relations += [(made, maker) for maker in self._makers(code, stack)]

    def _made_by(self, made: Guard, maker: str, code: str, stack: Any = None) -> list[tuple[Guard, Provenance]]:
        """The guard, once for each line that is known to have caused it."""
        lines = [stack] if stack is not None else self.origins.lines.get(code, [None])
        return [(made, Provenance(maker, code, line)) for line in lines]

    def _makers(self, parts: list[str], stack: Any) -> Iterable[Provenance]:
        """Who asked for the parts of a guard that checks them all."""
        for maker in ("shape_env", "aot"):
            found = [part for part in parts if (part in self.origins.from_backend) is (maker == "aot")]
            lines = [line for part in found for line in self.origins.lines.get(part, ())]
            if found:
                yield Provenance(maker, " and ".join(found), stack or next(iter(lines), None))

    def _sources(self, managers: Iterable[Any]) -> tuple[Source, ...]:
        nodes = (self.nodes[id(manager)] for manager in managers)
        return tuple(node.source for node in nodes if not node.closed)

    def _epilogue(self, args: tuple[Any, ...]) -> None:
        """A Python function over the frame: comparisons of identity become guards of their own, the rest stays one."""
        function, verbose, stack = args
        (parts, verbose, maker, managers), self.parts = self.parts or (verbose, verbose, "dynamo", {}), None
        if maker == "shape_env":
            self._shapes(function, parts, verbose, managers)
            return
        for part, code in zip(parts, verbose, strict=False):
            pair = self._same(part, function, managers)
            if pair is not None:
                self.relations += self._made_by(guard(Test.SAME, pair), maker, code, stack)
            else:
                made = guard(Test.SHAPE, (Source.frame(),), (function, part))
                self.epilogue += self._made_by(made, maker, code, stack)

    def _same(self, part: str, function: Callable[..., Any], managers: dict[str, Any]) -> tuple[Source, Source] | None:
        """The two sides of a comparison of identity: as the text has them, or else as the tree does."""
        pair = same_object(part, function)
        if pair is not None and not any(source.access is Access.ATTR and source.key == _MESH for source in pair):
            return pair
        return same_object(part, function, lambda text: self._known(text, managers)) or pair

    def _known(self, text: str, managers: dict[str, Any]) -> Source | None:
        node = self.nodes.get(id(managers.get(text)))
        if node is not None:
            return None if node.closed else node.source
        node = self.nodes.get(id(managers.get(text.removesuffix(f".{_MESH}")))) if text.endswith(f".{_MESH}") else None
        kinds = [item.params[0] for item, _ in node.guards if item.test is Test.TYPE_IS] if node is not None else []
        if node is None or node.closed or len(kinds) != 1:
            return None
        found = distributed.mesh_of(self._name_at, node.source, _C.object_at(kinds[0]))
        if found is None:
            return None
        mesh, guards = found
        self.relations += [(item, Provenance("dynamo", text)) for item in guards]
        return mesh

    # -- shapes ----------------------------------------------------------------------------------------------------

    def _shapes(
        self, function: Callable[..., Any], parts: list[str], verbose: list[str], managers: dict[str, Any]
    ) -> None:
        """What the ShapeEnv guards on, as expressions; where a part of it cannot be one, all stays torch's function."""
        try:
            scope = getattr(function, "__globals__", {}).get("G")
            leaves = _Leaves(self.origins.sources, lambda source: _read_in(scope, self._number(source, managers)))
            made = [[expression(each, function) for each in parts_of(parse(part, leaves))] for part in parts]
            if not compat.indicator_takes_numbers() and any("IsNonOverlapping" in part for part in parts):
                raise NotAnExpression("IsNonOverlappingAndDenseIndicator always raises in this torch")
        except NotAnExpression as reason:
            self.shapes_left = str(reason)
            made = [[guard(Test.SHAPE, (Source.frame(),), (function, part))] for part in parts]
        for part, code, guards in zip(parts, verbose, made, strict=False):
            maker = "aot" if part in self.origins.from_backend else "shape_env"
            for item in guards:
                self.epilogue += self._made_by(item, maker, code)

    def _number(self, source: Any, managers: dict[str, Any]) -> Source:
        """The source that a shape guard reads, as the tree has it."""
        node = self.nodes.get(id(managers.get(source.name)))
        if node is not None:
            self._need_plain_properties(node)
            return node.source
        if isinstance(source, TensorPropertySource):
            return self._number(source.base, managers).child(TENSOR_NUMBERS[source.prop.method_name()], source.idx)
        if type(source) is CallMethodItemSource and type(source.base) is FloatTensorSource:
            return self._number(source.base.base, managers)  # a float that torch passes as a tensor, and reads back
        if type(source) is LocalSource:
            return self.root.source.child(Access.LOCAL, source.local_name)
        if type(source) is GlobalSource and (scope := self._globals()) is not None:
            return scope.child(Access.DICT_ITEM, source.global_name)
        if isinstance(source, NNModuleSource):
            return self._number(source.base, managers)  # it says what is there, not how to get there
        if type(source) in (AttrSource, CellContentsSource):
            return self._number(source.base, managers).child(Access.ATTR, source.member)
        if type(source) in _ITEMS and type(source.index) in (int, str):
            return self._number(source.base, managers).child(_ITEMS[type(source)], source.index)
        raise NotAnExpression(f"a shape guard reads a {type(source).__name__} that no other guard does")

    def _globals(self) -> Source | None:
        return next((node.source for node in self.nodes.values() if node.source.access is Access.GLOBALS), None)

    def _need_plain_properties(self, node: _Node) -> None:
        """Raises where a tensor's class has a ``size()`` of its own, or the like: native code would not call it."""
        facts = next((item.params[0] for item, _ in node.guards if item.test is Test.TENSOR), None)
        if facts is None:
            return
        kind = _C.object_at(facts.type_id)
        for name in ("size", "stride", "storage_offset"):
            if getattr(kind, name, None) is not getattr(torch.Tensor, name):
                raise NotAnExpression(f"a shape guard reads a tensor whose class has a {name}() of its own")

    # -- writing the set -------------------------------------------------------------------------------------------

    def guard_set(self) -> GuardSet:
        entries: list[tuple[Guard, Provenance]] = []
        _write(self.root, entries)
        return GuardSet([*entries, *self._constant_sizes(), *self.relations, *self.epilogue])

    def _constant_sizes(self) -> Iterable[tuple[Guard, Provenance]]:
        """Tensor guards that check a size because the backend made it constant, with the backend as one more maker."""
        for name, sizes in self.origins.tensors.items():
            made = self.tensor_guards.get(name)
            if made is not None:
                yield from ((made, Provenance("aot", code, stack)) for code, stack in sizes)


def _write(node: _Node, entries: list[tuple[Guard, Provenance]]) -> None:
    """Leaf guards, then children: the order in which torch checks a tree that has never failed."""
    entries += node.guards
    if not node.guards and not node.children:
        entries.append((guard(Test.EXISTS, (node.source,)), Provenance("dynamo", f"{node.source} exists")))
        return
    children = node.children
    if children and children[-1][0] is not _ACCESSOR:
        children = sorted(children, key=lambda child: child[0])
    for _, child in children:
        _write(child, entries)


def _managers(args: tuple[Any, ...]) -> Iterable[Any]:
    for arg in args[:2]:
        yield from arg if isinstance(arg, list) and arg and isinstance(arg[0], native.GuardManager) else ()
        if isinstance(arg, native.GuardManager):
            yield arg


def _dims(dims: Iterable[Any]) -> tuple[int | None, ...]:
    if any(dim is not None and type(dim) is not int for dim in dims):
        raise CannotLift("a tensor guard has symbolic sizes")
    return tuple(dims)


def _read_in(scope: Any, source: Source) -> Source:
    """The source, if torch's function reads it in the same globals. Before 2.15 that of a loaded entry has a copy."""
    if any(step.access is Access.GLOBALS and step.key is not scope for step in source.steps()):
        raise NotAnExpression("a shape guard reads globals as they were saved")
    return source


def _lambda_child(source: Source, function: Callable[..., Any]) -> Source:
    """A module that was imported is a constant whatever the base: Dynamo binds it as the lambda's only default."""
    defaults = getattr(function, "__defaults__", None)
    if defaults and len(defaults) == 1 and function.__code__.co_varnames == ("_", "m"):
        return source.child(Access.CONSTANT, defaults[0])
    return source.child(Access.CALL1, function)


def _torch_leaf(node: _Node, code: list[str]) -> Guard:
    """A leaf guard that has no row in `LEAF_GUARDS`: torch's own object is asked."""
    leaf = node.manager.get_leaf_guards()[-1]
    if isinstance(leaf, native.RelationalGuard) or not callable(leaf):
        raise CannotLift(f"leaf guard {type(leaf).__name__} is not known")
    return guard(Test.TORCH_LEAF, (node.source,), (leaf, " and ".join(code) or type(leaf).__name__))


def lift(records: Iterable[Any], root: Any, origins: Origins | None = None) -> Lifted:
    """The guards of the tree under ``root``, from the calls that built it.

    Args:
        records: what :func:`unified_guards.dynamo.tap.recording` collected.
        root: torch's ``RootGuardManager``. It and every guarded object must still be alive.
        origins: what is known of who caused which guard, beyond what torch passes on.

    Raises:
        CannotLift: some accessor or guard has no exact counterpart here.
    """
    with torch._C.DisableTorchFunction():  # reading an example must not run its class's code
        reader = _Lift(root, origins or Origins())
        reader.read(records)
        if reader.shapes_left is not None:
            tally.shapes_left(reader.shapes_left)
        return Lifted(reader.guard_set(), reader.tensors, reader.examples)
