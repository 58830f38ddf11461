// Which of torch's cache entries fits a call. Entry points: Frame, decide().
#pragma once

#include "call/dispatcher.h"
#include "call/missed.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>

namespace unified_guards {

// The dict that checkers read locals from. The dispatcher's own is used again and again: its entries stay where they
// are. A call in the middle of another one is given a new dict.
class Frame {
 public:
  Frame(Dispatcher& self, const BoundLocals& bound);
  Frame(const Frame&) = delete;
  ~Frame();

  bool is_ready() const { return is_ready_; }
  PyObject* dict() const { return dict_; }

 private:
  bool fill(const BoundLocals& bound);
  void empty();
  bool put(size_t at, PyObject* value);

  Dispatcher& self_;
  PyObject* dict_ = nullptr;
  bool is_own_, is_ready_ = false;
};

struct Decision {
  Why why;
  std::shared_ptr<Record> record;  // the one that fits, where `why` is kNone
  bool raised = false;             // an observer raised
  Managers asked{};                // all of torch's entries, where none fits
};

// What the check of the entry that fits has found of the graph's inputs goes to `inputs`.
Decision decide(Dispatcher& self, PyObject* locals, Inputs& inputs);

}  // namespace unified_guards
