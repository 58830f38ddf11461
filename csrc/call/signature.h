// Binds the arguments of a call to the locals of a function, as the interpreter would. Entry points: Signature,
// Signature::bind().
#pragma once

#include "cpython/ref.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <c10/util/SmallVector.h>

#include <cstddef>
#include <vector>

namespace unified_guards {

// The locals with which the frame of a call begins, in the order of the code's variables.
struct Bound {
  c10::SmallVector<PyObject*, 16> values;  // borrowed from the call, the function, or what follows
  Ref rest, named;                         // the tuple of *args, the dict of **kwargs; null without
};

// What a code object says of its parameters. References are borrowed from the code object.
class Signature {
 public:
  Signature() = default;
  explicit Signature(PyCodeObject* code);

  // Binds the arguments; `receiver` is put in front of them unless it is null. False, with no error set, where the call
  // does not fit the signature.
  bool bind(Bound& bound, PyFunctionObject* function, PyObject* receiver, PyObject* args, PyObject* kwargs) const;

  size_t size() const { return names_.size(); }
  PyObject* name(size_t at) const { return names_[at]; }
  size_t free_size() const { return free_names_.size(); }
  PyObject* free_name(size_t at) const { return at < free_names_.size() ? free_names_[at] : nullptr; }

  // Whether all parameters can be given by position.
  bool is_positional() const { return keyword_only_ == 0 && !takes_rest_ && !takes_named_; }
  size_t positional() const { return positional_; }
  size_t keyword_only() const { return keyword_only_; }
  bool takes_rest() const { return takes_rest_; }
  bool takes_named() const { return takes_named_; }

 private:
  bool bind_positional(Bound& bound, PyObject* receiver, PyObject* args) const;
  bool bind_named(Bound& bound, PyObject* kwargs) const;
  bool bind_one(Bound& bound, PyObject* name, PyObject* value) const;
  bool bind_defaults(Bound& bound, PyFunctionObject* function) const;

  std::vector<PyObject*> names_;       // of the parameters
  std::vector<PyObject*> free_names_;  // of the variables that the closure holds
  size_t positional_only_ = 0, positional_ = 0, keyword_only_ = 0;
  bool takes_rest_ = false, takes_named_ = false;
};

}  // namespace unified_guards
