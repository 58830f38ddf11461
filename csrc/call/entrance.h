// What an AOT entry point returns (unified_guards/aot/cache.py): a callable whose calls go to its Dispatcher, and to
// `_miss` where that does not answer them. Entry point: make_entrance_type().
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// A new reference to the type; null with an error set.
PyObject* make_entrance_type();

// Gives a subclass of that type a `__call__` in Python for whoever reads it there, as Dynamo does. Calls do not go
// through it. False with an error set where that fails.
bool show_call(PyObject* type, PyObject* function);

}  // namespace unified_guards
