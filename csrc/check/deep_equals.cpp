// See deep_equals.h.
#include "check/deep_equals.h"

#include "cpython/ref.h"

#include <cstring>
#include <utility>

namespace unified_guards {
namespace {

constexpr int kMostDepth = 200;
constexpr long kMostValues = 1 << 20;

// How deep a comparison is, and how many values it has seen: where tuples hold others twice, which hold others twice,
// there are few objects and very many values. A comparison may run code of the user's that starts another comparison.
struct Progress {
  int depth = 0;
  long values = 0;
};
thread_local Progress progress;

bool same(PyObject* found, PyObject* expected);

// Holds both while they are compared: code of the user's may run then, and drop them from their container.
bool same_held(PyObject* found, PyObject* expected) {
  const Ref one(Py_NewRef(found)), other(Py_NewRef(expected));
  return same(found, expected);
}

bool same_tuples(PyObject* found, PyObject* expected) {
  const Py_ssize_t n = PyTuple_GET_SIZE(expected);
  if (PyTuple_GET_SIZE(found) != n) return false;
  for (Py_ssize_t i = 0; i < n; i++) {
    if (!same(PyTuple_GET_ITEM(found, i), PyTuple_GET_ITEM(expected, i))) return false;
  }
  return true;
}

bool same_lists(PyObject* found, PyObject* expected) {
  const Py_ssize_t n = PyList_GET_SIZE(expected);
  for (Py_ssize_t i = 0; i < n; i++) {
    if (PyList_GET_SIZE(found) != n || PyList_GET_SIZE(expected) != n) return false;
    if (!same_held(PyList_GET_ITEM(found, i), PyList_GET_ITEM(expected, i))) return false;
  }
  return PyList_GET_SIZE(found) == n;
}

bool same_dicts(PyObject* found, PyObject* expected) {
  if (PyDict_GET_SIZE(found) != PyDict_GET_SIZE(expected)) return false;
  Py_ssize_t cursor = 0, other_cursor = 0;
  PyObject *key = nullptr, *value = nullptr, *other_key = nullptr, *other_value = nullptr;
  while (PyDict_Next(found, &cursor, &key, &value)) {
    if (!PyDict_Next(expected, &other_cursor, &other_key, &other_value)) return false;
    const Ref held(Py_NewRef(value)), other_held(Py_NewRef(other_value));
    if (!same_held(key, other_key) || !same(value, other_value)) return false;
  }
  return PyDict_GET_SIZE(found) == PyDict_GET_SIZE(expected);
}

// The members that were found are put into a dict first: unlike a set, a dict gives back its own member for an equal
// one.
bool same_sets(PyObject* found, PyObject* expected) {
  if (PySet_GET_SIZE(found) != PySet_GET_SIZE(expected)) return false;
  const Ref members(PyDict_New()), iterator(PyObject_GetIter(found)), wanted(PyObject_GetIter(expected));
  if (members.get() == nullptr || iterator.get() == nullptr || wanted.get() == nullptr) return false;
  while (PyObject* item = PyIter_Next(iterator.get())) {
    const Ref held(item);
    if (PyDict_SetItem(members.get(), item, item) < 0) return false;
  }
  while (PyObject* item = PyIter_Next(wanted.get())) {
    const Ref held(item);
    PyObject* member = PyDict_GetItemWithError(members.get(), item);
    if (member == nullptr || !same_held(member, item)) return false;
  }
  return !PyErr_Occurred();
}

bool same_slices(PyObject* found, PyObject* expected) {
  auto* one = reinterpret_cast<PySliceObject*>(found);
  auto* other = reinterpret_cast<PySliceObject*>(expected);
  return same(one->start, other->start) && same(one->stop, other->stop) && same(one->step, other->step);
}

bool same_contents(PyObject* found, PyObject* expected) {
  if (PyTuple_Check(expected)) return same_tuples(found, expected);
  if (PyList_CheckExact(expected)) return same_lists(found, expected);
  if (PyDict_CheckExact(expected)) return same_dicts(found, expected);
  if (PyAnySet_CheckExact(expected)) return same_sets(found, expected);
  if (PySlice_Check(expected)) return same_slices(found, expected);
  return PyObject_RichCompareBool(found, expected, Py_EQ) > 0;
}

bool same(PyObject* found, PyObject* expected) {
  if (found == expected) return true;
  if (Py_TYPE(found) != Py_TYPE(expected)) return false;
  if (PyFloat_CheckExact(expected) || PyComplex_CheckExact(expected)) return same_bits(found, expected);
  if (progress.depth == kMostDepth || ++progress.values > kMostValues) return false;
  if (Py_EnterRecursiveCall(" in a guard")) return false;
  progress.depth++;
  const bool answer = same_contents(found, expected);
  progress.depth--;
  Py_LeaveRecursiveCall();
  return answer;
}

}  // namespace

bool same_bits(PyObject* found, PyObject* expected) {
  if (Py_TYPE(found) != Py_TYPE(expected)) return false;
  if (PyFloat_CheckExact(expected)) {
    const double a = PyFloat_AS_DOUBLE(found), b = PyFloat_AS_DOUBLE(expected);
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
  if (!PyComplex_CheckExact(expected)) return false;
  const Py_complex a = PyComplex_AsCComplex(found), b = PyComplex_AsCComplex(expected);
  return std::memcmp(&a, &b, sizeof a) == 0;
}

bool deep_equals(PyObject* found, PyObject* expected) {
  const Progress outside = std::exchange(progress, {});
  const bool answer = same(found, expected);
  progress = outside;
  if (!PyErr_Occurred()) return answer;
  PyErr_Clear();
  return false;
}

}  // namespace unified_guards
