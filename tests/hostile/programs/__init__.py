"""The programs, one file for each kind of fault. :data:`KINDS` names the files."""

ALL = (
    "tensors",
    "policies",
    "modes",
    "descriptors",
    "instance_dicts",
    "getters",
    "metaclasses",
    "depth",
    "remade",
    "user_code",
    "process",
    "versions",
    "many",
    "python_matrix",
    "tensor_matrix",
)
import os as _os
KINDS = tuple(k for k in ALL if _os.path.exists(_os.path.join(_os.path.dirname(__file__), k + ".py")))
