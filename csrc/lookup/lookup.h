// unified_guards._C.Lookup: a callable that keeps entries (a guard program, a compiled function, how to rebuild its
// result) and calls the first one whose guards hold, the most recently used first.
#pragma once

#include "lookup/rebuild.h"

namespace unified_guards {

// The type, to be subclassed from Python: a new reference, or null with an error set. Called once, at import.
PyObject* make_lookup_type();

}  // namespace unified_guards
