// A call that goes torch's way, until torch is about to compile for it. By then another thread may have compiled the
// same (dynamo/single_flight.py). Entry points: missed, has_others().
#pragma once

#include "call/entries.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace unified_guards {

// Addresses of guard managers: nothing is kept alive.
using Managers = std::vector<PyObject*>;

// The latest such call of this thread.
class Missed {
 public:
  // A call goes torch's way in Python's current frame, after these entries were asked, or now that torch asks them.
  void note(PyObject* code, int64_t region, Managers asked);

  // The call goes on in Python's current frame: from the call of a module to that of its forward.
  void go_on() {
    if (frame_ != nullptr) frame_ = current_frame();
  }

  void forget() { frame_ = nullptr; }

  // Of the call that has gone torch's way in this frame, with this code: (region, addresses of the entries that were
  // asked). It is told only once. A new reference; null, without an error set, where there is no such call.
  PyObject* take(PyObject* frame, PyObject* code);

 private:
  static PyObject* current_frame() { return reinterpret_cast<PyObject*>(PyEval_GetFrame()); }

  PyObject* frame_ = nullptr;  // of torch's wrapper, borrowed; null where there is no such call
  PyObject* code_ = nullptr;
  int64_t region_ = -1;
  Managers asked_;
};

extern thread_local Missed missed;

// Of all entries that torch has for the code.
Managers managers_of(PyObject* code, int64_t region);

// Whether there is an entry that is not among those that were asked.
bool has_others(const CacheEntries& entries, const Managers& asked);

}  // namespace unified_guards
