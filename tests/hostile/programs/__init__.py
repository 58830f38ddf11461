"""The programs, one file for each kind of fault. :data:`KINDS` names the files."""

KINDS = (
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
