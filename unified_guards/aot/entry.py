"""One compiled version of a function, and the GuardSet that says when it may be used.

Entry points: :class:`AotEntry`, :class:`Lifted`, :func:`guard_set_of`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch._C._dynamo import guards as native
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils import _device
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from unified_guards import _C, verify
from unified_guards.aot.lifting import Dimensions, Leaf, Lifting, Template, check_supported, memory_of, shares_memory
from unified_guards.aot.shapes import shape_guards
from unified_guards.aot.state import State, defined_at
from unified_guards.entry import Entry
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import Program
from unified_guards.statistics import tally

ARGS = Source.frame().child(Access.LOCAL, "args")
KWARGS = Source.frame().child(Access.LOCAL, "kwargs")


class Lifted:
    """One call, lifted: before anything is traced.

    Attributes:
        template: from traced leaves to ``(args, kwargs)``.
        lifting: guards and leaves.
        state: what the function reads beside its arguments.
        ambient: guards on the state of the thread and of torch.
        refused: why it is not to be traced; None when it may be.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dimensions: Dimensions,
        static_arguments: int = 0,
    ) -> None:
        self.refused = _users_mode()
        self.ambient = _ambient_guards()
        self.lifting = Lifting(dimensions, static_arguments)
        self.state = State(self.lifting)
        maker = Provenance("aot", "an argument", defined_at(getattr(target, "forward", target)))
        parts = [self.lifting.argument(args, ARGS, maker), self.lifting.argument(kwargs, KWARGS, maker)]
        self.template: Template = lambda traced: tuple([part(traced) for part in parts])
        self.state.callable(target)
        if self.state.asks_for_types:
            self.lifting.keep_ints()  # a symbolic integer is no int
        if self.lifting.mixed is not None:
            self.refused = f"{self.lifting.mixed} is an argument and is read beside the arguments, too"
        for leaf in self.lifting.leaves:
            if isinstance(leaf.value, torch.Tensor):
                check_supported(leaf.value, leaf.source)
        if self.lifting.inner and shares_memory([*self.lifting.leaves, *self.lifting.inner]):
            self.refused = "tensors inside of wrappers share memory"  # each would be taken for one of its own


def _users_mode() -> str | None:
    """A mode of the user's sees what is traced, and decides by a state of its own what becomes of it."""
    modes = [torch._C._get_function_stack_at(at) for at in range(torch._C._len_torch_function_stack())]
    modes += _get_current_dispatch_mode_stack()
    for mode in modes:
        if not isinstance(mode, DeviceContext | FakeTensorMode):
            return f"a mode is active ({type(mode).__qualname__})"
    return None


def _ambient_guards() -> list[tuple[Guard, Provenance]]:
    """What torch guards in every frame: grad mode, autocast and the like, modes, the default device, the dual level."""
    frame = (Source.frame(),)
    modes = [torch._C._get_function_stack_at(at) for at in range(torch._C._len_torch_function_stack())]
    state = _C.GlobalState(native.GlobalStateGuard().check)
    found = [
        (guard(Test.GLOBAL_STATE, frame, (state,)), "global state of torch"),
        (guard(Test.MODE_STACK, frame, (tuple(type(mode) for mode in modes),)), "torch function modes"),
        (guard(Test.DEFAULT_DEVICE, frame, (_device.CURRENT_DEVICE,)), "default device"),
        (guard(Test.INFERENCE_MODE, frame, (torch.is_inference_mode_enabled(),)), "inference mode"),
        (guard(Test.DUAL_LEVEL, frame, (forward_ad._current_level,)), "forward-mode level"),
    ]
    return [(item, Provenance("aot", code)) for item, code in found]


def guard_set_of(lifted: Lifted, shape_env: Any, *, leaves: list[Leaf], storages: bool, offsets: bool) -> GuardSet:
    """Everything that must hold for the compiled code to be used again.

    Args:
        lifted: the call; its leaves have their fakes.
        shape_env: what tracing guarded on, or None.
        leaves: in the order in which they were made fake.
        storages: whether it matters which tensors share memory.
        offsets: whether it matters where a tensor begins in its storage.
    """
    lifting = lifted.lifting
    entries = [*lifted.ambient, *lifting.entries(), *lifting.relations]
    maker = Provenance("aot", "tensors of one call")
    tensors = [leaf for leaf in (*lifting.leaves, *lifting.inner) if isinstance(leaf.value, torch.Tensor)]
    if len(tensors) > 1:
        entries.append((guard(Test.UNIQUE, tuple(leaf.source for leaf in tensors)), maker))
    if storages or lifting.inner:
        entries += _storage_guards(tensors, maker)
    if offsets:
        entries += [item for leaf in tensors for item in _offset_guard(leaf)]
    entries += shape_guards(leaves, shape_env)
    return GuardSet(entries)


def _offset_guard(leaf: Leaf) -> list[tuple[Guard, Provenance]]:
    offset = leaf.value.storage_offset()
    if type(offset) is not int:
        return []
    source = leaf.source.child(Access.TENSOR_OFFSET)
    return [(guard(Test.EQUALS, (source,), (offset,)), Provenance("aot", "the function reads an offset"))]


def _storage_guards(tensors: list[Leaf], maker: Provenance) -> list[tuple[Guard, Provenance]]:
    """The partition of the tensors by storage; where several share one, also where in it each begins."""
    groups: dict[int, list[Leaf]] = {}
    for leaf in tensors:
        groups.setdefault(memory_of(leaf.value), []).append(leaf)
    found = []
    if len(groups) > 1:
        first = tuple(group[0].source for group in groups.values())
        found.append((guard(Test.UNIQUE_STORAGE, first), maker))
    for group in groups.values():
        for one, other in itertools.pairwise(group):
            found.append((guard(Test.SHARES_STORAGE, (one.source, other.source)), maker))
        if len(group) > 1:
            found += [item for leaf in group for item in _offset_guard(leaf)]
    return found


class AotEntry(Entry):
    """One compiled version.

    Attributes:
        program: what checks it.
        kept: what the guards know by address.
        eager: whether it stands for the function itself, which could not be compiled.
    """

    def __init__(self, guard_set: GuardSet, gather: list[Source], kept: list[Any], *, eager: bool = False) -> None:
        super().__init__(guard_set)
        self.program: Program = self.lower(gather)
        self.kept = kept
        self.eager = eager

    def oracle(self, share: float) -> Callable[[dict[str, Any], bool], bool | None] | None:
        """Compares a verdict with the slow evaluator's on the unsimplified set; None where none is to be compared."""
        if share == 0:
            return None
        # Imported here: without UNIFIED_GUARDS_VERIFY nothing asks the slow evaluator.
        from unified_guards.guards import semantics

        judge = verify.Judge(share, "an AOT entry point", "the reference evaluator")

        def compare(frame: dict[str, Any], verdict: bool) -> bool | None:
            tally.compare()
            failing = semantics.explain_failure(self.guard_set, frame)
            if (failing is None) == verdict:
                return None
            if (semantics.explain_failure(self.guard_set, frame) is None) == verdict:
                return None  # code of the user's in a guard answers differently each time
            return judge.disagree(verdict, None if failing is None else str(failing))

        return compare
