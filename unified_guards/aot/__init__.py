"""AOT entry points whose results are guarded: many compiled versions of a function, looked up natively.

``functions.py`` and ``fx.py`` are the public entry points. ``cache.py`` keeps the versions; on a miss ``entry.py``
lifts the call: its arguments (``lifting.py``) and what the function reads beside them (``state.py``, from the names in
its ``code.py``). ``trace.py`` then runs torch's AOTAutograd on fake inputs, watched by ``stand_in.py``, puts back what
the function wrote to (``places.py``), and ``shapes.py`` lifts what the ShapeEnv learned. ``report.py`` explains.
"""
