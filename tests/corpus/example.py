"""What an entry of the corpus is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
