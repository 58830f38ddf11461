// Runs what the cache entry was compiled to that fits a call. Entry points: Owned, run_entry(), run_in_frame().
#pragma once

#include "call/dispatcher.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// Owns what was bound while the compiled code runs: the defaults of the function may be replaced meanwhile.
class Owned {
 public:
  explicit Owned(const BoundLocals& bound) : bound_(bound) {
    for (PyObject* value : bound_.values) Py_INCREF(value);
  }
  Owned(const Owned&) = delete;
  ~Owned() {
    for (PyObject* value : bound_.values) Py_DECREF(value);
  }

 private:
  const BoundLocals& bound_;
};

// The result of the call: a new reference, or null with the error set that torch's wrapper would raise.
PyObject* run_entry(PyObject* dispatcher, Record& record, const BoundLocals& bound, Inputs& inputs);

// The same in a frame that Dynamo's frame hook has found and runs. The record has a plan. The result is a new
// reference, or null with the error set that left the graph. Where code is left to run after the graph, the frame runs
// it, and the result is the list that this code is given.
PyObject* run_in_frame(const Dispatcher& self, Record& record, const BoundLocals& bound, Inputs& inputs);

}  // namespace unified_guards
