"""Who is measured beside whom: torch as it is, torch with its own options that check less, and unified guards.

To add one, make a :class:`Contender`; nothing else knows what a contender is made of.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contender:
    """One way of checking guards. A child process is given its name and becomes it before it compiles anything.

    Attributes:
        backend: what ``measure.install_backend`` is asked for.
        environment: of the child process.
        config: attributes of ``torch._dynamo.config``.
        guard_filter: a function of ``torch.compiler`` that says which guards are kept.
        unchecked: what may change without being noticed that torch's default would notice.
    """

    name: str
    backend: str = "torch"
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    guard_filter: str | None = None
    unchecked: str = "nothing"

    def is_available(self) -> bool:
        """Whether the installed torch, or unified_guards, has what this needs."""
        import torch

        known = all(hasattr(torch._dynamo.config, name) for name in self.config)
        return known and (self.guard_filter is None or hasattr(torch.compiler, self.guard_filter))

    def prepare(self) -> None:
        """Sets this process up, save for the installation."""
        import torch
        import torch._dynamo

        for name, value in self.config.items():
            setattr(torch._dynamo.config, name, value)
        if self.guard_filter is not None:
            torch.compile = _filtering(torch.compile, getattr(torch.compiler, self.guard_filter))


def _filtering(compile_: Any, guard_filter: Any) -> Any:
    """Patched in rather than passed on: the workloads call ``torch.compile`` and know of no contenders."""

    @functools.wraps(compile_)
    def compile_with_filter(*args: Any, **kwargs: Any) -> Any:
        # A new dict each time: torch takes the filter out of it.
        return compile_(*args, options={"guard_filter_fn": guard_filter}, **kwargs)

    return compile_with_filter


TORCH = Contender("torch")
UNIFIED = Contender("unified", backend="unified")
#: Every guard is evaluated on every call.
EXACT = Contender("exact", backend="unified", environment={"UNIFIED_GUARDS_WITNESS": "0"})
STRICT = Contender("unified, strict", backend="strict", unchecked="nothing, and more is checked")
SKIP_MODULES = Contender(
    "torch, skip_guard_on_all_nn_modules_unsafe",
    guard_filter="skip_guard_on_all_nn_modules_unsafe",
    unchecked="all modules",
)
#: What issue 5 compares, in the order of the table.
OPTIONS = (
    TORCH,
    Contender(
        "torch, use_recursive_dict_tags_for_guards",
        config={"use_recursive_dict_tags_for_guards": True},
        unchecked="`__class__`, dimension marks",
    ),
    Contender(
        "torch, skip_guard_on_inbuilt_nn_modules_unsafe",
        guard_filter="skip_guard_on_inbuilt_nn_modules_unsafe",
        unchecked="modules of torch.nn",
    ),
    SKIP_MODULES,
    Contender("torch, skip_all_guards_unsafe", guard_filter="skip_all_guards_unsafe", unchecked="everything"),
    UNIFIED,
    STRICT,
)
CONTENDERS = {one.name: one for one in (*OPTIONS, EXACT)}
