// What a wrapper of torch's calls: a function, a method, or a module whose forward was compiled. Entry point: Target.
#pragma once

#include "call/state.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <utility>
#include <vector>

namespace unified_guards {

// What a class has said of some names. A class that has changed since is asked again.
class KnownClass {
 public:
  KnownClass() = default;
  // `names` is a tuple of interned strings. References are owned.
  KnownClass(PyTypeObject* type, PyObject* names);
  KnownClass(KnownClass&& other) noexcept { *this = std::move(other); }
  KnownClass& operator=(KnownClass&& other) noexcept;
  ~KnownClass();

  bool is_set() const { return type_ != nullptr; }

  // Whether `object` is of this very class, and the class says of all names what it said.
  bool is_of(PyObject* object) {
    return Py_TYPE(object) == type_ && ((version_ != 0 && version_ == type_->tp_version_tag) || says_the_same());
  }

  int traverse(visitproc visit, void* arg) const;

 private:
  bool says_the_same();

  PyTypeObject* type_ = nullptr;
  unsigned int version_ = 0;  // of the class, when it was asked last; 0 where it has to be asked each time
  PyObject* names_ = nullptr;
  std::vector<PyObject*> found_;
};

// What calls of modules look at, whichever the module: the four dicts of the hooks that every module runs, the class of
// the modules that torch.compile returns, and the names that the call of any module goes through. Called before all
// that follows. False with an error set where they are of another kind. References are owned, for good.
bool learn_modules(PyObject* global_hooks, PyObject* optimized, PyObject* names);

// The compiled forward of a module that torch.compile has returned, where a call of the module runs nothing else;
// borrowed. Null otherwise.
PyObject* compiled_forward(PyObject* module);

// What the class of a module says of the names that its call goes through.
KnownClass known_class_of(PyObject* module);

// What torch's wrapper calls, and whose code has the cache entries.
struct Target {
  PyFunctionObject* function = nullptr;  // borrowed from the callee, or from its class
  PyObject* receiver = nullptr;          // the first argument of a method; null for a function
  PyObject* code = nullptr;              // of the function, when this was made; owned by the dispatcher
  KnownClass known;                      // of a module whose forward the function is; not set otherwise
  bool is_called_whole = false;          // of a module: what torch's wrapper calls is its __call__

  // Whether all is still as it was when this was made.
  Why changed();
};

}  // namespace unified_guards
