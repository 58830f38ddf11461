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

AttributeHook::Form form_of(const std::string& form) {
  if (form == "renames") return AttributeHook::Form::kRenames;
  if (form == "unless") return AttributeHook::Form::kUnless;
  if (form == "returns") return AttributeHook::Form::kReturns;
  if (form == "all_of") return AttributeHook::Form::kAllOf;
  if (form == "looks_in") return AttributeHook::Form::kLooksIn;
  throw std::invalid_argument("no such form of attribute hooks: " + form);
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

}  // namespace unified_guards
