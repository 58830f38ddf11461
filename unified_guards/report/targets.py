"""What a report is about: the code that Dynamo compiles for what the user names. Entry point: :func:`find`."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._dynamo.eval_frame import OptimizedModule, _debug_get_cache_entry_list
from torch.nn.modules.module import Module

from unified_guards.dynamo import compat, made
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.guards.ir import Access, Guard, GuardSet, Source

_TORCH, _STDLIB = os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.__file__) + os.sep
#: The methods of a class that torch.compile(class) compiles.
_CALLS = ("__call__", "_call_impl")
#: How torch compiles a whole module.
_WHOLE = (Module._wrapped_call_impl, Module._call_impl)


class Target:
    """What was found.

    Attributes:
        wrappers: what ``torch.compile`` returned for it.
        callees: what these call, and the functions themselves.
        owners: objects of which every compiled method is meant.
        codes: the code of its own that Dynamo may have compiled.
        locals: for each code of its own, by its ``id``, what is known of the locals: what the function is a method of
            or stands for.
    """

    def __init__(self) -> None:
        self.wrappers: list[types.FunctionType] = []
        self.callees: list[made.Callee] = []
        self.owners: list[Any] = []
        self.codes: list[types.CodeType] = []
        self.locals: dict[int, list[dict[str, Any]]] = {}
        self._by_wrapper: set[int] = set()
        self._resumed: set[int] = set()
        self._visited: list[Any] = []

    @property
    def name(self) -> str:
        """What the user has named, by the name of the function or of the class."""
        named = self._visited[0]
        if self.wrappers and named is self.wrappers[0] and self.callees and self.callees[0].owner is not None:
            callee = self.callees[0]
            named = callee.owner if callee.function.__code__ is compat.inliner() else callee.function
        return made.short_name_of(getattr(named, "_orig_mod", named))

    def visit(self, item: Any, *, wrapped: bool = False) -> None:
        """Adds what an object stands for. ``wrapped``: it is what one of `wrappers` calls."""
        if any(item is each for each in self._visited):
            return
        self._visited.append(item)
        if isinstance(item, types.CodeType):
            self._add(item, {})
        elif isinstance(item, Module):
            self._visit_module(item)
        elif isinstance(item, type):
            for name in _CALLS:
                self.visit(vars(item).get(name))
        elif isinstance(item, types.MethodType):
            self._visit_method(item, wrapped)
        elif isinstance(item, types.FunctionType):
            self._visit_function(item, wrapped)
        elif callable(item):
            self._visit_callable(item)

    def _add(self, code: types.CodeType, known: dict[str, Any], *, wrapped: bool = False) -> None:
        if id(code) not in self.locals:
            self.codes.append(code)
        self.locals.setdefault(id(code), []).append(known)
        if wrapped:
            self._by_wrapper.add(id(code))

    def _visit_function(self, function: types.FunctionType, wrapped: bool) -> None:
        given = vars(function)
        inner = given.get("_torchdynamo_orig_callable")
        is_torchs = given.get("_torchdynamo_wrapper_id", id(function)) == id(function)
        if inner is not None and is_torchs:  # else functools.wraps has copied the attributes
            if compat.is_compile_wrapper(function.__code__):
                self.wrappers.append(function)
            self.visit(inner, wrapped=True)
            return
        callee = made.callee_of(function)
        self.callees.append(callee)
        known = {} if callee.owner is None else {function.__code__.co_freevars[0]: callee.owner}
        self._add(function.__code__, known, wrapped=wrapped)
        self.visit(callee.owner)
        self.visit(given.get("__wrapped__"))

    def _visit_method(self, method: types.MethodType, wrapped: bool) -> None:
        self.callees.append(made.callee_of(method))
        if method.__func__ in _WHOLE:
            self.visit(method.__self__)
        code = getattr(method.__func__, "__code__", None)
        if isinstance(code, types.CodeType):
            self._add(code, dict(zip(code.co_varnames, (method.__self__,), strict=False)), wrapped=wrapped)
        self.visit(method.__func__)

    def _visit_callable(self, item: Any) -> None:
        """A partial, a builtin function, or an object whose class has a ``__call__``: torch wraps it."""
        self.owners.append(item)
        self._add(compat.inliner(), {})
        if isinstance(item, functools.partial):
            self.visit(item.func)
        call = vars(type(item)).get("__call__")
        if isinstance(call, types.FunctionType):
            self.visit(types.MethodType(call, item))

    def _visit_module(self, module: Module) -> None:
        """A module, and those of its parts that were compiled in place."""
        given = vars(module)
        if isinstance(module, OptimizedModule):
            self.visit(given.get("_forward") or given.get("forward"))
            self.visit(module._orig_mod)
            return
        self.owners.append(module)
        self.visit(given.get("_compiled_call_impl"))
        self.visit(module.forward)
        self._add(compat.inliner(), {})
        for part in module.modules():
            if isinstance(part, OptimizedModule) or not {"_compiled_call_impl", "forward"}.isdisjoint(vars(part)):
                self.visit(part)

    # -- what was compiled for it --------------------------------------------------------------------------------------

    def compiled(self) -> Iterator[types.CodeType]:
        """All code that was compiled for it: its own, what its calls had compiled, and what follows graph breaks."""
        reached = [code for code in made.seen() if self._was_reached(code)]
        waiting, done = [*self.codes, *reached], set()
        while waiting:
            code = waiting.pop(0)
            if id(code) not in done:
                done.add(id(code))
                yield code
                after = list(_resumed(code))
                if self._is_all_its(code):
                    self._resumed |= set(map(id, after))
                waiting[:0] = after

    def _was_reached(self, code: types.CodeType) -> bool:
        known = (made.of(entry.guard_manager) for entry in _debug_get_cache_entry_list(code))
        tried = made.uncompiled(code)
        given_up = tried is not None and tried.failed and made.is_of(tried, self.callees, self.owners)
        return given_up or any(made.is_of(each, self.callees, self.owners) for each in known if each is not None)

    def _is_all_its(self, code: types.CodeType) -> bool:
        """Whether all entries of the code count: it is the user's own, or nothing but the code was named."""
        is_own = id(code) in self.locals and (not _is_shared(code) or not self.callees)
        return is_own or id(code) in self._resumed

    def has(self, code: types.CodeType, manager: Any) -> bool:
        """Whether an entry of code that :meth:`compiled` gives is of this target.

        The user's own function has all of its entries. On other code, which many share, an entry counts that was made
        in a call of the target, or that fits the target as far as can be said without the other arguments.
        """
        known = made.of(manager)
        if self._is_all_its(code) or (known is not None and made.is_of(known, self.callees, self.owners)):
            return True
        if known is None:
            return id(code) in self._by_wrapper
        is_checked = isinstance(manager, UnifiedGuardManagerWrapper)
        return is_checked and any(_fits(manager.entry, each) for each in self.locals.get(id(code), ()))


def is_given_up(code: types.CodeType) -> bool:
    """Whether torch runs code of the user's uncompiled that it has tried to compile, which is no matter of course."""
    tried = made.uncompiled(code)
    return tried is not None and tried.failed and not code.co_filename.startswith((_TORCH, _STDLIB, "<frozen"))


def _is_shared(code: types.CodeType) -> bool:
    """Whether the code is torch's, so that much of what is compiled hangs on it."""
    return code.co_filename.startswith(_TORCH)


def _fits(entry: DynamoEntry, known: dict[str, Any]) -> bool:
    """Whether all guards hold that are about these locals alone."""
    # Imported here: few reports need the slow evaluator.
    from unified_guards.guards.semantics import explain_failure

    about = GuardSet(each for each in entry.checked.entries() if _is_about(each[0], known))
    return bool(known) and explain_failure(about, known) is None


def _is_about(item: Guard, known: dict[str, Any]) -> bool:
    roots = [next((step for step in source.steps() if step.access is Access.LOCAL), None) for source in item.sources]
    return all(isinstance(root, Source) and root.key in known for root in roots) and bool(roots)


def _resumed(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code that Dynamo made to go on after graph breaks in ``code``."""
    from torch._dynamo.resume_execution import ContinueExecutionCache

    for resumed in ContinueExecutionCache.cache.get(code, {}).values():
        if isinstance(resumed, types.CodeType):
            yield resumed


def find(target: Callable[..., Any] | types.CodeType) -> Target:
    """What a report on ``target`` is about; see :func:`unified_guards.explain`.

    Raises:
        TypeError: ``target`` is nothing that Dynamo compiles.
    """
    found = Target()
    if target is not None:
        found.visit(target)
    if not found.codes:
        raise TypeError(
            "explain() takes a function, a module, what torch.compile returned, or a code object; "
            f"got {type(target).__name__}"
        )
    return found


__all__ = ["Target", "find", "is_given_up"]
