// Dispatchers as Python sees them. Made by hand and not by pybind11: the call has to be cheap, and the collector has to
// see what a dispatcher refers to. Entry points: make_dispatcher_type(), is_dispatcher().
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// The type: a new reference, or null with an error set. Called once, at import.
PyObject* make_dispatcher_type();

bool is_dispatcher(PyObject* object);

}  // namespace unified_guards
