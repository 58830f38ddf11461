// See target.h.
#include "call/target.h"

#include "cpython/cpython.h"

#include <array>

namespace unified_guards {
namespace {

std::array<PyObject*, 4> global_hooks{};

struct Names {
  std::array<PyObject*, 4> hooks{
      PyUnicode_InternFromString("_backward_hooks"), PyUnicode_InternFromString("_backward_pre_hooks"),
      PyUnicode_InternFromString("_forward_hooks"), PyUnicode_InternFromString("_forward_pre_hooks")};
  std::array<PyObject*, 2> methods{PyUnicode_InternFromString("forward"), PyUnicode_InternFromString("_call_impl")};
  PyObject* compiled = PyUnicode_InternFromString("_compiled_call_impl");
};

const Names& names() {
  static const Names made;
  return made;
}

PyObject* found_in(PyObject* dict, PyObject* name) {
  PyObject* value = PyDict_GetItemWithError(dict, name);
  if (value == nullptr && PyErr_Occurred()) PyErr_Clear();
  return value;
}

bool is_empty(PyObject* hooks) { return hooks != nullptr && PyDict_Check(hooks) && PyDict_GET_SIZE(hooks) == 0; }

}  // namespace

bool learn_global_hooks(PyObject* hooks) {
  if (!PyTuple_CheckExact(hooks) || PyTuple_GET_SIZE(hooks) != static_cast<Py_ssize_t>(global_hooks.size())) {
    PyErr_SetString(PyExc_TypeError, "the global hooks of modules are not four dicts");
    return false;
  }
  Py_INCREF(hooks);  // for good
  for (size_t at = 0; at < global_hooks.size(); at++) global_hooks[at] = PyTuple_GET_ITEM(hooks, at);
  return true;
}

bool calls_forward_alone(PyObject* module, bool whole) {
  for (PyObject* hooks : global_hooks) {
    if (!is_empty(hooks)) return false;
  }
  const cpython::InstanceDict instance = cpython::instance_dict(module);
  if (instance.dict == nullptr) return false;
  for (PyObject* name : names().hooks) {
    if (!is_empty(found_in(instance.dict, name))) return false;
  }
  for (PyObject* name : names().methods) {
    if (found_in(instance.dict, name) != nullptr) return false;
  }
  PyObject* compiled = whole ? found_in(instance.dict, names().compiled) : nullptr;
  return compiled == nullptr || compiled == Py_None;
}

unsigned int version_of(PyTypeObject* type) {
  return cpython::type_version_word(type) != nullptr ? type->tp_version_tag : 0;
}

Why Target::changed() const {
  if (function->func_code != code) return Why::kChanged;
  if (type == nullptr) return Why::kNone;
  if (Py_TYPE(receiver) != type || type->tp_version_tag != version || version == 0) return Why::kChanged;
  return calls_forward_alone(receiver, is_called_whole) ? Why::kNone : Why::kModuleHooks;
}

}  // namespace unified_guards
