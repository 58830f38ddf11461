// The self-test that decides whether the layouts in cpython.h are believed.
#include "cpython.h"

namespace unified_guards::cpython {
namespace {

// Every key of a dict is found where entry_at says, with the value that the public API gives.
bool dict_layout_holds(PyObject* dict) {
  Py_ssize_t cursor = 0, found = 0;
  PyObject *key = nullptr, *value = nullptr;
  const Slot used = entries_used(dict);
  if (used > 1000) return false;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    for (Slot i = 0; i < used; i++) {
      Item item = entry_at(dict, i);
      if (item.key == key && item.value == value) found++;
    }
  }
  return found == PyDict_GET_SIZE(dict);
}

constexpr const char* kProbe = R"(
class Plain: pass
def make(n):
    made = Plain()
    for i in range(n):
        setattr(made, 'a%d' % i, i)
    return made
first, second = make(3), make(20)
made, missing = make(2), Plain()
made.__dict__
deleted = {str(i): i for i in range(9)}
del deleted['4']
dicts = [{}, {'a': 1}, {1: 2, 'b': 3}, deleted, {str(i): i for i in range(300)}, first.__dict__, second.__dict__]
)";

bool holds(PyObject* scope) {
  PyObject* dicts = PyDict_GetItemString(scope, "dicts");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(dicts); i++) {
    if (!dict_layout_holds(PyList_GET_ITEM(dicts, i))) return false;
  }
  PyObject* made = PyDict_GetItemString(scope, "made");
  PyObject* dict = PyObject_GenericGetDict(made, nullptr);
  InstanceDict instance = instance_dict(made);
  bool same = instance.state == DictState::kReady && instance.dict == dict;
  Py_XDECREF(dict);
  return same && instance_dict(PyDict_GetItemString(scope, "missing")).state != DictState::kReady;
}

}  // namespace

void self_test() {
#if UG_DICT_LAYOUT
  PyObject* scope = PyDict_New();
  PyDict_SetItemString(scope, "__builtins__", PyEval_GetBuiltins());
  PyObject* result = PyRun_String(kProbe, Py_file_input, scope, scope);
  if (result != nullptr) {
    layouts_known = true;  // the helpers ask
    layouts_known = holds(scope);
    Py_DECREF(result);
  }
  PyErr_Clear();
  Py_DECREF(scope);
#endif
}

}  // namespace unified_guards::cpython
