// See checker.h. A builtin function with a capsule is the cheapest callable there is for one positional argument.
#include "checker.h"

#include <ATen/PythonTorchFunctionTLS.h>

namespace unified_guards {
namespace {

constexpr const char* kCapsule = "unified_guards._C.Checker";

// How a disagreement gets out of Dynamo's lookup, which clears every exception that a guard raises: the lookup asks
// for the truth of what we return, and an object whose truth is "false, with an error set" is taken for a failed guard
// whose error then reaches the caller. Only ever made under UNIFIED_GUARDS_VERIFY=1, where raising is the purpose.
struct Disagreement {
  PyObject_HEAD
  PyObject* exception;
};

int disagreement_bool(PyObject* self) {
  PyObject* exception = reinterpret_cast<Disagreement*>(self)->exception;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception)), exception);
  return 0;
}

void disagreement_dealloc(PyObject* self) {
  Py_XDECREF(reinterpret_cast<Disagreement*>(self)->exception);
  Py_TYPE(self)->tp_free(self);
}

PyTypeObject* disagreement_type() {
  static PyNumberMethods number{};
  static PyTypeObject type{PyVarObject_HEAD_INIT(nullptr, 0)};
  if (type.tp_name == nullptr) {
    number.nb_bool = disagreement_bool;
    type.tp_name = "unified_guards._C.Disagreement";
    type.tp_basicsize = sizeof(Disagreement);
    type.tp_flags = Py_TPFLAGS_DEFAULT;
    type.tp_as_number = &number;
    type.tp_dealloc = disagreement_dealloc;
    type.tp_free = PyObject_Free;
    if (PyType_Ready(&type) < 0) PyErr_Clear();
  }
  return &type;
}

PyObject* raised_exception() {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
}

// Asks the oracle. Torch's tree may leave torch functions switched off when it throws: put back what was there.
PyObject* verified(const Checker& checker, PyObject* locals, bool hit) {
  using TLS = at::impl::PythonTorchFunctionTLS;
  const auto before = TLS::get_disabled_state();
  PyObject* answer = PyObject_CallFunctionObjArgs(checker.oracle, locals, hit ? Py_True : Py_False, nullptr);
  TLS::set_disabled_state(before);
  if (answer != nullptr) {
    Py_DECREF(answer);
    return PyBool_FromLong(hit);
  }
  PyObject* exception = raised_exception();
  auto* out = PyObject_New(Disagreement, disagreement_type());
  if (out == nullptr) {
    Py_XDECREF(exception);
    return nullptr;
  }
  out->exception = exception;
  return reinterpret_cast<PyObject*>(out);
}

PyObject* call(PyObject* capsule, PyObject* locals) {
  auto* checker = static_cast<std::shared_ptr<Checker>*>(PyCapsule_GetPointer(capsule, kCapsule))->get();
  // An error that an earlier cache entry of torch's left behind is not ours to swallow, and nothing can be asked of
  // the interpreter while it is set: miss.
  if (PyErr_Occurred() || !PyDict_Check(locals)) Py_RETURN_FALSE;
  const bool hit = checker->program.evaluate(locals);
  if (checker->oracle != nullptr) return verified(*checker, locals, hit);
  return PyBool_FromLong(hit);
}

PyMethodDef kCall = {"check_guards", call, METH_O, "True when the compiled code may be reused for these locals."};

void free_capsule(PyObject* capsule) {
  delete static_cast<std::shared_ptr<Checker>*>(PyCapsule_GetPointer(capsule, kCapsule));
}

}  // namespace

PyObject* make_callable(std::shared_ptr<Checker> checker) {
  auto* held = new std::shared_ptr<Checker>(std::move(checker));
  PyObject* capsule = PyCapsule_New(held, kCapsule, free_capsule);
  if (capsule == nullptr) {
    delete held;
    return nullptr;
  }
  PyObject* function = PyCFunction_New(&kCall, capsule);
  Py_DECREF(capsule);
  return function;
}

}  // namespace unified_guards
