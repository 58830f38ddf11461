// What a hit has to do (dynamo/plan.py): gather the inputs of the graph, call it, and build the result of its outputs,
// or hand these to the code that is left to run. Entry point: Plan.
#pragma once

#include "call/rebuild.h"
#include "call/signature.h"
#include "call/vouched.h"
#include "cpython/cpython.h"
#include "cpython/ref.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace unified_guards {

class Registers;

class Plan {
 public:
  // How the graph is called (dynamo/graphs.py).
  struct Graph {
    PyObject* owner;      // what is called
    PyObject* attribute;  // or the name of what is called of it; null without
    Py_ssize_t outputs;   // of a graph that takes its inputs as one list, without gradients; or one of the following
    PyObject* left_out;   // a tuple: the code of the wrappers that are not called, the innermost first
  };

  // Graph::outputs of a graph that takes its inputs one by one; and of one that takes a list, and does the rest itself.
  static constexpr Py_ssize_t kOneByOne = -1, kAsList = -2;

  // `globals` is the dict of the function's. References are owned.
  Plan(PyObject* globals, const Graph& graph);
  Plan(const Plan&) = delete;
  ~Plan();

  // `reads` is a list of (kind, base, key), `inputs` a list of registers, `steps` how the result is built. The first
  // registers are those of the locals, in the order in which they are bound; each read writes the next one. The last
  // `kept` inputs are not for the graph, but for what runs after it. False with an error set where something is not
  // legal.
  bool set(PyObject* reads, PyObject* inputs, PyObject* steps, Py_ssize_t unpacked, size_t locals, size_t kept);

  // Takes what a check has found of the inputs (see Vouched). `rows` are given once.
  void vouch(const Program& program, const std::vector<std::vector<int64_t>>& rows);
  void take(const std::vector<PyObject*>* found, Inputs& inputs);

  // Reads now what was not taken. False with an error set. run() does so, too, where it has not been done.
  bool gather(const BoundLocals& bound, Inputs& inputs);

  // Calls the graph on what was taken and on what is read now. The result is a new reference, or null with an error
  // set: what the outputs are built to, or where code is left to run, the list that it is given.
  PyObject* run(const BoundLocals& bound, Inputs& inputs);

  // The inputs of the graph alone, as a new tuple; null with an error set.
  PyObject* gathered(const BoundLocals& bound, Inputs& inputs);
  // Has the graph be called with these; false where there are not as many.
  bool give(PyObject* tuple, Inputs& inputs) const;

  // Whether code is left to run after the graph.
  bool has_rest() const { return has_rest_; }

  // How many inputs there are, and how many of them were taken from the check by the last call.
  size_t inputs() const { return inputs_.size(); }
  size_t taken() const { return taken_; }

  int traverse(visitproc visit, void* arg) const;

 private:
  enum class Kind : uint8_t { kGlobal, kAttribute, kItem, kSize, kStride, kOffset };
  struct Read {
    Kind kind;
    uint32_t base;
    PyObject* key;                // owned
    cpython::Slot slot = 0;       // where an entry was last found
    bool is_vouched_for = false;  // it leads to something that the check finds
    bool is_needed = true;        // it leads to something else
  };

  bool add_read(PyObject* read, size_t registers);
  void mark_reads();
  void mark(uint32_t reg, bool Read::* as);
  bool read(Registers& registers, bool& skips, bool is_learning);
  bool read_one(Registers& registers, size_t at, bool& is_pure, bool is_learning);
  bool gather_alone(const BoundLocals& bound, Inputs& inputs);
  bool fill(const Registers& registers, Inputs& inputs);
  PyObject* value_of(Read& read, PyObject* base, bool& is_pure) const;
  PyObject* global(PyObject* name) const;
  PyObject* call(const Inputs& inputs) const;
  PyObject* handed_over(PyObject* outputs, const Inputs& inputs) const;
  void name_what_is_left_out() const;
  PyObject* as_bytecode_takes_them(PyObject* outputs) const;
  PyObject* call_on_list(PyObject* graph, const Inputs& inputs) const;
  PyObject* call_without_gradients(PyObject* graph, const Inputs& inputs) const;
  PyObject* number(const Read& read, PyObject* tensor) const;

  PyObject* globals_;
  Graph graph_;
  std::vector<Read> reads_;
  std::vector<uint32_t> needed_reads_, read_inputs_;  // what is left to do where all that is vouched for was taken
  std::vector<uint32_t> inputs_;  // the registers of what the graph is given, and then of what is kept
  size_t locals_ = 0, graph_inputs_ = 0;
  bool is_gathering_ = false;
  bool has_rest_ = false;
  Vouched vouched_;
  size_t taken_ = 0;
  Py_ssize_t unpacked_ = -1;  // how many outputs Dynamo's code unpacks; -1 where it takes them by index
  Rebuild rebuild_;
};

}  // namespace unified_guards
