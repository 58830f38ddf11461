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

// The locals with which the frame of a call begins: the parameters, then the variables that the closure holds.
struct BoundLocals {
  c10::SmallVector<PyObject*, 16> values;  // borrowed from the call, the function, its cells, or what follows
  Ref rest, named;                         // the tuple of *args, the dict of **kwargs; null without
};

// What a code object says of its parameters. References are borrowed from the code object.
class Signature {
 public:
  Signature() = default;
  explicit Signature(PyCodeObject* code);

  // Binds the arguments (`kwargs` may be null); `receiver` is put in front of them unless it is null. False, with no
  // error set, where the call does not fit the signature.
  bool bind(BoundLocals& bound, PyFunctionObject* function, PyObject* receiver, PyObject* args, PyObject* kwargs) const;

  // Takes what a frame begins with, a value for each name. False where there are not as many.
  bool bind_frame(BoundLocals& bound, PyObject* const* values, size_t count) const;

  // Calls a function that has this signature, and no defaults, with what was bound.
  PyObject* call(PyObject* function, const BoundLocals& bound) const;

  // Calls a function that takes each parameter by position, as it was bound, and then one more argument.
  PyObject* call_flat(PyObject* function, const BoundLocals& bound, PyObject* more) const;

  size_t size() const { return names_.size(); }
  PyObject* name(size_t at) const { return names_[at]; }

 private:
  bool bind_positional(BoundLocals& bound, PyObject* receiver, PyObject* args) const;
  bool bind_named(BoundLocals& bound, PyObject* kwargs) const;
  bool bind_one(BoundLocals& bound, PyObject* name, PyObject* value) const;
  bool bind_defaults(BoundLocals& bound, PyFunctionObject* function) const;
  bool bind_free(BoundLocals& bound, PyFunctionObject* function) const;

  std::vector<PyObject*> names_;  // of all that is bound
  size_t positional_only_ = 0, positional_ = 0, keyword_only_ = 0, parameters_ = 0;
  bool takes_rest_ = false, takes_named_ = false;
};

}  // namespace unified_guards
