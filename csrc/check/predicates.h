// Questions about one object, as the exact tier asks them. Each mirrors one accessor or leaf guard of torch's guard
// tree (torch/csrc/dynamo/guards.cpp). Where torch would throw or leave an error set, the answer is no, and no error is
// set.
//
// Nothing here looks at the program. The evaluator must find out first whether a question may run code of a user's.
#pragma once

#include "check/global_state.h"
#include "check/seen.h"
#include "check/tensor.h"
#include "cpython/pure.h"
#include "cpython/ref.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace unified_guards {

// Whether a truth value of the C API is true. An error (-1) is cleared, and counts as false.
inline bool is_true(int truth) {
  if (truth < 0) PyErr_Clear();
  return truth > 0;
}

inline bool equal(PyObject* found, PyObject* expected) {
  if (found == expected) return true;
  return Py_TYPE(found) == Py_TYPE(expected) && is_true(PyObject_RichCompareBool(found, expected, Py_EQ));
}

// The object that a weak reference leads to. A dead one leads to None, which no weak reference can be made of.
inline bool is_target(PyObject* object, PyObject* reference) {
  if (!PyWeakref_Check(reference) || object == Py_None) return false;
  Ref target(cpython::weakref_target(reference));
  return target.get() == object;
}

inline bool call_is_true(PyObject* callable, PyObject* argument) {
  Ref result(argument ? PyObject_CallOneArg(callable, argument) : PyObject_CallNoArgs(callable));
  if (result.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return is_true(PyObject_IsTrue(result.get()));
}

// A field of a function, or of the function of a method; null where there is neither.
inline PyObject* function_field(PyObject* object, PyObject* PyFunctionObject::* field) {
  PyFunctionObject* function = cpython::function_of(object);
  return function == nullptr ? nullptr : function->*field;
}

inline bool has_length(PyObject* object, uint32_t length, bool measure_sets) {
  Py_ssize_t found = measure_sets && PyAnySet_Check(object) ? PySet_GET_SIZE(object) : PySequence_Length(object);
  if (found < 0) PyErr_Clear();
  return found == static_cast<Py_ssize_t>(length);
}

// `found` is what PyDict_Contains or PySet_Contains said. An error (-1) is neither yes nor no: the guard fails.
inline bool contains_is(int found, bool expected) {
  if (found < 0) PyErr_Clear();
  return found == static_cast<int>(expected);
}

// Whether comparing an object with a constant runs no code of a user's.
inline bool compares_purely(PyObject* found, PyObject* expected) {
  if (found == expected || Py_TYPE(found) != Py_TYPE(expected)) return true;
  return cpython::is_plain(expected) || (is_immutable(expected) && is_immutable(found));
}

// The list of an exact dict's keys; of another mapping, what its code makes.
inline PyObject* keys_of(PyObject* mapping) {
  if (!PyDict_CheckExact(mapping)) return PyMapping_Keys(mapping);
  const cpython::Uncollected uncollected;
  return PyDict_Keys(mapping);
}

inline bool mapping_keys_are(PyObject* object, PyObject* expected) {
  Ref keys(keys_of(object));
  if (keys.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return is_true(PyObject_RichCompareBool(keys.get(), expected, Py_EQ));
}

inline bool tuple_iterator_has(PyObject* object, uint64_t type, uint32_t left) {
  if (reinterpret_cast<uint64_t>(Py_TYPE(object)) != type) return false;
  auto* it = reinterpret_cast<cpython::TupleIterator*>(object);
  Py_ssize_t remaining = it->sequence ? PyTuple_GET_SIZE(it->sequence) - it->index : 0;
  return remaining == static_cast<Py_ssize_t>(left);
}

inline bool range_iterator_is(PyObject* object, uint64_t type, PyObject* expected) {
  if (reinterpret_cast<uint64_t>(Py_TYPE(object)) != type || Py_TYPE(object) != &PyRangeIter_Type) return false;
  cpython::RangeState state = cpython::range_state(object);
  return state.start == PyLong_AsLong(PyTuple_GET_ITEM(expected, 0)) &&
         state.stop == PyLong_AsLong(PyTuple_GET_ITEM(expected, 1)) &&
         state.step == PyLong_AsLong(PyTuple_GET_ITEM(expected, 2));
}

inline bool float_is_nan(PyObject* object) {
  return PyFloat_CheckExact(object) && std::isnan(PyFloat_AS_DOUBLE(object));
}

inline bool complex_is_nan(PyObject* object) {
  if (!PyComplex_CheckExact(object)) return false;
  const Py_complex value = PyComplex_AsCComplex(object);
  return std::isnan(value.real) || std::isnan(value.imag);
}

// `where` is (dict of a module, name, expected value).
inline PyObject* named_global(PyObject* where) {
  PyObject* found = PyDict_GetItemWithError(PyTuple_GET_ITEM(where, 0), PyTuple_GET_ITEM(where, 1));
  if (found == nullptr) PyErr_Clear();
  return found;
}

inline bool dual_level_is(PyObject* where) {
  PyObject* found = named_global(where);
  return found != nullptr && PyLong_CheckExact(found) &&
         is_true(PyObject_RichCompareBool(found, PyTuple_GET_ITEM(where, 2), Py_EQ));
}

// Runs no code of a user's: the dict is that of a module of torch's, and a default device is None or a device.
inline bool default_device_is(PyObject* where) {
  PyObject* found = named_global(where);
  PyObject* expected = PyTuple_GET_ITEM(where, 2);
  if (found == nullptr || found == expected) return found != nullptr;
  return compares_purely(found, expected) && is_true(PyObject_RichCompareBool(expected, found, Py_EQ));
}

inline bool mode_stack_is(PyObject* types) {
  using TLS = at::impl::PythonTorchFunctionTLS;
  const Py_ssize_t length = PyTuple_GET_SIZE(types);
  if (TLS::stack_len() != length) return false;
  for (Py_ssize_t i = 0; i < length; i++) {
    PyObject* mode = TLS::get_stack_at(i)->ptr(getPyInterpreter());
    if (reinterpret_cast<PyObject*>(Py_TYPE(mode)) != PyTuple_GET_ITEM(types, i)) return false;
  }
  return true;
}

inline bool dict_version_is(PyObject* object, PyObject* dict_version, uint64_t expected) {
  if (!PyDict_Check(object)) return false;
  Ref version(PyObject_CallOneArg(dict_version, object));
  const uint64_t found = version.get() ? PyLong_AsUnsignedLongLong(version.get()) : 0;
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return found == expected;
}

inline bool dispatch_keys_are(PyObject* object, PyObject* raw_repr, uint64_t expected, DispatchState& dispatch) {
  Ref raw(PyObject_CallMethodNoArgs(object, raw_repr));
  const uint64_t found = raw.get() ? PyLong_AsUnsignedLongLong(raw.get()) : 0;
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return dispatch.apply(c10::DispatchKeySet(c10::DispatchKeySet::RAW, found)) == expected;
}

inline bool script_type_is(PyObject* object, PyObject* unwrap, uint64_t type) {
  const int fake = PyObject_IsInstance(object, PyTuple_GET_ITEM(unwrap, 0));
  if (fake <= 0) return is_true(fake == 0) && reinterpret_cast<uint64_t>(Py_TYPE(object)) == type;
  Ref real(PyObject_GetAttr(object, PyTuple_GET_ITEM(unwrap, 1)));
  if (real.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return reinterpret_cast<uint64_t>(Py_TYPE(real.get())) == type;
}

// Exactly these keys in this order: the same objects, or equal ones of the same type.
inline bool keys_are(PyObject* object, PyObject* expected) {
  if (!PyDict_CheckExact(object) || PyDict_GET_SIZE(object) != PyTuple_GET_SIZE(expected)) return false;
  Py_ssize_t cursor = 0, at = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(object, &cursor, &key, &value)) {
    // Comparing may run user code that changes the dict.
    if (at >= PyTuple_GET_SIZE(expected)) return false;
    PyObject* wanted = PyTuple_GET_ITEM(expected, at++);
    if (key == wanted) continue;
    Ref held(Py_NewRef(key));
    if (!equal(key, wanted)) return false;
  }
  return at == PyTuple_GET_SIZE(expected);
}

// The storage of a tensor; null when it has none (a sparse one).
inline const c10::StorageImpl* storage_of(PyObject* tensor) {
  const c10::TensorImpl* impl = tensor_of(tensor).unsafeGetTensorImpl();
  return impl->has_storage() ? impl->unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

inline bool insert_storage(SeenTable& seen, PyObject* object, uint32_t group) {
  if (!is_tensor(object)) return false;
  const c10::StorageImpl* storage = storage_of(object);
  return storage == nullptr || seen.insert(storage, group);
}

inline bool share_storage(PyObject* first, PyObject* second) {
  if (first == nullptr || !is_tensor(first) || !is_tensor(second)) return false;
  const c10::StorageImpl* storage = storage_of(first);
  return storage != nullptr && storage == storage_of(second);
}

// Exactly the first `overlapping` of the saved tensors may overlap, as torch's own C function judges it.
inline bool overlap_is(const std::vector<PyObject*>& saved, uint32_t overlapping, PyObject* spec) {
  PyObject* slots = PyTuple_GET_ITEM(spec, 1);
  const Py_ssize_t n = PyTuple_GET_SIZE(slots);
  Ref tensors(PyList_New(n));
  if (tensors.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  for (Py_ssize_t i = 0; i < n; i++) {
    PyObject* tensor = saved[PyLong_AsLong(PyTuple_GET_ITEM(slots, i))];
    if (tensor == nullptr) return false;
    Py_INCREF(tensor);
    PyList_SET_ITEM(tensors.get(), i, tensor);
  }
  Ref found(PyObject_CallFunctionObjArgs(PyTuple_GET_ITEM(spec, 0), tensors.get(), Py_False, nullptr));
  if (found.get() == nullptr || !PyAnySet_Check(found.get())) {
    PyErr_Clear();
    return false;
  }
  if (PySet_GET_SIZE(found.get()) != static_cast<Py_ssize_t>(overlapping)) return false;
  for (uint32_t i = 0; i < overlapping; i++) {
    Ref index(PyLong_FromUnsignedLong(i));
    if (!is_true(PySet_Contains(found.get(), index.get()))) return false;
  }
  return true;
}

inline PyObject* iterator_of(PyObject* set) {
  if (!PyAnySet_CheckExact(set)) return PyObject_GetIter(set);
  const cpython::Uncollected uncollected;
  return PyObject_GetIter(set);
}

inline PyObject* set_item_at(PyObject* object, uint32_t position) {
  Ref iterator(iterator_of(object));
  if (iterator.get() == nullptr) return nullptr;
  for (uint32_t i = 0;; i++) {
    PyObject* item = PyIter_Next(iterator.get());
    if (item == nullptr || i == position) return item;
    Py_DECREF(item);
  }
}

inline PyObject* tuple_iterator_item(PyObject* object, uint32_t offset) {
  if (Py_TYPE(object) != &PyTupleIter_Type) return nullptr;
  auto* it = reinterpret_cast<cpython::TupleIterator*>(object);
  if (it->sequence == nullptr || it->index + static_cast<Py_ssize_t>(offset) >= PyTuple_GET_SIZE(it->sequence)) {
    return nullptr;
  }
  return PyTuple_GET_ITEM(it->sequence, it->index + offset);
}

inline PyObject* int_or_null(c10::SymInt value) {
  auto known = value.maybe_as_int();
  return known ? PyLong_FromLongLong(*known) : nullptr;
}

inline PyObject* tensor_property(Op op, PyObject* object, uint32_t dim) {
  if (!is_tensor(object)) return nullptr;
  const at::Tensor tensor = tensor_of(object);  // held: its class may have it computed in Python
  if (op == Op::TENSOR_OFFSET) return int_or_null(tensor.sym_storage_offset());
  if (tensor.dim() <= static_cast<int64_t>(dim)) return nullptr;
  if (op == Op::TENSOR_SIZE) return int_or_null(tensor.sym_size(dim));
  const c10::SymIntArrayRef strides = tensor.sym_strides();  // a subclass may have fewer than dimensions
  return dim < strides.size() ? int_or_null(strides[dim]) : nullptr;
}

inline PyObject* tensor_grad(PyObject* object) {
  if (!is_tensor(object)) return nullptr;
  const cpython::Uncollected uncollected;
  return THPVariable_Wrap(tensor_of(object).unsafeGetTensorImpl()->grad());
}

// Whether what is read of a tensor may be computed in Python.
inline bool may_ask_python(PyObject* object) {
  return object != nullptr && is_tensor(object) && asks_python(*tensor_of(object).unsafeGetTensorImpl());
}

}  // namespace unified_guards
