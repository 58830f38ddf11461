"""Where unified guards meet Dynamo.

``tap.py`` records what Dynamo asks of its guard tree, ``lift.py`` makes guards of that, ``strict.py`` adds those that
torch leaves out, ``provenance.py`` says who caused each, ``install.py`` puts the checker into the cache entries. All
that differs between versions of torch is in ``compat.py``.
"""
