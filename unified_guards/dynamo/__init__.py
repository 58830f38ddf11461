"""Where unified guards meet Dynamo.

``tap.py`` records what Dynamo asks of its guard tree. ``lift.py`` makes guards of that (``leaf_guards.py``,
``identities.py`` and ``distributed.py`` are parts of it), ``provenance.py`` says who caused each, ``strict/`` adds what
torch leaves out. ``unify.py`` makes the native checker of a cache entry (``entry.py``) the root of its guard manager
(``guard_manager.py``); ``install.py`` patches torch so that this happens, and ``backend.py`` does so for one backend.
``saved.py`` knows the guards that torch saves and loads. ``attribute_getters.py`` recognises what a model's own
``__getattr__`` does, ``measure.py`` times checks. What differs between versions of torch is in ``compat.py``.
"""
