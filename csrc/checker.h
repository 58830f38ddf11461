// The callable that Dynamo's lookup runs: checker(dict of locals) -> bool.
#pragma once

#include "program.h"

#include <memory>

namespace unified_guards {

// What a checker needs; shared by the Python handle and by every callable made from it.
struct Checker {
  Program program;
  // Called as oracle(locals, verdict) after every check; raises when the verdict is wrong. Null unless verifying.
  PyObject* oracle = nullptr;
  ~Checker() { Py_XDECREF(oracle); }
};

// A builtin function over `checker`: a new reference, or null with an error set.
PyObject* make_callable(std::shared_ptr<Checker> checker);

}  // namespace unified_guards
