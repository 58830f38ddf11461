"""Rule: modules that had no hooks when a frame was compiled have none now. Entry point: :func:`hooks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from unified_guards.dynamo.strict.known import Extra, Known, kind_of
from unified_guards.guards.ir import Access, Source, Test, guard

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _is_called(kind: Any) -> bool:
    """Whether this is a class of modules that can be called, as ModuleList and its kind cannot."""
    if kind is None or not issubclass(kind, nn.Module):
        return False
    return bool(kind.__call__ is not nn.Module.__call__ or kind.forward is not nn.Module.forward)


def hooks(known: Known) -> Iterator[Extra]:
    """That modules without hooks still have none, and that the hooks of all modules are the same.

    Torch itself guards the hooks that a module has.
    """
    modules = dict.fromkeys(item.source for item in known.guard_set if _is_called(kind_of(item)))
    for source in modules:
        if _is_of_the_frame(known, source):
            continue
        attributes = source.child(Access.GENERIC_DICT)
        for name in _HOOKS:
            place = attributes.child(Access.DICT_ITEM, name)
            if _is_empty(known.live(place)):
                yield Extra(guard(Test.DICT_LENGTH, (place,), (0,)), source, "hooks of a module")
    if not modules:
        return
    module = Source.frame().child(Access.CONSTANT, nn.modules.module).child(Access.GENERIC_DICT)
    for name in _HOOKS:
        place = module.child(Access.DICT_ITEM, f"_global{name}")
        keys = tuple(known.live(place))
        made = guard(Test.MAPPING_KEYS, (place,), (keys,)) if keys else guard(Test.DICT_LENGTH, (place,), (0,))
        yield Extra(made, place, "hooks of all modules")


def _is_of_the_frame(known: Known, source: Source) -> bool:
    """Whether this is the module whose ``forward`` the frame runs: who called it has run its hooks."""
    forward = getattr(type(known.live(source)), "forward", None)
    return source.access is Access.LOCAL and getattr(forward, "__code__", None) is known.code


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not dict.__len__(value)
