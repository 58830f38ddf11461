"""What must hold for compiled code to be reused, as a value: sources, guards, sets of them, and what they mean.

``ir.py`` has sources, guards and sets of guards; ``expressions.py`` what a ShapeEnv guards on. ``accesses.py`` follows
a source to an object and ``names.py`` names that object. ``semantics.py`` evaluates a set slowly and obviously: for the
tests, and to find why a guard failed, which ``failures.py`` says in words. ``serialize.py`` writes a set as JSON.
"""
