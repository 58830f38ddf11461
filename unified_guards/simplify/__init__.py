"""Leaves out the guards that others imply. Entry point: :func:`unified_guards.simplify.driver.simplify`."""
