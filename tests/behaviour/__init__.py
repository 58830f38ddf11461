"""What a user of ``torch.compile`` can observe of its guards, as test classes that run with and without ``install()``.

Nothing here knows which guards are at work: ``test_behaviour_torch.py`` runs every class of :data:`SUITES` with plain
torch, ``test_behaviour_unified.py`` runs the same classes with unified guards. The numbers of compiles are plain
torch's. Both files provide the ``env`` fixture, an :class:`~tests.harness.Environment`.
"""

from __future__ import annotations

from .changed_containers import ChangedContainers
from .changed_functions import ChangedFunctions
from .changed_global_state import ChangedGlobalState
from .changed_modules import ChangedModules
from .changed_objects import ChangedObjects
from .changed_tensors import ChangedTensors
from .changed_values import ChangedValues
from .choices import Choices
from .dynamic_shapes import DynamicShapes
from .lifetimes import Lifetimes
from .limits import Limits
from .raising_guards import RaisingGuards
from .recompile_reasons import RecompileReasons
from .structures import Structures

SUITES = [
    ChangedValues,
    ChangedContainers,
    ChangedObjects,
    ChangedTensors,
    DynamicShapes,
    ChangedModules,
    ChangedFunctions,
    ChangedGlobalState,
    RecompileReasons,
    Limits,
    Lifetimes,
    Choices,
    Structures,
    RaisingGuards,
]
