"""The old name of ``unified_guards.guards.ir``, until 0.2."""

import warnings

from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard

__all__ = ["Access", "Guard", "GuardSet", "Provenance", "Source", "TensorFacts", "Test", "guard"]

warnings.warn("unified_guards.ir is now unified_guards.guards.ir", DeprecationWarning, stacklevel=2)
