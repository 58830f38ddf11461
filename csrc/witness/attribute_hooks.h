// What is known of `__getattribute__` and `__getattr__` methods and of properties written in Python. Python says it
// once for each code object (dynamo/attribute_getters.py). Entry points: know_attribute_hook(), attribute_hook(),
// Hooks.
#pragma once

#include "cpython/cpython.h"

#include <string>
#include <vector>

namespace unified_guards {

struct AttributeHook {
  enum class Form {
    kRenames,  // a __getattribute__: object's own lookup, of another name if names[0], a dict, has one
    kUnless,   // a __getattribute__: object's own lookup, unless the instance's own dict has something by names[0]
    kReturns,  // the getter of a property: the attribute names[0] of the same object
    kAllOf,    // the getter of a property: whether the attribute names[1] of every item of the list names[0] is true
    kLooksIn,  // a __getattr__: looks in the dicts `names` of the instance's own dict, then raises
  };
  Form form;
  std::vector<PyObject*> names;  // interned
};

// Notes, for the life of the process, that code runs as a form of AttributeHook says. Throws std::invalid_argument on
// an unknown form.
void know_attribute_hook(PyObject* code, const std::string& form, const std::vector<std::string>& names);

// What is known of the code of `function`; null when nothing is, or it is no function.
const AttributeHook* attribute_hook(PyObject* function);

bool knows_attribute_hook(PyObject* code);

// Whether a function that looks for a builtin finds the interpreter's own.
bool finds_builtin(PyFunctionObject* function, const char* name);

// What the __getattribute__ methods of an object's classes do, one after the other, before object's own is asked.
struct Hooks {
  bool known = false;
  PyObject* names = nullptr;       // attributes that go by another name
  PyObject* names_name = nullptr;  // the attribute that this dict is
  bool reads_dict = false;         // one of them asks for the instance dict
  std::vector<PyFunctionObject*> functions;

  explicit Hooks(PyObject* object);

  // The name that an attribute goes by.
  PyObject* renamed(PyObject* attribute) const;

 private:
  bool add(PyTypeObject* type, PyObject* instance, PyObject* function, PyObject* owner);
};

}  // namespace unified_guards
