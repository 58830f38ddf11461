"""Objects to show that answer untruthfully, raise, or are of a class of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LyingClass:
    """Says that it is something else."""

    def __init__(self, claimed: type) -> None:
        self.claimed = claimed

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self.claimed


class RaisingEq:
    def __init__(self, raising: type[BaseException] = ValueError) -> None:
        self.raising = raising

    def __eq__(self, other: object) -> bool:
        raise self.raising("compared")

    def __hash__(self) -> int:
        return hash("a")


class Unbool:
    def __bool__(self) -> bool:
        raise ValueError("no truth")


class AmbiguousEq:
    """Equality, as of arrays, is not a truth value."""

    def __eq__(self, other: object) -> Any:
        return Unbool()

    __hash__ = None  # type: ignore[assignment]


class Raises:
    """Every attribute, item, call, iteration and length raises."""

    def __init__(self, raising: type[BaseException] = ValueError) -> None:
        object.__setattr__(self, "_raising", raising)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_raising")(name)

    def _raise(self, *args: Any) -> Any:
        raise object.__getattribute__(self, "_raising")("asked")

    __getitem__ = __call__ = __len__ = __iter__ = __hash__ = __eq__ = _raise  # type: ignore[assignment]


class Bag:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a",)


class WithProperty:
    @property
    def a(self) -> int:
        return 3

    @property
    def raising(self) -> int:
        raise ValueError("asked")

    @property
    def interrupting(self) -> int:
        raise KeyboardInterrupt


class Fallback:
    """Attributes that only ``__getattr__`` has."""

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 3


class LyingLength(dict):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 77


class OverridingDict(dict):  # type: ignore[type-arg]
    def __getitem__(self, key: object) -> int:
        return 3

    def __missing__(self, key: object) -> int:
        return 3

    def __contains__(self, key: object) -> bool:
        return True


def made_function() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions with the same code: one has defaults and a closure that say 3, the other ones that say 4."""

    def make(value: int) -> Callable[..., Any]:
        def function(a: int = value, *, b: int = value) -> int:
            return a + b + value

        return function

    return make(3), make(4)


class StrSubclass(str):
    __slots__ = ()


class IntSubclass(int):
    pass
