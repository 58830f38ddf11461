"""The old name of ``unified_guards.dynamo.attribute_getters``, until 0.2."""

import warnings

from unified_guards.dynamo.attribute_getters import learn

__all__ = ["learn"]

warnings.warn(
    "unified_guards.attribute_hooks is now unified_guards.dynamo.attribute_getters", DeprecationWarning, stacklevel=2
)
