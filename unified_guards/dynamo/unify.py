"""From a guard manager that torch has finished to one whose root is the native checker.

What Dynamo asked of it is lifted, extended where strict guards were asked for, simplified and lowered. Entry point:
:func:`finish`.
"""

from __future__ import annotations

import types
import warnings
from typing import Any

from torch._C._dynamo import guards as native
from torch._guards import CompileContext

from unified_guards import verify
from unified_guards._environment import is_set
from unified_guards.dynamo import attribute_getters, strict
from unified_guards.dynamo.frame import Frame
from unified_guards.dynamo.lift import CannotLift, lift
from unified_guards.dynamo.provenance import Origins
from unified_guards.dynamo.wrapper import UnifiedGuardManagerWrapper, frames_of, oracle_of
from unified_guards.errors import FallbackError
from unified_guards.guards.ir import Access
from unified_guards.lower.discriminators import introduce
from unified_guards.lower.rows import CannotLower
from unified_guards.report import costs
from unified_guards.statistics import tally


def _unify(
    wrapper: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins, strictly: bool
) -> None:
    """Replaces the root of a finished wrapper by the native checker."""
    guard_set = lift(records, wrapper.root, origins)
    if strictly:
        guard_set = strict.with_extras(guard_set, output_graph, records)
    frame = Frame(guard_set)
    if not len(frame.guard_set):
        tally.lifted += 1  # nothing to check: torch's empty root is as good as any
        return
    attribute_getters.learn(
        (kwargs["example_value"] for _, _, _, kwargs, _ in records if "example_value" in kwargs),
        {source.key for source in frame.checked.sources() if source.access is Access.ATTR},
    )
    share = verify.share()
    judge = verify.Judge(share, f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})", "torch's guard tree")
    oracle = oracle_of(wrapper, wrapper.root, judge) if share > 0 else None
    if costs.is_on():
        frame.build(costs.watch(frame, wrapper.root, oracle))  # every check is measured, and compared on the way
    else:
        frame.build(oracle, share)
    introduce(frame, frames_of(code), Frame.tell)
    stub = native.RootGuardManager()
    stub.attach_compile_id(str(CompileContext.current_compile_id()))
    stub.add_lambda_guard(frame.checker.callable(), ["unified_guards"], None)
    wrapper.torch_root = wrapper.root
    wrapper.root = stub
    wrapper.frame = frame
    wrapper.__class__ = UnifiedGuardManagerWrapper
    tally.lifted += 1
    costs.note(code, frame)


def finish(
    manager: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins, *, strictly: bool
) -> None:
    """Unifies, or leaves torch's tree in place and counts why. Raises only when asked to."""
    try:
        _unify(manager.guard_manager, code, output_graph, records, origins, strictly)
        return
    except (CannotLift, CannotLower) as reason:
        why = str(reason)
    except Exception as error:
        why = f"internal error: {type(error).__name__}: {error}"
        if not tally.warned:
            tally.warned = True
            warnings.warn(
                f"unified_guards could not take over the guards of {code.co_name}: {why}. Torch's own guards stay in "
                "place, so results are not affected. Please report it.",
                stacklevel=2,
            )
    tally.left(why)
    costs.note(code, None, why)
    if is_set("UNIFIED_GUARDS_NO_FALLBACK"):
        raise FallbackError(f"the guards of {code.co_name} ({code.co_filename}) stay torch's: {why}")
