// The short way of a call to a compiled function: may it be taken, bind the arguments, ask the cache entries, run what
// the one that fits was compiled to. Entry points: the Python types Dispatcher and Gate.
//
// A Gate is a constant of the code that a wrapper of torch's has been given (dynamo/dispatch.py). It holds its
// Dispatcher weakly: the collector does not look into code objects, and a Dispatcher refers to the user's function.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// The types, the gate of the modules that torch.compile returns (module, args, kwargs), and what a gate gives where the
// call has to go the long way. New references, or null with an error set. Called once each, at import.
PyObject* make_dispatcher_type();
PyObject* make_gate_type();
PyObject* make_module_gate();
PyObject* long_way();

}  // namespace unified_guards
