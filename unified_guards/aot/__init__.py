"""AOT entry points whose results are guarded: many compiled versions of a function, looked up natively.

``functions.py`` and ``fx.py`` are the public entry points. ``cache.py`` keeps the versions; on a miss ``capture.py``
has Dynamo capture the call, and ``compilers.py`` hands its graph to torch's AOTAutograd. ``report.py`` explains. For
``make_fx`` ``entry.py`` lifts a call: its arguments (``lifting.py``) and what the function reads beside them
(``state.py``, from the names in its ``code.py``), watched by ``stand_in.py``; ``shapes.py`` lifts what the ShapeEnv
learned.
"""
