"""The short way of frames that Dynamo's frame hook finds in the middle of a compiled call.

Such are the step of an optimizer, what follows a graph break, a compiled function that another one calls. Torch's hook
looks their entry up. Then the code of the entry hands the frame's locals to a gate (``csrc/call/frame_gate.h``), which
takes the graph's inputs from what the check has found, and calls the graph without the wrappers that have nothing to
do. The gate is a global, as the graph is, and goes together with it. Entry point: :func:`watch_frames`.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable
from typing import Any

import torch._dynamo.guards as torch_guards
from torch._dynamo import convert_frame
from torch._dynamo.utils import CleanupHook, CleanupManager

from unified_guards import _C, config
from unified_guards.dynamo.bytecode import TRY_IS_TABLE
from unified_guards.dynamo.dispatch import Dispatcher
from unified_guards.dynamo.gated import gated_frame, own_code
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.dynamo.plan import Plan
from unified_guards.entry import Entry

_numbers = itertools.count()


class _Frame(Dispatcher):
    """Knows one entry, whose frame it serves. What is left to run after the graph runs in that frame."""

    def _way_of(self, plan: Plan, entry: Entry) -> tuple[Any, ...] | None:
        way = self._way_to_graph(plan, entry)
        return None if way is None else (*way, None)


def watch_frames(put: Callable[[Any, str, Any], None], wanted: Callable[[], bool]) -> None:
    """From now on, the code of cache entries asks a gate.

    Args:
        put: is ``setattr`` that remembers what was there.
        wanted: whether the entry that is being made is one that the frame hook may find.
    """
    original = convert_frame.GuardedCode
    if not TRY_IS_TABLE:
        return

    @functools.wraps(original, updated=())
    def guarded_code(code: types.CodeType, guard_manager: Any, *args: Any, **kwargs: Any) -> Any:
        made = _with_gate(code, guard_manager) if wanted() else code
        return original(made, guard_manager, *args, **kwargs)

    put(convert_frame, "GuardedCode", guarded_code)


def _with_gate(code: types.CodeType, manager: Any) -> types.CodeType:
    """The code with a gate, where there is a plan for it. Its graph has a global that goes with it."""
    if not config.dispatch or not isinstance(manager, UnifiedGuardManagerWrapper) or code.co_freevars:
        return code
    code, plan = own_code(code)
    if plan is None:
        return code
    hooks = CleanupManager.instance.get(code, [])
    scope = next((hook.scope for hook in hooks if hook.name == plan.graph), None)
    frame = None if scope is None else _frame_of(code, manager, plan, scope)
    if scope is None or frame is None:
        return code
    name = f"___unified_guards_frame_{next(_numbers)}"
    try:
        made = gated_frame(code, name, frame._names, plan)
    except (AssertionError, KeyError, TypeError, ValueError):  # torch cannot assemble it
        return code
    hooks.append(CleanupHook.create(scope, name, _C.FrameGate(frame)))
    _register(code, made)
    return made


def _register(code: types.CodeType, made: types.CodeType) -> None:
    """Torch knows code of its own by identity: it does not compile that, and knows what it was made of."""
    if code in torch_guards.orig_code_map:
        torch_guards.orig_code_map[made] = torch_guards.orig_code_map[code]
    convert_frame.output_codes.add(made)


def _frame_of(
    code: types.CodeType, manager: UnifiedGuardManagerWrapper, plan: Plan, scope: dict[str, Any]
) -> _Frame | None:
    # The globals of code of Dynamo's, among them the gate, go when the code dies. So a gate holds only a copy.
    code, entry = code.replace(), manager.entry
    frame = _Frame(types.FunctionType(code, scope), None, False, -1, False, None, ())
    way = frame._way_of(plan, entry)
    if way is None:
        return None
    manager.tell(frame)
    frame._add(manager, code, entry.checker, way, "kNone", frame._comparison_of(entry.judge, code, plan, way))
    return frame


__all__ = ["watch_frames"]
