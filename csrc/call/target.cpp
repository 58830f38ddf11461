// See target.h.
#include "call/target.h"

#include "cpython/cpython.h"

#include <array>
#include <utility>

namespace unified_guards {
namespace {

std::array<PyObject*, 4> global_hooks{};
PyObject* names_on_the_way = nullptr;  // a tuple

KnownClass& optimized_modules() {
  static auto* const known = new KnownClass();  // never destroyed: the interpreter ends first
  return *known;
}

struct Names {
  std::array<PyObject*, 4> hooks{
      PyUnicode_InternFromString("_backward_hooks"), PyUnicode_InternFromString("_backward_pre_hooks"),
      PyUnicode_InternFromString("_forward_hooks"), PyUnicode_InternFromString("_forward_pre_hooks")};
  PyObject* forward = PyUnicode_InternFromString("forward");
  PyObject* call = PyUnicode_InternFromString("_call_impl");
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

// Whether a call of this module goes straight to its forward: there is no hook, and no attribute of the instance takes
// the place of a method on the way. `whole`: the call begins at __call__, which looks for what module.compile() has
// made.
bool goes_straight(PyObject* instance, bool whole) {
  for (PyObject* hooks : global_hooks) {
    if (!is_empty(hooks)) return false;
  }
  for (PyObject* name : names().hooks) {
    if (!is_empty(found_in(instance, name))) return false;
  }
  if (found_in(instance, names().call) != nullptr) return false;
  PyObject* compiled = whole ? found_in(instance, names().compiled) : nullptr;
  return compiled == nullptr || compiled == Py_None;
}

// The attributes of an instance; null where it has none, or others than its own may answer.
PyObject* attributes_of(PyObject* object) {
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  return instance.state == cpython::DictState::kReady ? instance.dict : nullptr;
}

}  // namespace

KnownClass::KnownClass(PyTypeObject* type, PyObject* names) : type_(type), names_(Py_NewRef(names)) {
  Py_INCREF(type_);
  for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(names_); at++) {
    found_.push_back(Py_XNewRef(_PyType_Lookup(type_, PyTuple_GET_ITEM(names_, at))));
  }
}

KnownClass& KnownClass::operator=(KnownClass&& other) noexcept {
  std::swap(type_, other.type_);
  std::swap(version_, other.version_);
  std::swap(names_, other.names_);
  std::swap(found_, other.found_);
  return *this;
}

KnownClass::~KnownClass() {
  for (PyObject* object : found_) Py_XDECREF(object);
  Py_XDECREF(reinterpret_cast<PyObject*>(type_));
  Py_XDECREF(names_);
}

bool KnownClass::says_the_same() {
  for (size_t at = 0; at < found_.size(); at++) {
    if (_PyType_Lookup(type_, PyTuple_GET_ITEM(names_, static_cast<Py_ssize_t>(at))) != found_[at]) return false;
  }
  version_ = cpython::type_version_word(type_) != nullptr ? type_->tp_version_tag : 0;
  return true;
}

int KnownClass::traverse(visitproc visit, void* arg) const {
  Py_VISIT(reinterpret_cast<PyObject*>(type_));
  for (PyObject* object : found_) Py_VISIT(object);
  return 0;
}

bool learn_modules(PyObject* hooks, PyObject* optimized, PyObject* names) {
  if (!PyTuple_CheckExact(hooks) || PyTuple_GET_SIZE(hooks) != static_cast<Py_ssize_t>(global_hooks.size()) ||
      !PyType_Check(optimized) || !PyTuple_CheckExact(names)) {
    PyErr_SetString(PyExc_TypeError, "four dicts of hooks, a class and a tuple of names are expected");
    return false;
  }
  Py_INCREF(hooks);
  for (size_t at = 0; at < global_hooks.size(); at++) global_hooks[at] = PyTuple_GET_ITEM(hooks, at);
  names_on_the_way = Py_NewRef(names);
  optimized_modules() = KnownClass(reinterpret_cast<PyTypeObject*>(optimized), names);
  return true;
}

KnownClass known_class_of(PyObject* module) { return KnownClass(Py_TYPE(module), names_on_the_way); }

PyObject* compiled_forward(PyObject* module) {
  if (!optimized_modules().is_of(module)) return nullptr;
  PyObject* instance = attributes_of(module);
  return instance != nullptr && goes_straight(instance, /*whole=*/true) ? found_in(instance, names().forward) : nullptr;
}

Why Target::changed() {
  if (function->func_code != code) return Why::kChanged;
  if (!known.is_set()) return Why::kNone;
  if (!known.is_of(receiver)) return Why::kChanged;
  PyObject* instance = attributes_of(receiver);
  const bool straight =
      instance != nullptr && goes_straight(instance, is_called_whole) && found_in(instance, names().forward) == nullptr;
  return straight ? Why::kNone : Why::kModuleHooks;
}

}  // namespace unified_guards
