// See attribute_hooks.h.
#include "attribute_hooks.h"

#include <stdexcept>
#include <unordered_map>

namespace unified_guards {
namespace {

// By the address of the code object, which is kept: what a function does follows from its code, and code keeps nothing
// of the user's alive.
std::unordered_map<PyObject*, AttributeHook>& hooks() {
  static auto* all = new std::unordered_map<PyObject*, AttributeHook>();
  return *all;
}

}  // namespace

void know_attribute_hook(PyObject* code, const std::string& form, const std::vector<std::string>& names) {
  if (!PyCode_Check(code)) throw std::invalid_argument("an attribute hook is known by its code");
  if (form != "renames" && form != "looks_in") throw std::invalid_argument("no such form of attribute hooks: " + form);
  if (names.empty()) throw std::invalid_argument("an attribute hook looks somewhere");
  AttributeHook hook{form == "renames" ? AttributeHook::Form::kRenames : AttributeHook::Form::kLooksIn, {}};
  for (const std::string& name : names) hook.names.push_back(PyUnicode_InternFromString(name.c_str()));
  if (hooks().emplace(code, std::move(hook)).second) Py_INCREF(code);
}

const AttributeHook* attribute_hook(PyObject* function) {
  if (function == nullptr || !PyFunction_Check(function)) return nullptr;
  const auto found = hooks().find(PyFunction_GET_CODE(function));
  return found != hooks().end() ? &found->second : nullptr;
}

bool knows_attribute_hook(PyObject* code) { return hooks().count(code) != 0; }

}  // namespace unified_guards
