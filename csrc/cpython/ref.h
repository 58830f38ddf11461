// A reference that is held to the end of a scope.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards {

class Ref {
 public:
  explicit Ref(PyObject* object = nullptr) : object_(object) {}
  Ref(const Ref&) = delete;
  Ref(Ref&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  ~Ref() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  PyObject** out() { return &object_; }
  void reset() { Py_CLEAR(object_); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_;
};

}  // namespace unified_guards
