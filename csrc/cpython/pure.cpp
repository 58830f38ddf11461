// See pure.h.
#include "cpython/pure.h"

#include "check/tensor.h"

#include <torch/csrc/Device.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Layout.h>
#include <torch/csrc/MemoryFormat.h>
#include <torch/csrc/Size.h>

namespace unified_guards {
namespace {

using cpython::DictState;

constexpr int kMostDepth = 16, kMostItems = 1024;

bool is_torch_constant(PyTypeObject* type) {
  return type == &THPDtypeType || type == &THPDeviceType || type == &THPLayoutType || type == &THPMemoryFormatType;
}

// `items` is how many values may still be looked at: where tuples hold others twice, which hold others twice, there are
// few objects and very many values.
bool is_immutable(PyObject* value, int depth, int& items) {
  if (--items < 0) return false;
  if (!PyTuple_CheckExact(value)) return cpython::is_plain(value) || is_torch_constant(Py_TYPE(value));
  if (depth == 0) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
    if (!is_immutable(PyTuple_GET_ITEM(value, i), depth - 1, items)) return false;
  }
  return true;
}

// Whether a getter written in C only reads a field. Getters of other types may ask an object that they wrap.
bool reads_a_field(PyObject* getter) {
  PyTypeObject* owner = PyDescr_TYPE(getter);
  return owner == &PyBaseObject_Type || owner == &PyType_Type || owner == &PyFunction_Type ||
         is_torch_constant(owner) || PyUnicode_CompareWithASCIIString(PyDescr_NAME(getter), "__dict__") == 0;
}

// Whether only code of the interpreter or of torch runs when an attribute of a class is read through an instance. Not
// the getters of a tensor: they ask the torch function modes.
bool is_given_purely(PyObject* of_type, PyObject* object) {
  PyTypeObject* type = Py_TYPE(of_type);
  if (type == &PyGetSetDescr_Type) return !is_tensor(object) && reads_a_field(of_type);
  return type->tp_descr_get == nullptr || type == &PyFunction_Type || type == &PyMemberDescr_Type ||
         type == &PyMethodDescr_Type || type == &PyWrapperDescr_Type || type == &PyStaticMethod_Type;
}

PureAttribute found_or_unknown(PyObject* value) {
  if (value == nullptr) PyErr_Clear();
  return {value != nullptr, value, true};
}

PureAttribute attribute_of_class(PyObject* object, PyObject* name) {
  PyTypeObject* metaclass = Py_TYPE(object);
  constexpr PureAttribute unknown{false, nullptr, false};
  if (metaclass->tp_getattro != PyType_Type.tp_getattro || !cpython::looks_up_purely(metaclass)) return unknown;
  if (!cpython::looks_up_purely(reinterpret_cast<PyTypeObject*>(object))) return unknown;
  PyObject* of_metaclass = _PyType_Lookup(metaclass, name);
  PyObject* own = _PyType_Lookup(reinterpret_cast<PyTypeObject*>(object), name);
  if (of_metaclass != nullptr && !is_given_purely(of_metaclass, object)) return unknown;
  if (own != nullptr && !is_given_purely(own, object)) return unknown;
  if (own == nullptr && of_metaclass == nullptr) return {true, nullptr, false};
  const cpython::Uncollected uncollected;
  return found_or_unknown(PyObject_GetAttr(object, name));
}

bool class_lacks(PyTypeObject* type, PyObject* names, unsigned int& version) {
  if (version != 0 && version == type->tp_version_tag) return true;
  if (!cpython::looks_up_purely(type)) return false;
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(names); at++) {
    PyObject* name = PyList_GET_ITEM(names, at);
    if (!PyUnicode_CheckExact(name) || _PyType_Lookup(type, name) != nullptr) return false;
  }
  version = cpython::type_version_word(type) != nullptr ? type->tp_version_tag : 0;
  return true;
}

bool instance_lacks(PyObject* object, PyObject* names) {
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kNone) return true;
  if (instance.state != DictState::kReady && instance.state != DictState::kNotMade) return false;
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(names); at++) {
    PyObject* name = PyList_GET_ITEM(names, at);
    const bool is_made = instance.state == DictState::kReady;
    if (!(is_made ? cpython::find_purely(instance.dict, name) : cpython::inline_value(object, name)).is_absent()) {
      return false;
    }
  }
  return true;
}

}  // namespace

PureAttribute attribute_purely(PyObject* object, PyObject* name, cpython::Slot& slot) {
  constexpr PureAttribute unknown{false, nullptr, false};
  if (!PyUnicode_CheckExact(name)) return unknown;
  if (PyType_Check(object)) return attribute_of_class(object, name);
  PyTypeObject* type = Py_TYPE(object);
  if (!cpython::looks_up_purely(type) || !cpython::plain_attribute_access(type)) return unknown;
  PyObject* of_type = _PyType_Lookup(type, name);
  if (of_type != nullptr && !is_given_purely(of_type, object)) return unknown;
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kOther) return unknown;
  cpython::Found found{true, nullptr};
  if (instance.state == DictState::kReady) {
    found = cpython::find_purely(instance.dict, name, slot);
    if (!found.certain) return unknown;
  } else if (instance.state == DictState::kNotMade) {
    found = cpython::inline_value(object, name);
  }
  const bool has_last_word = type->tp_getattro != PyObject_GenericGetAttr;  // a __getattr__, also of a module
  if (of_type == nullptr && found.certain) {
    return {found.value != nullptr || !has_last_word, found.value, false};
  }
  const cpython::Uncollected uncollected;
  PyObject* value = PyObject_GenericGetAttr(object, name);
  if (value != nullptr) return {true, value, true};
  PyErr_Clear();
  return {!has_last_word, nullptr, false};
}

bool attributes_are_of_instance(PyTypeObject* type, PyObject* name) {
  if (PyType_FastSubclass(type, Py_TPFLAGS_TYPE_SUBCLASS)) return false;
  if (!cpython::looks_up_purely(type) || !cpython::plain_attribute_access(type)) return false;
  PyObject* of_type = _PyType_Lookup(type, name);
  return of_type == nullptr || Py_TYPE(of_type)->tp_descr_set == nullptr;
}

bool lacks_purely(PyObject* object, PyObject* names, unsigned int& version) {
  PyTypeObject* type = Py_TYPE(object);
  if (type->tp_getattro != PyObject_GenericGetAttr || !class_lacks(type, names, version)) return false;
  return instance_lacks(object, names);
}

bool is_immutable(PyObject* value) {
  int items = kMostItems;
  return is_immutable(value, kMostDepth, items);
}

bool has_plain_length(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (PyDict_CheckExact(object) || PyAnySet_CheckExact(object) || cpython::is_plain(object)) return true;
  const auto* base = PyList_Check(object) ? &PyList_Type : PyTuple_Check(object) ? &PyTuple_Type : nullptr;
  return base != nullptr && type->tp_as_sequence->sq_length == base->tp_as_sequence->sq_length;
}

bool item_purely(PyObject* object, PyObject* key, PyObject*& value) {
  const bool is_list = PyList_CheckExact(object);
  if (!is_list && !PyTuple_CheckExact(object) && Py_TYPE(object) != &THPSizeType) return false;
  if (!PyLong_CheckExact(key)) return false;
  int overflow = 0;
  long long index = PyLong_AsLongLongAndOverflow(key, &overflow);
  if (index < 0 && overflow == 0) index += Py_SIZE(object);
  value = nullptr;
  if (overflow != 0 || index < 0 || index >= Py_SIZE(object)) return true;
  value = is_list ? PyList_GET_ITEM(object, index) : PyTuple_GET_ITEM(object, index);
  return true;
}

bool keys_compare_purely(PyObject* dict, PyObject* expected) {
  Py_ssize_t cursor = 0, at = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (at >= PySequence_Fast_GET_SIZE(expected)) return true;
    PyObject* wanted = PySequence_Fast_GET_ITEM(expected, at++);
    if (key != wanted && !(cpython::is_plain(key) && cpython::is_plain(wanted))) return false;
  }
  return true;
}

Bound bound_of(PyObject* object) {
  if (PyMethod_Check(object)) return {true, PyMethod_GET_SELF(object)};
  if (PyCFunction_Check(object)) return {true, reinterpret_cast<PyCFunctionObject*>(object)->m_self};
  if (Py_TYPE(object) != cpython::method_wrapper_type()) return {false, nullptr};
  static PyObject* name = PyUnicode_InternFromString("__self__");
  PyObject* to = PyObject_GenericGetAttr(object, name);  // a member of a struct that is not public
  if (to == nullptr) PyErr_Clear();
  Py_XDECREF(to);
  return {true, to};
}

bool dies_quietly(PyObject* object) {
  return is_immutable(object) || bound_of(object).is_bound || Py_TYPE(object) == &THPSizeType;
}

}  // namespace unified_guards
