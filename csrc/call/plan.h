// What a hit has to do (dynamo/plan.py): read the inputs of the graph, call it, and build the result of its outputs. No
// bytecode runs. Entry point: Plan.
#pragma once

#include "call/signature.h"
#include "cpython/cpython.h"
#include "cpython/ref.h"
#include "lookup/rebuild.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace unified_guards {

class Plan {
 public:
  // How the graph is called (dynamo/graphs.py).
  struct Graph {
    PyObject* owner;      // what is called
    PyObject* attribute;  // or the name of what is called of it; null without
    Py_ssize_t outputs;   // of a graph that takes its inputs as one list, without gradients; -1 of another
    PyObject* left_out;   // a tuple: the code of the wrappers that are not called, the innermost first
  };

  // `globals` is the dict of the function's. References are owned.
  Plan(PyObject* globals, const Graph& graph);
  Plan(const Plan&) = delete;
  ~Plan();

  // `reads` is a list of (kind, base, key), `inputs` a list of registers, `steps` how the result is built. The first
  // registers are those of the locals, in the order in which they are bound; each read writes the next one. False with
  // an error set where something is not legal.
  bool set(PyObject* reads, PyObject* inputs, PyObject* steps, size_t locals);

  // The result of a call: a new reference, or null with an error set.
  PyObject* run(const BoundLocals& bound) const;

  int traverse(visitproc visit, void* arg) const;

 private:
  using Inputs = c10::SmallVectorImpl<PyObject*>;

  enum class Kind : uint8_t { kGlobal, kAttribute, kItem, kSize, kStride, kOffset };
  struct Read {
    Kind kind;
    uint32_t base;
    PyObject* key;                   // owned
    mutable cpython::Slot slot = 0;  // where an entry was last found
  };

  bool add_read(PyObject* read, size_t registers);
  PyObject* value_of(const Read& read, PyObject* base) const;
  PyObject* global(PyObject* name) const;
  PyObject* call(const Inputs& args) const;
  void name_what_is_left_out() const;
  PyObject* call_boxed(PyObject* graph, const Inputs& args) const;
  PyObject* number(const Read& read, PyObject* tensor) const;

  PyObject* globals_;
  Graph graph_;
  std::vector<Read> reads_;
  std::vector<uint32_t> inputs_;
  Rebuild rebuild_;
};

}  // namespace unified_guards
