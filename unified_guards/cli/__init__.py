"""One file for each command of ``python -m unified_guards``; ``unified_guards/__main__.py`` has the table of them.

A command's module imports nothing heavy when it is imported. It has ``add_arguments(parser)``, which describes the
command and its arguments, and ``main(arguments) -> int``, whose result is the exit status. ``arguments.error(message)``
ends with the command's usage and exit status 2.
"""
