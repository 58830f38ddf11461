"""A fuzzer of the checker: whatever happens to guarded objects, ``check()`` says what ``exact()`` says.

``world.py`` has the guarded objects, ``guards.py`` makes guard sets over them, ``mutations/`` is the table of what
may happen to them, ``engine.py`` takes the steps and compares, ``compiled.py`` adds what torch says, ``catalogue.py``
finds which guards each row of the table breaks. Run it with ``python -m tests.fuzz --seconds 60``.
"""
