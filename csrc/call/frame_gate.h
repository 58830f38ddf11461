// The short way of a frame that Dynamo's frame hook has found: a frame that runs in the middle of a compiled call, as
// the step of an optimizer does, or what follows a graph break. Entry point: make_frame_gate_type().
//
// Torch's lookup has chosen the cache entry. The code of the entry asks its gate first (dynamo/frames.py), with the
// locals that the frame begins with. The gate follows the entry's plan, or the code goes on as Dynamo wrote it. Between
// the lookup and the gate the interpreter may have run a signal handler or another thread, so what the check has found
// is compared once more with what is there.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// The type: a new reference, or null with an error set.
PyObject* make_frame_gate_type();

}  // namespace unified_guards
