"""From what Dynamo asked of its guard tree to a :class:`GuardSet`.

The records of one compilation describe a tree of guard managers; :func:`lift` rebuilds it (:class:`_Node`), with
torch's own rules on what a second call of the same kind does, and writes its guards down in the order in which torch
checks them. What cannot be expressed raises :class:`CannotLift`, and torch's tree stays. Entry point: :func:`lift`.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._dynamo import guards as native
from torch._dynamo.source import (
    AttrSource,
    CallMethodItemSource,
    FloatTensorSource,
    TensorProperty,
    TensorPropertySource,
)

from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.dynamo.provenance import Origins
from unified_guards.dynamo.tap import LAMBDA_PARTS, TENSOR_FACTS
from unified_guards.guards.expressions import NotAnExpression, expression, parse, parts_of
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.statistics import tally


class CannotLift(Exception):
    """This frame's guards stay torch's; the message says why, in words that repeat from frame to frame."""


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

#: Accesses of a tensor's numbers, by torch's name.
PROPERTIES = {
    TensorProperty.SIZE: Access.TENSOR_SIZE,
    TensorProperty.STRIDE: Access.TENSOR_STRIDE,
    TensorProperty.STORAGE_OFFSET: Access.TENSOR_OFFSET,
}

#: Leaf guards of which torch keeps the first on a manager and ignores every other, whatever its value.
_ONCE = frozenset(
    {
        TENSOR_FACTS,
        "add_type_match_guard",
        "add_fake_script_type_match_guard",
        "add_id_match_guard",
        "add_none_match_guard",
        "add_true_match_guard",
        "add_false_match_guard",
        "add_equals_match_guard",
        "add_length_check_guard",
        "add_dict_length_check_guard",
        "add_tuple_iterator_length_guard",
        "add_range_iterator_match_guard",
        "add_not_none_guard",
        "add_mapping_keys_guard",
        "add_dispatch_key_set_guard",
        "add_dict_version_guard",
    }
)

#: On the manager of a dict whose keys are guarded these do nothing: that manager checks type and length itself.
_IMPLIED_BY_DICT_MANAGER = frozenset({"add_type_match_guard", "add_dict_length_check_guard"})


_QUALNAME = vars(type)["__qualname__"]
_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def described(address: int) -> str:
    """A name for the object at an address that is alive; without an address, so that it repeats from run to run.

    Asks only what answers without running user code: a module may import others when asked for an attribute.
    """
    value = _C.object_at(address)
    if isinstance(value, type):
        module = type.__dict__["__module__"].__get__(value)
        name = _QUALNAME.__get__(value)
    elif isinstance(value, types.ModuleType):
        module, name = None, types.ModuleType.__getattribute__(value, "__dict__").get("__name__")
    elif isinstance(value, _NAMED):
        module, name = value.__module__, value.__qualname__
    else:
        return f"that {_QUALNAME.__get__(type(value))}"
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)


class _Leaves(dict[str, Source]):
    """What the text of a source of torch stands for, found when it is asked for."""

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
        self.tensors: dict[str, Guard] = {}
        self.root = _Node(Source.frame(), root)
        self.nodes: dict[int, _Node] = {id(root): self.root}
        self.relations: list[tuple[Guard, Provenance]] = []
        self.epilogue: list[tuple[Guard, Provenance]] = []
        self.descriptions: dict[int, str] = {}
        self.shapes_left: str | None = None  # why shape guards stay torch's function
        self.parts: tuple[list[str], list[str], str, dict[str, Any]] | None = None

    # -- reading the records ---------------------------------------------------------------------------------------

    def read(self, records: Iterable[tuple[str, Any, tuple[Any, ...], dict[str, Any], Any]]) -> None:
        nodes = self.nodes
        for method, manager, args, kwargs, result in records:
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
        node.guards.append((guard(Test.TYPE_IS, (node.source,), (id(kind), self._describe(id(kind)))), maker))
        length = dict.__len__(example)
        node.guards.append((guard(Test.DICT_LENGTH, (node.source,), (length,)), maker))
        node.closed = length == 0

    # -- leaf guards -----------------------------------------------------------------------------------------------

    def _leaf(self, node: _Node, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if node.closed:
            return
        if method in _ONCE:
            if method in node.once:
                return
            node.once.add(method)
        if method in _IMPLIED_BY_DICT_MANAGER and isinstance(node.manager, native.DictGuardManager):
            return
        if method == "add_epilogue_lambda_guard":
            self._epilogue(args)
            return
        if method == TENSOR_FACTS:
            code, stack = kwargs["verbose_code_parts"], kwargs["user_stack"]
            made = self.tensors[kwargs["tensor_name"]] = self._tensor(node.source, args, kwargs)
        else:
            code, stack = args[-2], args[-1]
            make = _LEAVES.get(method)
            made = make(self, node.source, args) if make is not None else _torch_leaf(node, code)
        node.guards.append((made, Provenance("dynamo", code[0] if code else "", stack)))

    def _describe(self, address: int) -> str:
        known = self.descriptions.get(address)
        if known is None:
            known = self.descriptions[address] = described(address)
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
            self._describe(id(kind)),
            str(value.dtype).removeprefix("torch."),
        )
        return guard(Test.TENSOR, (source,), (facts,))

    # -- relations and epilogues -----------------------------------------------------------------------------------

    def _function(self, method: str, args: tuple[Any, ...]) -> None:
        if method == LAMBDA_PARTS:
            self.parts = args
            return
        nodes = [self.nodes.get(id(manager)) for manager in _managers(args)]
        if None in nodes:
            return  # belongs to a tree that was thrown away
        if any(node.closed for node in nodes if node is not None) and method != "install_no_tensor_aliasing_guard":
            return  # below an empty dict: torch never gets to all of its parts, and so never to the guard
        if method == "install_object_aliasing_guard":
            pair = (self.nodes[id(args[0])].source, self.nodes[id(args[1])].source)
            # Dynamo's own say the same with a stack.
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
            found = [part for part in parts if (part in self.origins.asked) is (maker == "aot")]
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
            pair = _same_object(part, function)
            if pair is not None:
                self.relations += self._made_by(guard(Test.SAME, pair), maker, code, stack)
            else:
                made = guard(Test.SHAPE, (Source.frame(),), (function, part))
                self.epilogue += self._made_by(made, maker, code, stack)

    # -- shapes ----------------------------------------------------------------------------------------------------

    def _shapes(
        self, function: Callable[..., Any], parts: list[str], verbose: list[str], managers: dict[str, Any]
    ) -> None:
        """What the ShapeEnv guards on, as expressions; where a part of it cannot be one, all stays torch's function."""
        try:
            leaves = _Leaves(self.origins.sources, lambda source: self._number(source, managers))
            made = [[expression(each, function) for each in parts_of(parse(part, leaves))] for part in parts]
            if not compat.indicator_takes_numbers() and any("IsNonOverlapping" in part for part in parts):
                raise NotAnExpression("IsNonOverlappingAndDenseIndicator always raises in this torch")
        except NotAnExpression as reason:
            self.shapes_left = str(reason)
            made = [[guard(Test.SHAPE, (Source.frame(),), (function, part))] for part in parts]
        for part, code, guards in zip(parts, verbose, made, strict=False):
            maker = "aot" if part in self.origins.asked else "shape_env"
            for item in guards:
                self.epilogue += self._made_by(item, maker, code)

    def _number(self, source: Any, managers: dict[str, Any]) -> Source:
        """Where the tree has what a shape guard reads."""
        node = self.nodes.get(id(managers.get(source.name)))
        if node is not None:
            self._need_plain_properties(node)
            return node.source
        if isinstance(source, TensorPropertySource):
            return self._number(source.base, managers).child(PROPERTIES[source.prop], source.idx)
        if type(source) is CallMethodItemSource and type(source.base) is FloatTensorSource:
            return self._number(source.base.base, managers)  # a float by way of a tensor, of its own precision
        if type(source) is AttrSource:
            return self._number(source.base, managers).child(Access.ATTR, source.member)
        raise NotAnExpression(f"a shape guard reads a {type(source).__name__} that no other guard does")

    def _need_plain_properties(self, node: _Node) -> None:
        """Torch's function calls the methods of the tensor's class, native code reads the tensor."""
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
        """Tensor guards that check a size because the backend made it constant: a maker more for each such size."""
        for name, sizes in self.origins.tensors.items():
            made = self.tensors.get(name)
            if made is not None:
                yield from ((made, Provenance("aot", code, stack)) for code, stack in sizes)


def _same_object(part: str, function: Callable[..., Any]) -> tuple[Source, Source] | None:
    """The two sides of ``a is b``, when both are paths."""
    try:
        tree = ast.parse(part.strip(), mode="eval").body
    except SyntaxError:
        return None
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Is)):
        return None
    left, right = _path(tree.left, function), _path(tree.comparators[0], function)
    return (left, right) if left is not None and right is not None else None


def _path(tree: ast.expr, function: Callable[..., Any]) -> Source | None:
    """An expression of names, attributes, constant items and types, with the meaning that Python gives it."""
    if isinstance(tree, ast.Name):
        if tree.id == "L":
            return Source.frame()
        scope = getattr(function, "__globals__", {}).get("G") if tree.id == "G" else None
        return Source.frame().child(Access.GLOBALS, scope) if isinstance(scope, dict) else None
    if isinstance(tree, ast.Attribute):
        base = _path(tree.value, function)
        return None if base is None or base is Source.frame() else base.child(Access.ATTR, tree.attr)
    if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Constant):
        base = _path(tree.value, function)
        if base is None:
            return None
        key = tree.slice.value
        if base is Source.frame():
            return base.child(Access.LOCAL, key)
        return base.child(Access.DICT_ITEM if base.access is Access.GLOBALS else Access.ITEM, key)
    if isinstance(tree, ast.Call) and _is_type(tree, function):
        base = _path(tree.args[0], function)
        return None if base is None or base is Source.frame() else base.child(Access.TYPE)
    return None


def _is_type(tree: ast.Call, function: Callable[..., Any]) -> bool:
    """Whether a call asks for the type of one object."""
    if not isinstance(tree.func, ast.Name) or tree.func.id != "type" or len(tree.args) != 1 or tree.keywords:
        return False
    code = function.__code__
    return "type" not in (*code.co_varnames, *code.co_freevars, *function.__globals__)  # the builtin, then


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


def _lambda_child(source: Source, function: Callable[..., Any]) -> Source:
    """A module that was imported is a constant whatever the base: Dynamo binds it as the lambda's only default."""
    defaults = getattr(function, "__defaults__", None)
    if defaults and len(defaults) == 1 and function.__code__.co_varnames == ("_", "m"):
        return source.child(Access.CONSTANT, defaults[0])
    return source.child(Access.CALL1, function)


def _torch_leaf(node: _Node, code: list[str]) -> Guard:
    """A leaf guard that we do not know: torch's own object is asked."""
    leaf = node.manager.get_leaf_guards()[-1]
    if isinstance(leaf, native.RelationalGuard) or not callable(leaf):
        raise CannotLift(f"leaf guard {type(leaf).__name__} is not known")
    return guard(Test.TORCH_LEAF, (node.source,), (leaf, " and ".join(code) or type(leaf).__name__))


def _torch_id(lift: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.IS, (source,), (args[0], lift._describe(args[0])))


def _type(lift: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.TYPE_IS, (source,), (args[0], lift._describe(args[0])))


def _equals(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    bits = type(args[0]) in (float, complex) and compat.compares_float_bits()
    return guard(Test.SAME_BITS if bits else Test.EQUALS, (source,), (args[0],))


def _nan(test: Test) -> Callable[[_Lift, Source, tuple[Any, ...]], Guard]:
    def make(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
        value = compat.nan_guard_value(args)
        return guard(Test.SAME_BITS, (source,), value) if value else guard(test, (source,))

    return make


def _default_device(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    from torch.utils import _device

    return guard(Test.DEFAULT_DEVICE, (source,), (_device.CURRENT_DEVICE,))


def _dict_version(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DICT_VERSION, (source,), (native.dict_version(args[0]),))


def _dispatch_keys(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DISPATCH_KEYS, (source,), (_C.apply_dispatch_state(args[0].raw_repr()),))


def _marking(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DIM_MARKING, (source,), args[:3])


def _dynamic_indices(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DYNAMIC_INDICES, (source,), ("_dynamo_dynamic_indices", args[0]))


_HOOKS = "AUTOGRAD_SAVED_TENSORS_HOOKS.<locals>.fn"


def _predicate(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
    """A Python function. That of the saved-tensors hooks is known by name: it holds the ids that it expects."""
    function, code = args[0], args[1]
    if getattr(function, "__qualname__", "").endswith(_HOOKS):
        names = function.__code__.co_freevars
        if "guard_hooks_ids" in names:
            ids = function.__closure__[names.index("guard_hooks_ids")].cell_contents
            return guard(Test.SAVED_HOOKS, (source,), (ids, function))
    return guard(Test.PREDICATE, (source,), (function, " and ".join(code)))


def _plain(test: Test, count: int) -> Callable[[_Lift, Source, tuple[Any, ...]], Guard]:
    """A guard whose parameters are the first ``count`` arguments."""

    def make(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
        return guard(test, (source,), args[:count])

    return make


def _singleton(test: Test, value: object) -> Callable[[_Lift, Source, tuple[Any, ...]], Guard]:
    def make(_: _Lift, source: Source, args: tuple[Any, ...]) -> Guard:
        return guard(test, (source,), (id(value), repr(value)))

    return make


_LEAVES: dict[str, Callable[[_Lift, Source, tuple[Any, ...]], Guard]] = {
    "add_type_match_guard": _type,
    "add_fake_script_type_match_guard": lambda lift, source, args: guard(
        Test.SCRIPT_TYPE, (source,), (args[1], lift._describe(args[1]), args[0])
    ),
    "add_id_match_guard": _torch_id,
    "add_none_match_guard": _singleton(Test.IS, None),
    "add_true_match_guard": _singleton(Test.IS, True),
    "add_false_match_guard": _singleton(Test.IS, False),
    "add_not_none_guard": _singleton(Test.IS_NOT, None),
    "add_equals_match_guard": _equals,
    "add_length_check_guard": lambda lift, source, args: guard(
        Test.LENGTH, (source,), (args[0], compat.measures_sets())
    ),
    "add_dict_length_check_guard": _plain(Test.DICT_LENGTH, 1),
    "add_tuple_iterator_length_guard": _plain(Test.TUPLE_ITER_LEN, 2),
    "add_range_iterator_match_guard": _plain(Test.RANGE_ITER, 4),
    "add_mapping_keys_guard": lambda lift, source, args: guard(Test.MAPPING_KEYS, (source,), (tuple(args[0].keys()),)),
    "add_dict_contains_guard": lambda lift, source, args: guard(Test.DICT_CONTAINS, (source,), (args[1], args[0])),
    "add_set_contains_guard": lambda lift, source, args: guard(Test.SET_CONTAINS, (source,), (args[1], args[0])),
    "add_no_hasattr_guard": _plain(Test.NO_ATTR, 1),
    "add_float_is_nan_guard": _nan(Test.FLOAT_NAN),
    "add_complex_is_nan_guard": _nan(Test.COMPLEX_NAN),
    "add_dual_level_match_guard": _plain(Test.DUAL_LEVEL, 1),
    "add_default_device_guard": _default_device,
    "add_global_state_guard": _plain(Test.GLOBAL_STATE, 1),
    "add_torch_function_mode_stack_guard": lambda lift, source, args: guard(
        Test.MODE_STACK, (source,), (tuple(type(mode) for mode in args[0]),)
    ),
    "add_dict_version_guard": _dict_version,
    "add_dispatch_key_set_guard": _dispatch_keys,
    "add_dimension_marking_guard": _marking,
    "add_dynamic_indices_guard": _dynamic_indices,
    "add_lambda_guard": _predicate,
}


def lift(records: Iterable[Any], root: Any, origins: Origins | None = None) -> GuardSet:
    """The guards of the tree under ``root``, from the calls that built it.

    Args:
        records: what :func:`unified_guards.dynamo.tap.recording` collected.
        root: torch's ``RootGuardManager``, still alive, and every guarded object with it.
        origins: what is known of who caused which guard, beyond what torch passes on.

    Raises:
        CannotLift: some accessor or guard has no exact counterpart here.
    """
    with torch._C.DisableTorchFunction():  # reading an example must not run its class's code
        reader = _Lift(root, origins or Origins())
        reader.read(records)
        if reader.shapes_left is not None:
            tally.shapes_left(reader.shapes_left)
        return reader.guard_set()
