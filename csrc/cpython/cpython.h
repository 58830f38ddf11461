// All that we know about the interpreter beyond its public API, per version. No file outside of csrc/cpython/ may look
// inside an object of CPython. Where a layout is not known (a version that is not listed, or the self-test fails at
// import) the same helpers answer through the public API, slower. Entry point: self_test().
//
// Contract of every helper: it needs the GIL, and never leaves a Python error set. A "borrowed" result lives as long as
// its container is not changed.
#pragma once

#include "cpython/dicts.h"
#include "cpython/lookups.h"
#include "cpython/objects.h"
#include "cpython/tables.h"
#include "cpython/words.h"

namespace unified_guards::cpython {

// Runs Python code of ours in a scope; false when it raises.
bool run(const char* code, PyObject* scope);

// A new scope in which code of ours has run; null when it raised.
PyObject* scope_of(const char* code);

// Compares what the layouts above say with what the public API says, on objects made for it.
// Sets layouts_known, words_known, tables_known and monitors_known; called once, when the extension is imported.
void self_test();

}  // namespace unified_guards::cpython
