"""Where unified guards meet Dynamo.

``tap.py`` records what Dynamo asks of its guard tree, ``lift.py`` makes guards of that, ``strict.py`` adds those that
torch leaves out, ``provenance.py`` says who caused each. ``unify.py`` makes the native checker of a cache entry
(``frame.py``) the root of its guard manager (``wrapper.py``); ``install.py`` patches torch so that this happens. All
that differs between versions of torch is in ``compat.py``.
"""
