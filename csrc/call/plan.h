// What a hit has to do (dynamo/plan.py): read the inputs of the graph, call it, and build the result of its outputs. No
// bytecode runs. Entry point: Plan.
#pragma once

#include "call/signature.h"
#include "cpython/ref.h"
#include "lookup/rebuild.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace unified_guards {

class Plan {
 public:
  // `globals` is the dict of the function's; `graph` is what is called. References are owned.
  Plan(PyObject* globals, PyObject* graph);
  Plan(const Plan&) = delete;
  ~Plan();

  // `reads` is a list of (kind, base, key), `inputs` a list of registers, `steps` how the result is built. The first
  // registers are those of the locals, in the order in which they are bound; each read writes the next one. False with
  // an error set where something is not legal.
  bool set(PyObject* reads, PyObject* inputs, PyObject* steps, size_t locals);

  // The result of a call: a new reference, or null with an error set.
  PyObject* run(const Bound& bound) const;

  int traverse(visitproc visit, void* arg) const;

 private:
  enum class Kind : uint8_t { kGlobal, kAttribute, kItem, kSize, kStride, kOffset };
  struct Read {
    Kind kind;
    uint32_t base;
    PyObject* key;  // owned
  };

  bool add_read(PyObject* read, size_t registers);
  PyObject* value_of(const Read& read, PyObject* base) const;
  PyObject* global(PyObject* name) const;
  PyObject* number(const Read& read, PyObject* tensor) const;

  PyObject *globals_, *graph_;
  std::vector<Read> reads_;
  std::vector<uint32_t> inputs_;
  Rebuild rebuild_;
};

}  // namespace unified_guards
