// The short way of a call to a compiled function: may it be taken, bind the arguments, ask the cache entries, run what
// the one that fits was compiled to. Entry points: Dispatcher, dispatch().
#pragma once

#include "call/entries.h"
#include "call/plan.h"
#include "call/signature.h"
#include "call/state.h"
#include "call/target.h"
#include "check/checker.h"
#include "cpython/cpython.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace unified_guards {

// What is known of one of torch's cache entries.
struct Record {
  PyObject* manager = nullptr;  // the guard manager: its address, and a weak reference that says whether it lives
  PyObject* reference = nullptr;
  PyObject* code = nullptr;  // the address of the entry's code, which the entry owns
  std::shared_ptr<Checker> checker;
  // What to do on a hit: to follow a plan, to call a function with Dynamo watching, or both in this order; or `why`
  // not.
  std::unique_ptr<Plan> plan;
  PyObject* function = nullptr;
  Why why = Why::kNone;  // then: why. kMiss: the entry is another backend's
  // Where hits are compared with what Dynamo's code does: what compares. Owned.
  PyObject* comparison = nullptr;
  uint64_t every = 1, hits = 0;  // one hit in so many is

  ~Record() {
    Py_XDECREF(reference);
    Py_XDECREF(function);
    Py_XDECREF(comparison);
  }

  bool is_of(const CacheEntry& entry) const {
    return entry.guard_manager.ptr() == manager && entry.code.ptr() == code &&
           *cpython::weakref_word(reference) == cpython::bits(manager);
  }
};

// A Python object (dispatcher_type.h).
struct Dispatcher {
  PyObject_HEAD
  PyObject* weak_gates;
  Target target;
  PyObject* wrapper;   // owned: a weak reference to torch's wrapper, whose calls these are; null for a frame's
  PyObject* held;      // owned: the function or method that torch's wrapper calls
  PyObject* callback;  // owned: Dynamo's, for the frame hook
  PyObject* patches;   // owned, a tuple: what changes Dynamo's config, and gives what changes it back
  int64_t region;
  bool is_fullgraph, is_frame_taken;
  bool is_own;  // calls of an AOT entry point, and not of a wrapper of torch's (csrc/call/entrance.h)
  Signature signature;
  PyObject* frame;  // owned: the dict of locals, kept between calls
  std::vector<std::shared_ptr<Record>> records;
  uint64_t shorts;
  std::array<uint64_t, kWhys> longs;

  // Whether a gate in a frame asks it: that frame runs what is left after the graph, and a traceback names it anyway.
  bool serves_frame() const { return wrapper == nullptr; }
};

inline Dispatcher& dispatcher_of(PyObject* object) { return *reinterpret_cast<Dispatcher*>(object); }

// The ways that all dispatchers have gone.
struct Totals {
  uint64_t shorts = 0;
  uint64_t frames = 0;  // in the middle of a call
  std::array<uint64_t, kWhys> longs{};
};

extern Totals totals;

// A plan as Python writes it (dynamo/dispatch.py); null with an error set where it is not legal.
std::unique_ptr<Plan> make_plan(const Dispatcher& self, PyObject* way);

// What a gate gives where the call has to go the long way: borrowed, or null with an error set. Made at the first call,
// at import.
PyObject* long_way();

// The result of a call, or long_way(): a new reference, or null with an error set. `kwargs` may be null.
PyObject* dispatch(PyObject* dispatcher, PyObject* args, PyObject* kwargs);

// The guard manager of the entry that fits a call, None where none does: a new reference, or null with an error set.
PyObject* find_entry(PyObject* dispatcher, PyObject* args, PyObject* kwargs);

}  // namespace unified_guards
