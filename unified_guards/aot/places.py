"""What a function may write to while it is traced, and how to put it back.

A :class:`Place` knows how something was before tracing. Entry point: :func:`place_of` and its siblings, one for each
kind of thing that holds values.
"""

from __future__ import annotations

import collections
import functools
import random
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch._C._dynamo.guards import GlobalStateGuard
from torch.utils._python_dispatch import _disable_current_modes

_ABSENT = object()


class Place(NamedTuple):
    """Something that was read, as it was.

    Attributes:
        text: what it is called.
        changed: whether it is different now.
        restore: makes it as it was.
    """

    text: str
    changed: Callable[[], bool]
    restore: Callable[[], Any]


def _differ(found: Iterable[Any], expected: list[Any]) -> bool:
    now = list(found)
    return len(now) != len(expected) or any(a is not b for a, b in zip(now, expected, strict=True))


def dict_place(text: str, target: dict[Any, Any], derived: frozenset[Any] = frozenset()) -> Place:
    """A dict, of any class; its own methods are not asked. Items named in ``derived`` are put back without a word."""
    keys, values = list(dict.keys(target)), list(dict.values(target))
    kept = [(key, value) for key, value in zip(keys, values, strict=True) if key in derived] if derived else []

    def changed() -> bool:
        for key, value in kept:
            dict.__setitem__(target, key, value)
        return _differ(dict.keys(target), keys) or _differ(dict.values(target), values)

    def restore() -> None:
        dict.clear(target)
        for key, value in zip(keys, values, strict=True):
            dict.__setitem__(target, key, value)

    return Place(text, changed, restore)


def list_place(text: str, target: list[Any]) -> Place:
    """A list, of any class."""
    copy = list.__getitem__(target, slice(None))
    whole = slice(None)
    return Place(text, lambda: _differ(list.__iter__(target), copy), lambda: list.__setitem__(target, whole, copy))


def deque_place(text: str, target: collections.deque[Any]) -> Place:
    """A deque."""
    copy = list(target)

    def restore() -> None:
        target.clear()
        target.extend(copy)

    return Place(text, lambda: _differ(target, copy), restore)


def set_place(text: str, target: set[Any]) -> Place:
    """A set, which is the same when it holds the same objects in the same order."""
    copy = list(target)

    def restore() -> None:
        target.clear()
        target.update(copy)

    return Place(text, lambda: _differ(target, copy), restore)


def item_place(text: str, target: dict[str, Any], name: str) -> Place:
    """One item of a dict, there or not."""
    value = target.get(name, _ABSENT)

    def restore() -> None:
        if value is _ABSENT:
            target.pop(name, None)
        else:
            target[name] = value

    return Place(text, lambda: target.get(name, _ABSENT) is not value, restore)


def attribute_place(text: str, target: Any, name: str) -> Place:
    """An attribute of a class, or one in slots."""
    value = getattr(target, name, _ABSENT)

    def restore() -> None:
        if value is _ABSENT:
            delattr(target, name)
        else:
            setattr(target, name, value)

    return Place(text, lambda: getattr(target, name, _ABSENT) is not value, restore)


def cell_place(text: str, cell: types.CellType) -> Place:
    """A closure variable."""

    def contents() -> Any:
        try:
            return cell.cell_contents
        except ValueError:
            return _ABSENT

    value = contents()

    def restore() -> None:
        if value is _ABSENT:
            del cell.cell_contents
        else:
            cell.cell_contents = value

    return Place(text, lambda: contents() is not value, restore)


def memo_place(target: functools._lru_cache_wrapper[Any]) -> Place:
    """What an ``lru_cache`` remembers: nothing that was made of traced tensors. Forgetting is no change to its user."""
    before = target.cache_info()

    def changed() -> bool:
        if target.cache_info().misses != before.misses:
            target.cache_clear()
        return False

    return Place("a cache", changed, lambda: None)


class Ambient:
    """State of the process that a function may change: random generators, and what torch guards as global state."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = self._numpy_state()
        self._torch = self._torch_state()
        self._global = GlobalStateGuard()
        self._dtype = torch.get_default_dtype()
        self._grad = torch.is_grad_enabled()

    @staticmethod
    def _numpy_state() -> Any:
        numpy = sys.modules.get("numpy")
        return None if numpy is None else numpy.random.get_state()

    @staticmethod
    def _torch_state() -> torch.Tensor:
        with _disable_current_modes():
            return torch.default_generator.get_state()

    def restore(self) -> str | None:
        """Puts it back, and says what had changed."""
        changed = None
        if random.getstate() != self._python:
            random.setstate(self._python)
            changed = "the random numbers of Python"
        if self._numpy is not None and repr(self._numpy_state()) != repr(self._numpy):
            sys.modules["numpy"].random.set_state(self._numpy)
            changed = "the random numbers of numpy"
        with _disable_current_modes():
            if not torch.equal(self._torch_state(), self._torch):
                torch.default_generator.set_state(self._torch)
                changed = "the seed of torch"
        if torch.get_default_dtype() != self._dtype:
            torch.set_default_dtype(self._dtype)
            changed = "the default dtype"
        if torch.is_grad_enabled() != self._grad:
            torch.set_grad_enabled(self._grad)
            changed = "grad mode"
        if changed is None and not self._global.check():
            changed = "global state of torch"
        return changed
