// See rows.h.
#include "program/rows.h"

#include "check/global_state.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace py = pybind11;

namespace unified_guards {
namespace {

void append_dims(std::vector<int64_t>& out, py::handle dims) {
  for (py::handle dim : dims) out.push_back(dim.is_none() ? kAnyDim : dim.cast<int64_t>());
}

// `facts` is (type address, key set after apply, dtype number, device index, requires_grad, sizes, strides, whether the
// device must be the current one).
uint32_t add_tensor(ProgramBuilder& program, py::tuple facts) {
  TensorSpec spec{};
  std::vector<int64_t> dims;
  append_dims(dims, facts[5]);
  spec.rank = static_cast<uint16_t>(dims.size());
  append_dims(dims, facts[6]);
  spec.type = reinterpret_cast<PyTypeObject*>(facts[0].cast<uint64_t>());
  spec.keys = facts[1].cast<uint64_t>();
  spec.dtype = facts[2].cast<int8_t>();
  spec.device_index = facts[3].cast<int8_t>();
  spec.requires_grad = facts[4].cast<bool>();
  spec.device_is_current = facts[7].cast<bool>();
  return program.add_tensor(spec, dims);
}

template <typename T>
std::vector<T> unpacked(py::handle packed) {
  const auto text = packed.cast<std::string_view>();
  if (text.size() % sizeof(T) != 0) throw std::invalid_argument("shape code is cut off");
  std::vector<T> items(text.size() / sizeof(T));
  std::copy_n(text.data(), text.size(), reinterpret_cast<char*>(items.data()));
  return items;
}

// `shapes` is (how many registers are read into, constants as bytes, instructions as bytes, exact function). Gives the
// exact function.
PyObject* set_shapes(ProgramBuilder& program, py::tuple shapes) {
  if (shapes.size() != 4) throw std::invalid_argument("a shape code has four parts");
  program.set_shapes(
      ShapeCode(shapes[0].cast<uint32_t>(), unpacked<Number>(shapes[1]), unpacked<ShapeInstruction>(shapes[2])));
  return py::object(shapes[3]).ptr();
}

void add_row(ProgramBuilder& program, PyObject* row) {
  if (!PyTuple_CheckExact(row) || PyTuple_GET_SIZE(row) != 5) throw std::invalid_argument("a row has five fields");
  const auto op = static_cast<Op>(PyLong_AsLong(PyTuple_GET_ITEM(row, 0)));
  const auto base = PyLong_AsLong(PyTuple_GET_ITEM(row, 1));
  auto arg = static_cast<uint32_t>(PyLong_AsUnsignedLongMask(PyTuple_GET_ITEM(row, 2)));
  PyObject* object = PyTuple_GET_ITEM(row, 3);
  uint64_t number = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(row, 4));
  if (PyErr_Occurred()) throw py::error_already_set();
  if (base < 0 || base > UINT16_MAX) throw std::invalid_argument("a path is deeper than 65535 accessors");
  if (op == Op::TENSOR) {
    arg = add_tensor(program, py::reinterpret_borrow<py::tuple>(object));
    object = Py_None;
  }
  if (op == Op::SHAPES) object = set_shapes(program, py::reinterpret_borrow<py::tuple>(object));
  if (op == Op::GLOBAL_STATE) number = reinterpret_cast<uint64_t>(py::handle(object).cast<StateGuard*>());
  program.add(op, static_cast<uint16_t>(base), arg, object, number);
}

}  // namespace

Program program_of(PyObject* rows) {
  if (!PyList_Check(rows)) throw py::type_error("rows are a list");
  ProgramBuilder program;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) add_row(program, PyList_GET_ITEM(rows, i));
  return program.finish();
}

}  // namespace unified_guards
