// See entrance.h.
#include "call/entrance.h"

#include "call/dispatcher.h"
#include "call/dispatcher_type.h"
#include "cpython/cpython.h"
#include "cpython/ref.h"

#include <structmember.h>

#include <cstddef>

namespace unified_guards {
namespace {

// A Python object.
struct Entrance {
  PyObject_HEAD
  PyObject* dispatcher;  // owned; null at first
  PyObject* weak_references;
};

Entrance& entrance_of(PyObject* object) { return *reinterpret_cast<Entrance*>(object); }

PyObject* call_miss(PyObject* object, PyObject* args, PyObject* kwargs) {
  static PyObject* const name = PyUnicode_InternFromString("_miss");
  const Ref named(kwargs != nullptr ? Py_NewRef(kwargs) : PyDict_New());
  return named ? PyObject_CallMethodObjArgs(object, name, args, named.get(), nullptr) : nullptr;
}

PyObject* entrance_call(PyObject* object, PyObject* args, PyObject* kwargs) {
  // Code of a user's in a guard may drop them.
  const Ref held(Py_NewRef(object)), dispatcher(Py_XNewRef(entrance_of(object).dispatcher));
  if (!dispatcher) return call_miss(object, args, kwargs);
  const HookOff off;  // what runs is compiled, or runs as it is
  if (off.callback() == nullptr) return nullptr;
  if (Py_EnterRecursiveCall(" while calling a compiled function")) return nullptr;
  Ref result(dispatch(dispatcher.get(), args, kwargs));
  Py_LeaveRecursiveCall();
  if (result.get() != long_way()) return result ? Py_NewRef(result.get()) : nullptr;
  return call_miss(object, args, kwargs);
}

int entrance_clear(PyObject* object) {
  Py_CLEAR(entrance_of(object).dispatcher);
  return 0;
}

int entrance_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(entrance_of(object).dispatcher);
  return 0;
}

void entrance_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  if (entrance_of(object).weak_references != nullptr) PyObject_ClearWeakRefs(object);
  entrance_clear(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* entrance_lead_to(PyObject* object, PyObject* dispatcher) {
  if (!is_dispatcher(dispatcher) || !dispatcher_of(dispatcher).is_own) {
    PyErr_SetString(PyExc_TypeError, "an entrance leads to a dispatcher of its own");
    return nullptr;
  }
  Py_XSETREF(entrance_of(object).dispatcher, Py_NewRef(dispatcher));
  Py_RETURN_NONE;
}

PyMethodDef kEntranceMethods[] = {
    {"_lead_to", entrance_lead_to, METH_O, "Has calls go to that Dispatcher from now on."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef kEntranceMembers[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Entrance, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

}  // namespace

bool show_call(PyObject* type, PyObject* function) {
  bool is_new = false;
  PyObject* dict = cpython::type_dict(type, is_new);
  const bool is_done = dict != nullptr && PyDict_SetItemString(dict, "__call__", function) == 0;
  if (is_new) Py_XDECREF(dict);
  if (is_done) PyType_Modified(reinterpret_cast<PyTypeObject*>(type));
  return is_done;
}

PyObject* make_entrance_type() {
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("Hands calls to a Dispatcher, and the rest to _miss.")},
                         {Py_tp_call, cpython::slot(entrance_call)},
                         {Py_tp_traverse, cpython::slot(entrance_traverse)},
                         {Py_tp_clear, cpython::slot(entrance_clear)},
                         {Py_tp_dealloc, cpython::slot(entrance_dealloc)},
                         {Py_tp_methods, kEntranceMethods},
                         {Py_tp_members, kEntranceMembers},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.Entrance", sizeof(Entrance), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, slots};
  return PyType_FromSpec(&spec);
}

}  // namespace unified_guards
