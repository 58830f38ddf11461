// Inputs of a graph that the check has found itself, so that they need not be read again. Entry points: Inputs,
// Vouched.
//
// A check that passes by what it remembers (witness/witness.h) knows the object at the end of each accessor. Where
// an input is read on the way of an accessor (dynamo/vouched.py), it is that object. The accessor looks into the
// instance dict; Dynamo's code asks for an attribute. Both find the same as long as the classes on the way leave it to
// the instance dict, so the classes are remembered by their version tags. Where the class of an object on the way is
// not guarded, it is compared here: a check repairs what it remembers of an object that has been given another class.
#pragma once

#include "check/checker.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <c10/util/SmallVector.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace unified_guards {

// What a graph is called with: each a reference that is owned, or null as long as it is not known.
class Inputs {
 public:
  Inputs() = default;
  Inputs(const Inputs&) = delete;
  ~Inputs() { clear(); }

  void clear() {
    for (PyObject*& value : values_) Py_CLEAR(value);
    are_taken = are_complete = false;
  }
  void make_room(size_t count) { values_.resize(count + 1, nullptr); }

  PyObject* operator[](size_t at) const { return values_[at + 1]; }
  // Owns a value from now on, instead of another one.
  void set(size_t at, PyObject* value) { Py_XSETREF(values_[at + 1], Py_XNewRef(value)); }

  bool are_taken = false;     // all that the check vouches for is there
  bool are_complete = false;  // nothing is left to be read

  // There is room in front of them, for the callee to use.
  PyObject* const* data() const { return values_.data() + 1; }

 private:
  c10::SmallVector<PyObject*, 32> values_;
};

class Vouched {
 public:
  // `rows` has for each input the row of the checker's program that reads the same, and the rows of what is on the way
  // and has a class that is not guarded; nothing where no row does.
  void set(const Program& program, const std::vector<std::vector<int64_t>>& rows);

  size_t count() const { return inputs_.size(); }
  bool is_vouched(size_t input) const { return input < is_vouched_.size() && is_vouched_[input]; }

  // Hands over what a check has found (Checker::found_by_facts(), still_found()). False where that is not all, or
  // nothing. Nothing may run between the comparison of the facts and this.
  bool take(const std::vector<PyObject*>* found, Inputs& inputs);

  // Whether what was taken is what Dynamo's code would read. Where it is not certain, all is read as that code reads
  // it, between begin_to_learn() and end_to_learn().
  bool is_known() const;
  void begin_to_learn();
  // Notes that an attribute, or an item where there is no name, is read from an object on the way to what was taken.
  void learn(PyObject* base, PyObject* name);
  // `are_same` says whether all that was read is what was taken.
  void end_to_learn(bool are_same);

 private:
  void compare_classes(const std::vector<PyObject*>& found);
  void drop_evaluated(const std::vector<PyObject*>& found);
  void forget();

  struct Input {
    uint32_t at, instruction;
  };
  struct OnTheWay {
    uint32_t instruction;
    PyTypeObject* type;  // of what was found the last time; only compared
  };
  struct Class {
    PyTypeObject* type;
    unsigned int version;
  };

  std::vector<Input> inputs_;
  std::vector<bool> is_vouched_;
  std::vector<OnTheWay> on_the_way_;  // that has a class that is not guarded
  std::vector<Class> classes_;        // alive: an object on the way has been found to be of each
  bool is_learnt_ = false, is_doubtful_ = false;
  int failures_ = 0;  // how often it was learnt that something else is read
};

}  // namespace unified_guards
