"""What torch's own guards do not look at, as guards of the set: ``install(strict=True)``.

Torch leaves out on purpose, or overlooks, what a graph depends on. ``driver.py`` adds it to what was lifted, by these
rules: hooks of modules (``hooks.py``), methods of classes and dunders of functions (``methods.py``), the difference
between ``True`` and ``1`` in a container and between ``0.0`` and ``-0.0`` (``values.py``), the memory that inputs share
(``memory.py``), and attributes that come to hide others (``lookups.py``). While Dynamo traces, ``reads.py`` notes what
it looks up and ``backend_call.py`` what it gives to the backend. ``known.py`` has what all rules read and give.
"""
