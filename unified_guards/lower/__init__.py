"""From a set of guards to what the native checker runs.

``rows.py`` makes the rows of a program, ``shape_code.py`` the straight-line code for its shape expressions, and
``discriminators.py`` chooses the guards by which the entries of one function are told apart.

The names that other packages use stand here, too.
"""

from unified_guards.lower.rows import Program, lower, make_checker

__all__ = ["Program", "lower", "make_checker"]
