// See gates.h.
#include "call/gates.h"

#include "call/dispatcher.h"
#include "call/dispatcher_type.h"
#include "call/missed.h"
#include "cpython/ref.h"

#include <cstddef>
#include <utility>

namespace unified_guards {
namespace {

// The dispatcher whose call a gate of modules has sent the long way, until the call comes to its own gate.
thread_local PyObject* gone_long = nullptr;

struct Gate {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* dispatcher;  // a weak reference, owned
};

PyObject* gate_call(PyObject* object, PyObject* const* args, size_t nargs, PyObject*) {
  if (PyVectorcall_NARGS(nargs) != 2 || !PyTuple_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
    missed.forget();
    return Py_NewRef(long_way());
  }
  const Ref dispatcher(cpython::weakref_target(reinterpret_cast<Gate*>(object)->dispatcher));
  if (std::exchange(gone_long, nullptr) == dispatcher.get()) {
    missed.go_on();
    return Py_NewRef(long_way());
  }
  if (dispatcher.get() != Py_None) return dispatch(dispatcher.get(), args[0], args[1]);
  missed.forget();
  return Py_NewRef(long_way());
}

PyObject* gate_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* dispatcher = nullptr;
  if (!PyArg_ParseTuple(args, "O:Gate", &dispatcher)) return nullptr;
  const Ref reference(PyWeakref_NewRef(dispatcher, nullptr));
  if (!reference) return nullptr;
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  auto* gate = reinterpret_cast<Gate*>(object);
  gate->call = gate_call;
  gate->dispatcher = Py_NewRef(reference.get());
  return object;
}

void gate_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  Py_CLEAR(reinterpret_cast<Gate*>(object)->dispatcher);
  type->tp_free(object);
  Py_DECREF(type);
}

// The dispatcher of a wrapper; null where the object is no wrapper with a dispatcher of its own. Whatever copies the
// attributes of a wrapper (functools.wraps) copies the dispatcher, too.
PyObject* dispatcher_serving(PyObject* wrapper) {
  if (wrapper == nullptr || !PyFunction_Check(wrapper)) return nullptr;
  PyObject* attributes = reinterpret_cast<PyFunctionObject*>(wrapper)->func_dict;
  if (attributes == nullptr || !PyDict_CheckExact(attributes)) return nullptr;
  static PyObject* const name = PyUnicode_InternFromString("_unified_guards_dispatcher");
  PyObject* found = PyDict_GetItemWithError(attributes, name);
  if (found == nullptr) PyErr_Clear();
  if (found == nullptr || !is_dispatcher(found)) return nullptr;
  PyObject* reference = dispatcher_of(found).wrapper;
  return reference != nullptr && *cpython::weakref_word(reference) == cpython::bits(wrapper) ? found : nullptr;
}

PyObject* module_gate(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!State::now.is_on || nargs != 3 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
    return Py_NewRef(long_way());
  }
  const Ref dispatcher(Py_XNewRef(dispatcher_serving(compiled_forward(args[0]))));
  if (!dispatcher) return Py_NewRef(long_way());
  PyObject* result = dispatch(dispatcher.get(), args[1], args[2]);
  gone_long = result == long_way() ? dispatcher.get() : nullptr;
  return result;
}

PyMethodDef module_gate_method{"module_gate", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(module_gate)),
                               METH_FASTCALL, "Hands a call of a module to the Dispatcher of its compiled forward."};

PyMemberDef kGateMembers[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Gate, call), READONLY, nullptr},
                              {nullptr, 0, 0, 0, nullptr}};

}  // namespace

PyObject* make_gate_type() {
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("Hands a call to its Dispatcher, if that lives.")},
                         {Py_tp_new, cpython::slot(gate_new)},
                         {Py_tp_call, cpython::slot(PyVectorcall_Call)},
                         {Py_tp_dealloc, cpython::slot(gate_dealloc)},
                         {Py_tp_members, kGateMembers},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.Gate", sizeof(Gate), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  return PyType_FromSpec(&spec);
}

PyObject* make_module_gate() { return PyCFunction_New(&module_gate_method, nullptr); }

}  // namespace unified_guards
