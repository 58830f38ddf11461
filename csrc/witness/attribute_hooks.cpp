// See attribute_hooks.h.
#include "witness/attribute_hooks.h"

#include <cstring>
#include <stdexcept>
#include <unordered_map>

namespace unified_guards {
namespace {

// By the address of the code object. The code object is kept alive, which keeps nothing else of the user's alive.
std::unordered_map<PyObject*, AttributeHook>& hooks() {
  static auto* all = new std::unordered_map<PyObject*, AttributeHook>();
  return *all;
}

AttributeHook::Form form_of(const std::string& form) {
  if (form == "renames") return AttributeHook::Form::kRenames;
  if (form == "unless") return AttributeHook::Form::kUnless;
  if (form == "returns") return AttributeHook::Form::kReturns;
  if (form == "all_of") return AttributeHook::Form::kAllOf;
  if (form == "looks_in") return AttributeHook::Form::kLooksIn;
  throw std::invalid_argument("no such form of attribute hooks: " + form);
}

bool is_own_builtin(PyObject* found, const char* name) {
  if (found == reinterpret_cast<PyObject*>(&PySuper_Type)) return std::strcmp(name, "super") == 0;
  if (found == nullptr || !PyCFunction_CheckExact(found)) return false;
  PyObject* module = PyCFunction_GET_SELF(found);
  return module != nullptr && PyModule_Check(module) && std::strcmp(PyModule_GetName(module), "builtins") == 0 &&
         std::strcmp(reinterpret_cast<PyCFunctionObject*>(found)->m_ml->ml_name, name) == 0;
}

// Whether super() in a method of `owner` looks in the classes after `owner`.
bool continues_after(PyFunctionObject* function, PyObject* owner) {
  PyObject* closure = function->func_closure;
  if (closure == nullptr || PyTuple_GET_SIZE(closure) != 1 || !PyCell_Check(PyTuple_GET_ITEM(closure, 0))) return false;
  return PyCell_GET(PyTuple_GET_ITEM(closure, 0)) == owner && finds_builtin(function, "super");
}

// Whether a dict has only strings as keys and values.
bool is_plain_map(PyObject* dict) {
  Py_ssize_t cursor = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (!PyUnicode_CheckExact(key) || !PyUnicode_CheckExact(value)) return false;
  }
  return true;
}

}  // namespace

void know_attribute_hook(PyObject* code, const std::string& form, const std::vector<std::string>& names) {
  if (!PyCode_Check(code)) throw std::invalid_argument("an attribute hook is known by its code");
  if (names.empty()) throw std::invalid_argument("an attribute hook looks somewhere");
  AttributeHook hook{form_of(form), {}};
  for (const std::string& name : names) hook.names.push_back(PyUnicode_InternFromString(name.c_str()));
  if (hooks().emplace(code, std::move(hook)).second) Py_INCREF(code);
}

const AttributeHook* attribute_hook(PyObject* function) {
  if (function == nullptr || !PyFunction_Check(function)) return nullptr;
  const auto found = hooks().find(PyFunction_GET_CODE(function));
  return found != hooks().end() ? &found->second : nullptr;
}

bool knows_attribute_hook(PyObject* code) { return hooks().count(code) != 0; }

bool finds_builtin(PyFunctionObject* function, const char* name) {
  PyObject* key = PyUnicode_InternFromString(name);
  PyObject* found = cpython::find_purely(function->func_builtins, key).value;
  const bool finds = is_own_builtin(found, name) && cpython::lacks_purely(function->func_globals, key);
  Py_DECREF(key);
  return finds;
}

Hooks::Hooks(PyObject* object) {
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state != cpython::DictState::kReady) return;
  static PyObject* name = PyUnicode_InternFromString("__getattribute__");
  static PyObject* dict_name = PyUnicode_InternFromString("__dict__");
  PyTypeObject* type = Py_TYPE(object);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); i++) {
    PyObject* owner = PyTuple_GET_ITEM(type->tp_mro, i);
    if (owner == reinterpret_cast<PyObject*>(&PyBaseObject_Type)) known = true;
    if (known) {
      known = !reads_dict || (cpython::shows_instance_dict(object) && renamed(dict_name) == dict_name);
      return;
    }
    bool is_new = false;
    PyObject* dict = cpython::type_dict(owner, is_new);
    PyObject* function = PyDict_GetItemWithError(dict, name);
    if (is_new) Py_DECREF(dict);
    if (function != nullptr && !add(type, instance.dict, function, owner)) return;
  }
}

PyObject* Hooks::renamed(PyObject* attribute) const {
  if (names == nullptr || attribute == names_name) return attribute;
  PyObject* other = cpython::find_purely(names, attribute).value;
  return other != nullptr ? other : attribute;
}

bool Hooks::add(PyTypeObject* type, PyObject* instance, PyObject* function, PyObject* owner) {
  const AttributeHook* hook = attribute_hook(function);
  if (hook == nullptr || !continues_after(reinterpret_cast<PyFunctionObject*>(function), owner)) return false;
  functions.push_back(reinterpret_cast<PyFunctionObject*>(function));
  const cpython::Found own = cpython::find_purely(instance, hook->names[0]);
  reads_dict |= hook->form == AttributeHook::Form::kUnless;
  if (hook->form == AttributeHook::Form::kUnless) return own.certain && (own.value == nullptr || own.value == Py_None);
  if (hook->form != AttributeHook::Form::kRenames || names != nullptr || !own.certain || own.value != nullptr)
    return false;
  names_name = hook->names[0];
  names = _PyType_Lookup(type, names_name);
  return names != nullptr && PyDict_CheckExact(names) && is_plain_map(names);
}

}  // namespace unified_guards
