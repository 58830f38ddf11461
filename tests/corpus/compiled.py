"""An example of the corpus, compiled, and what each evaluator says of its guards."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo.guards as torch_guards

import unified_guards
from unified_guards import _C
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.guards import semantics
from unified_guards.guards.ir import GuardSet
from unified_guards.lower.rows import lower, make_checker

from ..corpus import Example


class Frame:
    """A compiled example: what it was compiled for, and the three evaluators of its guards."""

    def __init__(self, example: Example) -> None:
        seen: list[tuple[Any, dict[str, Any]]] = []
        torch._dynamo.reset()
        torch_guards.guard_manager_testing_hook_fn = lambda wrapper, scope, builder: seen.append((wrapper, dict(scope)))
        try:
            with unified_guards.installed():
                compiled = torch.compile(example.function, backend="eager", **example.options)
                compiled(*example.args, **example.kwargs)
        finally:
            torch_guards.guard_manager_testing_hook_fn = None
        ((self.wrapper, self.f_locals),) = seen
        self.compiled = compiled  # keeps the cache entry, and so the guards, alive
        assert isinstance(self.wrapper, UnifiedGuardManagerWrapper), unified_guards.stats()
        self.guard_set: GuardSet = self.wrapper.entry.guard_set
        self.unsimplified = make_checker(lower(self.guard_set))

    def torchs(self) -> bool:
        """Torch's verdict; where torch throws it is a miss. Its verbose check takes no shortcuts through dict tags."""
        before = _C.torch_function_state()
        try:
            found = bool(self.wrapper.torch_root.check(self.f_locals))
            return found and bool(self.wrapper.torch_root.check_verbose(self.f_locals).result)
        except Exception:  # whatever torch, or code of the user's that it runs, throws
            return False
        finally:
            _C.set_torch_function_state(before)

    def verdicts(self) -> dict[str, bool]:
        frame = self.wrapper.entry
        return {
            "native": frame.checker.check(self.f_locals),
            "native, unsimplified": self.unsimplified.check(self.f_locals),
            "reference": semantics.evaluate(frame.checked, self.f_locals),
            "reference, unsimplified": semantics.evaluate(self.guard_set, self.f_locals),
            "torch": self.torchs(),
        }
