// How the READ_* instructions read the numbers that a shape code is about.
#pragma once

#include "check/tensor.h"

namespace unified_guards {

enum class Reading {
  kRead,
  kInexact,  // it fits no register (a SymInt, more than 64 bits), or Python has to be asked: an exact evaluator decides
  kMissing,  // the tensor has no such dimension
};

// The tensor whose metadata can be read in place of asking its methods; null when those have to be asked.
inline const c10::TensorImpl* readable(const Instruction& i, PyObject* base) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(base));
  if (type != THPVariableClass && type != i.object) return nullptr;
  const c10::TensorImpl* impl = tensor_of(base).unsafeGetTensorImpl();
  return reads_in_place(*impl).dims ? impl : nullptr;
}

inline Reading read_property(const Instruction& i, PyObject* base, Number& out) {
  const c10::TensorImpl* impl = readable(i, base);
  if (impl == nullptr) return Reading::kInexact;
  if (i.op == Op::READ_OFFSET) {
    out.i = impl->storage_offset();
    return Reading::kRead;
  }
  const c10::IntArrayRef dims = i.op == Op::READ_SIZE ? impl->sizes() : impl->strides();
  if (i.number >= dims.size()) return Reading::kMissing;
  out.i = dims[i.number];
  return Reading::kRead;
}

inline Reading read_int(PyObject* value, Number& out) {
  if (!PyLong_CheckExact(value)) return Reading::kInexact;
  int overflow = 0;
  out.i = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0 ? Reading::kRead : Reading::kInexact;
}

// Runs no code of a user's.
inline Reading read_number(const Instruction& i, PyObject* base, Number& out) {
  switch (i.op) {
    case Op::READ_INT: return read_int(base, out);
    case Op::READ_FLOAT:
      if (!PyFloat_CheckExact(base)) return Reading::kInexact;
      out.d = PyFloat_AS_DOUBLE(base);
      return Reading::kRead;
    default: return read_property(i, base, out);
  }
}

}  // namespace unified_guards
