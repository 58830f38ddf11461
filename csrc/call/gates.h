// What asks a dispatcher first, before torch's wrapper goes on. Entry points: the Python type Gate, the gate of
// modules.
//
// A Gate is a constant of the code that a wrapper of torch's has been given (dynamo/dispatch.py). It holds its
// Dispatcher weakly: the collector does not look into code objects, and a Dispatcher refers to the user's function.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// The type, and the gate of the modules that torch.compile returns (module, args, kwargs). Both give what the call
// gives, or long_way(). New references, or null with an error set. Called once each, at import.
PyObject* make_gate_type();
PyObject* make_module_gate();

}  // namespace unified_guards
