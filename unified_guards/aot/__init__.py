"""AOT entry points whose results are guarded: many compiled versions of a function, looked up natively.

``lifting.py`` turns arguments and surrounding state into guards; ``state.py`` finds that state; ``trace.py`` runs
torch's AOTAutograd on fake inputs; ``shapes.py`` lifts what the ShapeEnv learned meanwhile; ``cache.py`` keeps the
entries; ``functions.py`` and ``fx.py`` are the public entry points.
"""
