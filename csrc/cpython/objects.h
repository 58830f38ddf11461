// Iterators, types, weak references and code objects beyond the public API, per version. See cpython.h.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace unified_guards::cpython {

struct TupleIterator {
  PyObject_HEAD
  Py_ssize_t index;
  PyTupleObject* sequence;  // null when exhausted
};

struct RangeIterator {
  PyObject_HEAD
#if PY_VERSION_HEX < 0x030C0000
  long index;
#endif
  long start, step, length;
};

// Before 3.12 a range iterator counts an index up; from 3.12 it moves `start` and lowers `length`.
struct RangeState {
  long start, stop, step;
};

inline RangeState range_state(PyObject* iterator) {
  auto* it = reinterpret_cast<RangeIterator*>(iterator);
#if PY_VERSION_HEX < 0x030C0000
  return {it->start + it->index * it->step, it->start + it->length * it->step, it->step};
#else
  return {it->start, it->start + it->length * it->step, it->step};
#endif
}

// ---- types, functions, weak references ---------------------------------------------------------------------------

inline bool is_built_in(PyTypeObject* type) { return !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

// The dict of a type; a new reference from 3.12 on, where static builtin types keep theirs elsewhere.
inline PyObject* type_dict(PyObject* type, bool& is_new) {
#if PY_VERSION_HEX >= 0x030C0000
  is_new = true;
  return PyType_GetDict(reinterpret_cast<PyTypeObject*>(type));
#else
  is_new = false;
  return reinterpret_cast<PyTypeObject*>(type)->tp_dict;
#endif
}

// What a type that is made by hand has in one of its slots.
template <typename Function>
void* slot(Function* function) {
  return reinterpret_cast<void*>(function);
}

// The names of a code object's variables, and of those that its closure holds: new references.
inline PyObject* variable_names(PyCodeObject* code) {
#if PY_VERSION_HEX >= 0x030B0000
  return PyCode_GetVarnames(code);
#else
  return Py_NewRef(code->co_varnames);
#endif
}

inline PyObject* free_names(PyCodeObject* code) {
#if PY_VERSION_HEX >= 0x030B0000
  return PyCode_GetFreevars(code);
#else
  return Py_NewRef(code->co_freevars);
#endif
}

// A function itself, or the function of a method; null where there is neither.
inline PyFunctionObject* function_of(PyObject* object) {
  if (PyMethod_Check(object)) object = PyMethod_GET_FUNCTION(object);
  return PyFunction_Check(object) ? reinterpret_cast<PyFunctionObject*>(object) : nullptr;
}

// The target of a weak reference or proxy as a new reference; None when it is dead.
inline PyObject* weakref_target(PyObject* reference) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* target = nullptr;
  if (PyWeakref_GetRef(reference, &target) < 0) {
    PyErr_Clear();
    return nullptr;
  }
  return target != nullptr ? target : Py_NewRef(Py_None);
#else
  PyObject* target = PyWeakref_GetObject(reference);
  if (target == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  Py_INCREF(target);
  return target;
#endif
}

// Whether attribute access on this type starts as object's own does: type, instance dict, and only then __getattr__.
inline bool plain_attribute_access(PyTypeObject* type) {
  if (type->tp_getattro == PyObject_GenericGetAttr || type->tp_getattro == PyModule_Type.tp_getattro) return true;
  static PyObject* name = PyUnicode_InternFromString("__getattribute__");
  return _PyType_Lookup(type, name) == _PyType_Lookup(&PyBaseObject_Type, name);
}

// The type of methods of types written in C, such as `None.__str__`, once they are bound. It has no public name; null
// where it could not be found.
inline PyTypeObject* method_wrapper_type() {
  static PyTypeObject* type = [] {
    PyObject* method = PyObject_GetAttrString(Py_None, "__str__");
    PyTypeObject* found = method != nullptr ? Py_TYPE(method) : nullptr;
    Py_XDECREF(method);
    if (found == nullptr) PyErr_Clear();
    return found;
  }();
  return type;
}

// What a class that was made by a class statement has under a name itself: borrowed, or null with an error set.
inline PyObject* own_attribute(PyTypeObject* type, PyObject* name) {
  PyObject* found = PyDict_GetItemWithError(type->tp_dict, name);
  if (found == nullptr && !PyErr_Occurred()) PyErr_SetObject(PyExc_AttributeError, name);
  return found;
}

// As setattr() does, where neither a metaclass nor a name with a meaning of its own is in the way. False with an error
// set.
inline bool set_own_attribute(PyTypeObject* type, PyObject* name, PyObject* value) {
  const bool is_done = PyDict_SetItem(type->tp_dict, name, value) == 0;
  PyType_Modified(type);
  return is_done;
}

// Adds a line to the traceback of the error that is set, as if a frame of that code had run. Does nothing where there
// is no memory.
void add_to_traceback(PyCodeObject* code, PyObject* globals);

#if PY_VERSION_HEX >= 0x030C0000
// Which tools of sys.monitoring look at a code object: for each event one bit a tool.
struct Monitors {
#if PY_VERSION_HEX < 0x030E0000
  static constexpr size_t kEvents = sizeof(_Py_LocalMonitors);
#elif PY_VERSION_HEX < 0x030F0000
  static constexpr size_t kEvents = 11;
#else
  static constexpr size_t kEvents = 16;
#endif
  uint8_t asked_here[kEvents];  // events that were asked for in this code object alone
  uint8_t active[kEvents];
};

inline const Monitors* monitors_of(PyObject* code) {
  return reinterpret_cast<const Monitors*>(reinterpret_cast<PyCodeObject*>(code)->_co_monitoring);
}

// False until self_test() has seen that monitors lie as is said here.
inline bool monitors_known = false;
#else
inline bool monitors_known = true;
#endif

// Whether tools of sys.monitoring, which there is from Python 3.12 on, look at the Python code that runs now. Code that
// has begun to run knows the events that are on. Tools 6 and 7 stand for sys.setprofile and sys.settrace in any thread.
inline bool is_monitored() {
#if PY_VERSION_HEX >= 0x030C0000
  if (!monitors_known) return true;
#if PY_VERSION_HEX >= 0x030D0000
  auto* frame = PyThreadState_Get()->current_frame;
#else
  auto* frame = PyThreadState_Get()->cframe->current_frame;
#endif
  if (frame == nullptr) return false;
  PyObject* code = PyUnstable_InterpreterFrame_GetCode(frame);
  bool is_any = false;
  if (PyCode_Check(code)) {
    const Monitors* monitors = monitors_of(code);
    for (size_t at = 0; monitors != nullptr && at < Monitors::kEvents; at++) {
      is_any = is_any || (monitors->active[at] & 0x3F) != 0;
    }
  }
  Py_DECREF(code);
  return is_any;
#else
  return false;
#endif
}

// ---- what code objects carry -------------------------------------------------------------------------------------

// What a code object carries for the extension that was given this index; null when there is nothing.
inline void* extra_of(PyObject* code, Py_ssize_t index) {
  void* extra = nullptr;
#if PY_VERSION_HEX >= 0x030C0000
  const int failed = PyUnstable_Code_GetExtra(code, index, &extra);
#else
  const int failed = _PyCode_GetExtra(code, index, &extra);
#endif
  if (failed) PyErr_Clear();
  return failed ? nullptr : extra;
}

// The only index for which a code object carries something; -1 where there is none, or more than one.
Py_ssize_t only_extra_of(PyObject* code);

// Where the interpreter keeps the function that frees what code objects carry at an index; null where that is not
// known. A function that is written there takes the place of the former one, and has to free what that one freed.
freefunc* extra_free_slot(Py_ssize_t index);

}  // namespace unified_guards::cpython
