// What a wrapper of torch's calls: a function, a method, or a module whose forward was compiled. Entry point: Target.
#pragma once

#include "call/state.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

// The dicts of the hooks that every module runs; borrowed from torch.nn.modules.module. False with an error set where
// they are not four dicts.
bool learn_global_hooks(PyObject* hooks);

// Whether a call of this module runs nothing but the forward of its class: there is no hook, and no attribute of the
// instance takes the place of a method that the call goes through. `whole`: the call begins at __call__, which looks
// for what module.compile() has made.
bool calls_forward_alone(PyObject* module, bool whole);

// The version of a class; 0 where it has none that moves with every change of the class or of its bases.
unsigned int version_of(PyTypeObject* type);

// The function whose code has the cache entries. References are borrowed.
struct Target {
  PyFunctionObject* function = nullptr;
  PyObject* receiver = nullptr;  // the first argument of a method; null for a function
  PyTypeObject* type = nullptr;  // of a module: whose forward `function` is; null otherwise
  unsigned int version = 0;      // of that class, as it was when the function was looked up there
  PyObject* code = nullptr;      // of the function, then
  bool is_called_whole = false;  // of a module: what torch's wrapper calls is its __call__

  // Whether all is still as it was when this was made.
  Why changed() const;
};

}  // namespace unified_guards
