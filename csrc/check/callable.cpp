// See checker.h: the callable. It is an object with a vectorcall, the cheapest callable there is.
#include "check/checker.h"
#include "check/outlive.h"
#include "cpython/errors.h"
#include "cpython/ref.h"

#include <structmember.h>

#include <cstddef>
#include <new>

namespace unified_guards {
namespace {

// How a disagreement gets out of Dynamo's lookup, which clears every exception that a guard raises: the lookup asks
// for the truth of what we return, and an object whose truth is "false, with an error set" is taken for a failed guard
// whose error then reaches the caller. Whoever asks from Python raises its `exception` instead. Only ever made under
// UNIFIED_GUARDS_VERIFY=1, where raising is the purpose.
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
  static PyMemberDef members[] = {
      {"exception", T_OBJECT_EX, offsetof(Disagreement, exception), READONLY, "What it was about."}, {}};
  static PyTypeObject type{PyVarObject_HEAD_INIT(nullptr, 0)};
  if (type.tp_name == nullptr) {
    number.nb_bool = disagreement_bool;
    type.tp_name = "unified_guards._C.Disagreement";
    type.tp_members = members;
    type.tp_basicsize = sizeof(Disagreement);
    type.tp_flags = Py_TPFLAGS_DEFAULT;
    type.tp_as_number = &number;
    type.tp_dealloc = disagreement_dealloc;
    type.tp_free = PyObject_Free;
    if (PyType_Ready(&type) < 0) PyErr_Clear();
  }
  return &type;
}

// Checks, tells the observer, and gives the observer's verdict if it has one.
PyObject* verified(Checker& checker, PyObject* locals) {
  const bool hit = checker.check_timed(locals);
  PyObject* answer = checker.tell_observer(locals, hit);
  if (answer != nullptr) {
    const bool given = answer == Py_True || (answer != Py_False && hit);
    Py_DECREF(answer);
    return PyBool_FromLong(given);
  }
  PyObject* exception = cpython::raised_exception();
  auto* out = PyObject_New(Disagreement, disagreement_type());
  if (out == nullptr) {
    Py_XDECREF(exception);
    return nullptr;
  }
  out->exception = exception;
  return reinterpret_cast<PyObject*>(out);
}

struct Callable {
  PyObject_HEAD
  vectorcallfunc call;
  std::shared_ptr<Checker> checker;
};

PyObject* call(PyObject* self, PyObject* const* args, size_t nargs, PyObject* names) {
  if (PyVectorcall_NARGS(nargs) != 1 || names != nullptr) {
    PyErr_SetString(PyExc_TypeError, "a checker takes one argument, the dict of a frame's locals");
    return nullptr;
  }
  // Miss where an earlier cache entry of torch's left an error behind: the error is not ours to swallow, and the
  // interpreter can be asked nothing while it is set.
  if (PyErr_Occurred() || !PyDict_Check(args[0])) Py_RETURN_FALSE;
  // A guard may run code of a user's that drops whatever holds this.
  const Ref held(Py_NewRef(self));
  Checker& checker = *reinterpret_cast<Callable*>(self)->checker;
  if (just_missed.take(&checker)) Py_RETURN_FALSE;
  const Running running(args[0]);
  if (checker.is_observed()) return verified(checker, args[0]);
  return PyBool_FromLong(checker.check(args[0]));
}

void callable_dealloc(PyObject* self) {
  reinterpret_cast<Callable*>(self)->checker.~shared_ptr();
  Py_TYPE(self)->tp_free(self);
}

PyTypeObject* callable_type() {
  static PyTypeObject type{PyVarObject_HEAD_INIT(nullptr, 0)};
  if (type.tp_name == nullptr) {
    type.tp_name = "unified_guards._C.Callable";
    type.tp_doc = "True when the compiled code may be reused for these locals.";
    type.tp_basicsize = sizeof(Callable);
    type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL;
    type.tp_vectorcall_offset = offsetof(Callable, call);
    type.tp_call = PyVectorcall_Call;
    type.tp_dealloc = callable_dealloc;
    type.tp_free = PyObject_Free;
    if (PyType_Ready(&type) < 0) return nullptr;
  }
  return &type;
}

}  // namespace

PyObject* make_callable(std::shared_ptr<Checker> checker) {
  PyTypeObject* type = callable_type();
  auto* made = type != nullptr ? PyObject_New(Callable, type) : nullptr;
  if (made == nullptr) return nullptr;
  made->call = call;
  new (&made->checker) std::shared_ptr<Checker>(std::move(checker));
  return reinterpret_cast<PyObject*>(made);
}

}  // namespace unified_guards
