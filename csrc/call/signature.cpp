// See signature.h.
#include "call/signature.h"

#include "cpython/cpython.h"

#include <algorithm>

namespace unified_guards {
namespace {

// Names are interned, but a caller may make one that is not.
bool is_name(PyObject* name, PyObject* given) {
  return name == given ||
         (PyUnicode_GET_LENGTH(name) == PyUnicode_GET_LENGTH(given) && PyUnicode_Compare(name, given) == 0);
}

}  // namespace

Signature::Signature(PyCodeObject* code)
    : positional_only_(code->co_posonlyargcount),
      positional_(code->co_argcount),
      keyword_only_(code->co_kwonlyargcount),
      takes_rest_((code->co_flags & CO_VARARGS) != 0),
      takes_named_((code->co_flags & CO_VARKEYWORDS) != 0) {
  const Ref all(cpython::variable_names(code));  // the code object keeps each name alive
  parameters_ = positional_ + keyword_only_ + takes_rest_ + takes_named_;
  for (size_t at = 0; all && at < parameters_; at++) names_.push_back(PyTuple_GET_ITEM(all.get(), at));
  const Ref free(cpython::free_names(code));
  for (Py_ssize_t at = 0; free && at < PyTuple_GET_SIZE(free.get()); at++) {
    names_.push_back(PyTuple_GET_ITEM(free.get(), at));
  }
}

bool Signature::bind(BoundLocals& bound, PyFunctionObject* function, PyObject* receiver, PyObject* args,
                     PyObject* kwargs) const {
  bound.values.assign(names_.size(), nullptr);
  return bind_positional(bound, receiver, args) && bind_named(bound, kwargs) && bind_defaults(bound, function) &&
         bind_free(bound, function);
}

bool Signature::bind_positional(BoundLocals& bound, PyObject* receiver, PyObject* args) const {
  size_t at = 0;
  if (receiver != nullptr && positional_ > 0) bound.values[at++] = receiver;
  const auto given = static_cast<size_t>(PyTuple_GET_SIZE(args));
  const size_t taken = std::min(given, positional_ - at);
  for (size_t i = 0; i < taken; i++) bound.values[at++] = PyTuple_GET_ITEM(args, i);
  const bool is_receiver_left = receiver != nullptr && positional_ == 0;
  if (!takes_rest_) return taken == given && !is_receiver_left;
  if (taken == 0 && !is_receiver_left && PyTuple_CheckExact(args)) {
    *bound.rest.out() = Py_NewRef(args);
    bound.values[positional_ + keyword_only_] = args;
    return true;
  }
  const auto from = static_cast<Py_ssize_t>(taken), count = static_cast<Py_ssize_t>(given) - from;
  PyObject* rest = PyTuple_New(count + is_receiver_left);
  if (rest == nullptr) {
    PyErr_Clear();
    return false;
  }
  if (is_receiver_left) PyTuple_SET_ITEM(rest, 0, Py_NewRef(receiver));
  for (Py_ssize_t i = 0; i < count; i++) {
    PyTuple_SET_ITEM(rest, i + is_receiver_left, Py_NewRef(PyTuple_GET_ITEM(args, from + i)));
  }
  *bound.rest.out() = rest;
  bound.values[positional_ + keyword_only_] = rest;
  return true;
}

bool Signature::bind_named(BoundLocals& bound, PyObject* kwargs) const {
  if (takes_named_) {
    *bound.named.out() = PyDict_New();
    bound.values[parameters_ - 1] = bound.named.get();
    if (!bound.named) {
      PyErr_Clear();
      return false;
    }
  }
  if (kwargs == nullptr) return true;
  Py_ssize_t cursor = 0;
  PyObject *name = nullptr, *value = nullptr;
  while (PyDict_Next(kwargs, &cursor, &name, &value)) {
    if (!PyUnicode_CheckExact(name) || !bind_one(bound, name, value)) return false;
  }
  return true;
}

bool Signature::bind_one(BoundLocals& bound, PyObject* name, PyObject* value) const {
  for (size_t at = positional_only_; at < positional_ + keyword_only_; at++) {
    if (!is_name(names_[at], name)) continue;
    if (bound.values[at] != nullptr) return false;  // given twice
    bound.values[at] = value;
    return true;
  }
  if (!takes_named_) return false;
  if (PyDict_SetItem(bound.named.get(), name, value) == 0) return true;
  PyErr_Clear();
  return false;
}

// The defaults as they are now. Dynamo guards on those that it has read.
bool Signature::bind_defaults(BoundLocals& bound, PyFunctionObject* function) const {
  PyObject* defaults = function->func_defaults;
  const size_t count = defaults != nullptr && PyTuple_CheckExact(defaults) ? PyTuple_GET_SIZE(defaults) : 0;
  for (size_t at = 0; at < positional_; at++) {
    if (bound.values[at] != nullptr) continue;
    if (at + count < positional_) return false;
    if (count > positional_) return false;
    bound.values[at] = PyTuple_GET_ITEM(defaults, at + count - positional_);
  }
  for (size_t at = positional_; at < positional_ + keyword_only_; at++) {
    if (bound.values[at] != nullptr) continue;
    PyObject* found = function->func_kwdefaults;
    found = found != nullptr && PyDict_CheckExact(found) ? PyDict_GetItemWithError(found, names_[at]) : nullptr;
    if (found == nullptr) {
      PyErr_Clear();
      return false;
    }
    bound.values[at] = found;
  }
  return true;
}

bool Signature::bind_frame(BoundLocals& bound, PyObject* const* values, size_t count) const {
  if (count != names_.size()) return false;
  bound.values.append(values, values + count);
  if (takes_rest_) *bound.rest.out() = Py_NewRef(values[positional_ + keyword_only_]);
  if (takes_named_) *bound.named.out() = Py_NewRef(values[parameters_ - 1]);
  return true;
}

PyObject* Signature::call(PyObject* function, const BoundLocals& bound) const {
  c10::SmallVector<PyObject*, 16> args(bound.values.begin(), bound.values.begin() + positional_);
  for (Py_ssize_t at = 0; bound.rest && at < PyTuple_GET_SIZE(bound.rest.get()); at++) {
    args.push_back(PyTuple_GET_ITEM(bound.rest.get(), at));
  }
  if (keyword_only_ == 0 && !takes_named_) return PyObject_Vectorcall(function, args.data(), args.size(), nullptr);
  const Ref named(bound.named ? PyDict_Copy(bound.named.get()) : PyDict_New());
  if (!named) return nullptr;
  for (size_t at = positional_; at < positional_ + keyword_only_; at++) {
    if (PyDict_SetItem(named.get(), names_[at], bound.values[at]) != 0) return nullptr;
  }
  return PyObject_VectorcallDict(function, args.data(), args.size(), named.get());
}

PyObject* Signature::call_flat(PyObject* function, const BoundLocals& bound, PyObject* more) const {
  c10::SmallVector<PyObject*, 16> args(bound.values.begin(), bound.values.begin() + parameters_);
  args.push_back(more);
  return PyObject_Vectorcall(function, args.data(), args.size(), nullptr);
}

// False where a variable is not set: torch leaves it out of the locals.
bool Signature::bind_free(BoundLocals& bound, PyFunctionObject* function) const {
  const size_t count = names_.size() - parameters_;
  PyObject* cells = function->func_closure;
  if (count != (cells != nullptr ? static_cast<size_t>(PyTuple_GET_SIZE(cells)) : 0)) return false;
  for (size_t at = 0; at < count; at++) {
    PyObject* value = PyCell_GET(PyTuple_GET_ITEM(cells, at));
    if (value == nullptr) return false;
    bound.values[parameters_ + at] = value;
  }
  return true;
}

}  // namespace unified_guards
