"""What a function reads beside its arguments, lifted as far as it can be seen.

Seen are: the code, defaults, attributes and closure of the function and of every function that it reaches by name; the
globals that their code names; modules (``torch.nn.Module``) with their parameters, buffers, flags, plain attributes and
forward hooks; instances of other classes with their attributes and those of their classes; containers; of Python
modules and classes what is taken of them by name, or everything plain when they go by another name. Not seen is what
torch, the standard library and numpy keep to themselves, what is read by a computed name, and the insides of C objects.
Entry point: :class:`State`.
"""

from __future__ import annotations

import argparse
import array
import builtins
import collections
import contextlib
import functools
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses import FakeTensor

from unified_guards.aot.code import attributes_named, globals_written, modules_imported, names_read
from unified_guards.aot.lifting import Leaf, Lifting, Role, is_constant
from unified_guards.aot.places import (
    Place,
    attribute_place,
    cell_place,
    deque_place,
    dict_place,
    item_place,
    list_place,
    memo_place,
    set_place,
)
from unified_guards.errors import Unguardable
from unified_guards.guards.ir import Access, Provenance, Source, Test

_OWN_PACKAGES = frozenset({"torch", "functorch", "numpy", "unified_guards", "builtins"}) | sys.stdlib_module_names
#: What `torch.nn.Module.__call__` looks at beside `forward`.
_HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
#: Bookkeeping of torch's modules that no forward reads.
_BOOKKEEPING = frozenset(
    {
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks_with_kwargs",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    }
)
#: Classes of the standard library that are nothing but what a user puts into them.
_HOLDERS = (
    types.SimpleNamespace,
    argparse.Namespace,
    collections.UserDict,
    collections.UserList,
    collections.UserString,
)
#: Special methods that no forward calls.
_NOT_CALLED = frozenset(
    f"__{name}__"
    for name in [
        "repr",
        "str",
        "reduce",
        "reduce_ex",
        "getstate",
        "setstate",
        "deepcopy",
        "copy",
        "dir",
        "del",
        "init_subclass",
        "class_getitem",
    ]
)
#: What a recurrent module makes of its parameters, whenever these are other objects.
_FLAT_WEIGHTS = frozenset({"_flat_weights", "_flat_weight_refs"})
#: What torch.fx notes on a graph module, for itself.
_GRAPH_NOTES = frozenset({"meta", "_graph"})
#: A function that sees more than this sees the whole program, through some object that knows everything.
_MOST_ITEMS = 100_000
#: Their contents can change in a way that no guard sees.
_BUFFERS: tuple[type, ...] = (bytearray, memoryview, array.array)
_BUILTINS = vars(builtins)


def _is_trusted(module: object) -> bool:
    """Whether code of this module is taken as it is: torch's, the standard library's, numpy's."""
    name = module if isinstance(module, str) else ""
    return name.partition(".")[0] in _OWN_PACKAGES and name != "__main__"


def _is_holder(value: object) -> bool:
    return isinstance(value, _HOLDERS) or not _is_trusted(type(value).__module__)


def _has_hidden_state(value: object) -> bool:
    kind = type(value)
    if isinstance(value, _BUFFERS) or hasattr(kind, "__next__"):
        return True
    return kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "__array_interface__")


def defined_at(target: object) -> traceback.StackSummary | None:
    """The line where a function starts, as the stack of a provenance."""
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    if not isinstance(code, types.CodeType):
        return None
    return traceback.StackSummary.from_list([(code.co_filename, code.co_firstlineno, code.co_name, None)])


class State:
    """Lifts what a callable reads beside its arguments into a :class:`Lifting`, and objects among its arguments.

    Args:
        lifting: where guards and leaves go.
    """

    def __init__(self, lifting: Lifting) -> None:
        self.lifting = lifting
        self.places: list[Place] = []
        self._seen: set[int] = set()
        self._namespaces: set[int] = set()
        self._mentioned: set[str] = set()
        self._methods: list[tuple[str, types.FunctionType]] = []
        self._depth = 0  # of functions that lead here
        self.asks_for_types = False  # by isinstance() or type()
        lifting.beyond = self.value

    def callable(self, target: Callable[..., Any]) -> None:
        """Lifts everything that can be seen from ``target``, a function, method, module or other callable."""
        source = Source.frame().child(Access.CONSTANT, target)
        self.lifting.keep(target)
        self._seen.add(id(target))
        self._contents(target, source, Provenance("aot", "the function", defined_at(target)))
        while self._visit_methods():
            pass

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, value: Any, source: Source, maker: Provenance) -> None:
        """Lifts a value that stays what it is while the function is traced."""
        lifting = self.lifting
        if lifting.constant(value, source, maker):
            return
        if isinstance(value, torch.Tensor):
            self._tensor(value, source, maker)
            return
        if len(lifting.items) > _MOST_ITEMS:
            raise Unguardable(f"the function can see more than {_MOST_ITEMS} values")
        if type(value) in (slice, range):
            lifting.parts(value, ("start", "stop", "step"), source, maker)
            return
        if _has_hidden_state(value) and self._depth <= 1:  # further away it counts as the inside of a C object
            kind = type(value)
            raise Unguardable(f"the contents of a {kind.__module__}.{kind.__qualname__} cannot be guarded ({source})")
        if id(value) in self._seen:
            lifting.is_object(value, source, maker)
            return
        self._seen.add(id(value))
        if not self._container(value, source, maker):
            lifting.is_object(value, source, maker)
        self._contents(value, source, maker)

    def _tensor(self, value: torch.Tensor, source: Source, maker: Provenance) -> None:
        if isinstance(value, FakeTensor):
            self.lifting.is_object(value, source, maker)  # left over from some tracing: no input of ours
        else:
            self.lifting.tensor(value, source, Role.CAPTURED, maker)

    def _contents(self, value: Any, source: Source, maker: Provenance) -> None:
        if isinstance(value, torch.nn.Module):
            self._module(value, source)
        elif isinstance(value, types.FunctionType):
            self._function(value, source)
        elif isinstance(value, types.MethodType):
            self.value(value.__func__, source.child(Access.ATTR, "__func__"), maker)
            self.value(value.__self__, source.child(Access.ATTR, "__self__"), maker)
        elif isinstance(value, functools.partial):
            for name in ("func", "args", "keywords"):
                self.value(getattr(value, name), source.child(Access.ATTR, name), maker)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.places.append(memo_place(value))
            self.value(value.__wrapped__, source.child(Access.ATTR, "__wrapped__"), maker)
        elif isinstance(value, types.ModuleType):
            self._whole_module(value, maker)
        elif isinstance(value, type):
            self._class(value)
        elif _is_holder(value):
            self._instance(value, source)

    # -- containers ------------------------------------------------------------------------------------------------

    def _container(self, value: Any, source: Source, maker: Provenance) -> bool:
        """Lifts the items of a container, by its raw contents; says whether it is one."""
        if isinstance(value, dict):
            self._dict(value, source, maker)
        elif isinstance(value, list):
            self.places.append(list_place(str(source), value))
            self._items(value, source, Access.LIST_ITEM, maker)
        elif isinstance(value, tuple):
            self._items(value, source, Access.TUPLE_ITEM, maker)
        elif isinstance(value, collections.deque):
            self.places.append(deque_place(str(source), value))
            self._items(value, source, Access.ITEM, maker)
        elif isinstance(value, set | frozenset):
            self._set(value, source, maker)
        elif isinstance(value, types.MappingProxyType):
            self._proxy(value, source, maker)
        else:
            return False
        return True

    def _items(self, value: Any, source: Source, access: Access, maker: Provenance) -> None:
        self.lifting.is_type(value, source, maker)
        self.lifting.add(Test.LENGTH, source, (len(value), True), maker)
        for at, item in enumerate(value):
            self.value(item, source.child(access, at), maker)

    def _set(self, value: Any, source: Source, maker: Provenance) -> None:
        if isinstance(value, set):
            self.places.append(set_place(str(source), value))
        else:
            self.lifting.constants.add(id(value))
        self._items(value, source, Access.SET_ITEM, maker)

    def _dict(self, value: dict[Any, Any], source: Source, maker: Provenance) -> None:
        self.places.append(dict_place(str(source), value))
        self.lifting.keys(value, source, maker)
        for at, (key, item) in enumerate(dict.items(value)):
            self.value(item, self.lifting.item_source(source, key, at), maker)

    def _proxy(self, value: types.MappingProxyType[Any, Any], source: Source, maker: Provenance) -> None:
        keys = tuple(value)
        for key in keys:
            self.lifting.keep(key)
        self.lifting.is_type(value, source, maker)
        self.lifting.add(Test.MAPPING_KEYS, source, (keys,), maker)
        for key in keys:
            self.value(value[key], source.child(Access.ITEM, key), maker)

    # -- functions -------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType, source: Source) -> None:
        if _is_trusted(function.__module__):
            return
        self._depth += 1
        try:
            self._parts_of_function(function, source)
        finally:
            self._depth -= 1

    def _parts_of_function(self, function: types.FunctionType, source: Source) -> None:
        code, line = function.__code__, defined_at(function)
        self._mentioned.update(attributes_named(code))
        where = f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})"
        self.lifting.is_object(code, source.child(Access.FUNC_CODE), Provenance("aot", f"the code of {where}", line))
        maker = Provenance("aot", f"the defaults of {where}", line)
        for access, values in (
            (Access.FUNC_DEFAULTS, function.__defaults__),
            (Access.FUNC_KWDEFAULTS, function.__kwdefaults__),
        ):
            if values:
                self.value(values, source.child(access), maker)
        if vars(function):
            self._names(vars(function), source.child(Access.GENERIC_DICT), f"an attribute of {where}")
        self._closure(function, source, where)
        self._globals(function, where)

    def _closure(self, function: types.FunctionType, source: Source, where: str) -> None:
        cells, reads = source.child(Access.FUNC_CLOSURE), names_read(function.__code__)
        for at, (name, cell) in enumerate(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)):
            below = cells.child(Access.TUPLE_ITEM, at).child(Access.ATTR, "cell_contents")
            self.places.append(cell_place(str(below), cell))
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # not assigned yet: reading it would be an error
            maker = Provenance("aot", f"{name}, a variable around {where}", defined_at(function))
            own = [read.attributes for read in reads if not read.is_global and read.name == name]
            for attributes in own or [()]:
                self._path(value, below, attributes, maker)

    def _globals(self, function: types.FunctionType, where: str) -> None:
        scope, code = function.__globals__, function.__code__
        names = Source.frame().child(Access.GLOBALS, scope)
        for name in globals_written(code):
            self.places.append(item_place(str(names.child(Access.DICT_ITEM, name)), scope, name))
        for name in modules_imported(code):
            module = sys.modules.get(name)
            if module is not None:
                self._whole_module(module, Provenance("aot", f"{name}, which {where} imports", defined_at(function)))
        for read in names_read(code):
            self.asks_for_types |= read.name in ("isinstance", "type")
            maker = Provenance("aot", f"{read.name}, a global that {where} names", defined_at(function))
            if not read.is_global:
                continue
            if read.name in scope:
                source = names.child(Access.DICT_ITEM, read.name)
                self.places.append(item_place(str(source), scope, read.name))
                self._path(scope[read.name], source, read.attributes, maker)
            elif read.name in _BUILTINS:
                self.lifting.add(Test.DICT_CONTAINS, names, (read.name, False), maker)

    def _path(self, value: Any, source: Source, attributes: tuple[str, ...], maker: Provenance) -> None:
        """Lifts what code takes of a name: of modules and classes only the attributes that it names there."""
        if isinstance(value, types.ModuleType) and attributes:
            self._attribute_of_module(value, source, attributes, maker)
        elif isinstance(value, type) and attributes:
            self._attribute_of_class(value, source, attributes, maker)
        else:
            self.value(value, source, maker)

    def _attribute_of_module(
        self, value: types.ModuleType, source: Source, attributes: tuple[str, ...], maker: Provenance
    ) -> None:
        if _is_trusted(value.__name__):
            return
        self.lifting.is_object(value, source, maker)
        names, name = vars(value), attributes[0]
        below = source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, name)
        self.places.append(item_place(str(below), names, name))
        if name in names:
            self._path(names[name], below, attributes[1:], maker)

    def _attribute_of_class(self, value: type, source: Source, attributes: tuple[str, ...], maker: Provenance) -> None:
        self.lifting.is_object(value, source, maker)
        if _is_trusted(value.__module__):
            return
        name = attributes[0]
        owner = next((base for base in value.__mro__ if name in vars(base)), None)
        if owner is None:
            return
        found = vars(owner)[name]
        if hasattr(type(found), "__get__"):
            self._class(value)
        else:
            self.places.append(attribute_place(f"{source}.{name}", value, name))
            self._path(found, source.child(Access.ATTR, name), attributes[1:], maker)

    def _whole_module(self, module: types.ModuleType, maker: Provenance) -> None:
        """What is plain of a Python module that goes by another name than its global."""
        if _is_trusted(module.__name__) or id(module) in self._namespaces:
            return
        self._namespaces.add(id(module))
        names = Source.frame().child(Access.CONSTANT, module).child(Access.GENERIC_DICT)
        for name, value in list(vars(module).items()):
            if not name.startswith("__") and self._is_plain(value):
                below = names.child(Access.DICT_ITEM, name)
                self.places.append(item_place(str(below), vars(module), name))
                self.value(value, below, maker)

    @staticmethod
    def _is_plain(value: object) -> bool:
        return is_constant(value) or isinstance(value, torch.Tensor | tuple | list | dict | set)

    # -- objects ---------------------------------------------------------------------------------------------------

    def _visit_methods(self) -> int:
        """What the methods read that some code names or Python calls by itself; a class may get others unseen."""
        waiting, self._methods = self._methods, []
        visited = 0
        for name, function in waiting:
            if name not in self._mentioned and (not name.startswith("__") or name in _NOT_CALLED):
                self._methods.append((name, function))
            elif id(function) not in self._seen:
                visited += 1
                self._seen.add(id(function))
                self.lifting.keep(function)
                self._function(function, Source.frame().child(Access.CONSTANT, function))
        return visited

    def _method(self, name: str, found: Any) -> None:
        for function in (found, getattr(found, "__func__", None), getattr(found, "fget", None)):
            if isinstance(function, types.FunctionType):
                self._methods.append((name, function))

    def _class(self, kind: type) -> None:
        """What the methods of a class read, and its plain attributes."""
        for base in kind.__mro__:
            if id(base) in self._namespaces or _is_trusted(base.__module__):
                continue
            self._namespaces.add(id(base))
            self.lifting.keep(base)
            maker = Provenance("aot", f"an attribute of class {base.__qualname__}")
            names = Source.frame().child(Access.CONSTANT, base).child(Access.TYPE_DICT)
            for name, found in list(vars(base).items()):
                self._method(name, found)
                if not name.startswith("__") and self._is_plain(found):
                    self.places.append(attribute_place(f"{base.__qualname__}.{name}", base, name))
                    self.value(found, names.child(Access.DICT_ITEM, name), maker)

    def _instance(self, value: Any, source: Source) -> None:
        self._class(type(value))
        names = getattr(value, "__dict__", None)
        if isinstance(names, dict):
            self._names(names, source.child(Access.GENERIC_DICT), f"an attribute of {source}")
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    self._slot(value, name, source.child(Access.ATTR, name))

    def _slot(self, value: Any, name: str, source: Source) -> None:
        with contextlib.suppress(AttributeError):
            found = getattr(value, name)
            self.places.append(attribute_place(str(source), value, name))
            self.value(found, source, Provenance("aot", f"a slot, {source}"))

    def _names(self, names: dict[str, Any], source: Source, code: str) -> None:
        maker = Provenance("aot", code)
        self.places.append(dict_place(str(source), names))
        self.lifting.keys(names, source, maker)
        for at, (name, value) in enumerate(names.items()):
            self.value(value, self.lifting.item_source(source, name, at), maker)

    # -- modules ---------------------------------------------------------------------------------------------------

    def _module(self, module: torch.nn.Module, source: Source) -> None:
        self._mentioned.add("forward")
        self._class(type(module))
        names = vars(module)
        below = source.child(Access.GENERIC_DICT)
        maker = Provenance("aot", f"an attribute of {type(module).__module__}.{type(module).__qualname__}")
        weights = _FLAT_WEIGHTS if isinstance(module, torch.nn.RNNBase) else frozenset()
        self.places.append(dict_place(str(below), names, weights))
        self.lifting.keys(names, below, maker)
        skipped = _BOOKKEEPING | _GRAPH_NOTES if isinstance(module, torch.fx.GraphModule) else _BOOKKEEPING
        for name, value in names.items():
            item = below.child(Access.DICT_ITEM, name)
            if name in _HOOKS and not value:
                self.lifting.add(Test.DICT_LENGTH, item, (0,), maker)
            elif name == "_parameters":
                self._tensors(value, item, Role.PARAMETER)
            elif name == "_buffers":
                self._tensors(value, item, Role.BUFFER)
            elif name not in skipped:
                self.value(value, item, maker)
                leaf = self.lifting.known_leaf(value)
                if leaf is not None:
                    leaf.places.append((names, name))

    def _tensors(self, found: dict[str, Any], source: Source, role: Role) -> None:
        maker = Provenance("aot", f"a {role.value} of a module")
        self.places.append(dict_place(str(source), found))
        self.lifting.keys(found, source, maker)
        for name, value in found.items():
            item = source.child(Access.DICT_ITEM, name)
            if value is None:
                self.lifting.constant(value, item, maker)
            else:
                self.lifting.tensor(value, item, role, maker).places.append((found, name))

    # -- side effects ----------------------------------------------------------------------------------------------

    def restore(self) -> str | None:
        """Puts back everything that was read, and says what had changed."""
        changed = None
        for place in self.places:
            if place.changed():
                changed = changed or place.text
                place.restore()
        return changed


@contextlib.contextmanager
def standing_in(leaves: list[Leaf], traced: dict[Leaf, Any]) -> Iterator[None]:
    """Modules hold the traced tensors in place of their own inside the block."""
    for leaf in leaves:
        for names, name in leaf.places:
            names[name] = traced[leaf]
    try:
        yield
    finally:
        for leaf in leaves:
            for names, name in leaf.places:
                if names.get(name) is traced[leaf]:
                    names[name] = leaf.value
