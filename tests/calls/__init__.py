"""Calls of compiled functions: the short way to the graph, and when a call goes torch's way (csrc/call)."""
