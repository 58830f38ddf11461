"""What must hold for compiled code to be reused, as a value: sources, guards, sets of them, and what they mean.

``ir.py`` has them all; ``expressions.py`` what a ShapeEnv guards on; ``semantics.py`` evaluates a set slowly and
obviously (for the tests, and to say why a guard failed); ``describe.py`` says it in words; ``serialize.py`` writes it
as JSON.
"""
