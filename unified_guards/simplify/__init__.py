"""Leaves out the guards that others imply. Entry point: :func:`unified_guards.simplify.driver.simplify`.

``driver.py`` applies a table of rules: those of ``objects.py``, then those of ``expressions.py``. The rules work on
``work.py``'s guards, and rewrite expressions with ``rewrite.py``. ``linear.py`` knows linear combinations of integers,
``ranges.py`` sets of integers.
"""
