// See discriminator.h. Each case answers as evaluate.cpp does, or not at all.
#include "check/discriminator.h"

#include "check/read_number.h"
#include "cpython/pure.h"

#include <algorithm>
#include <stdexcept>

namespace unified_guards {
namespace {

// kUnknown: the answer would take code of a user's, or more time than a quick no may take.
enum class Outcome { kHolds, kFails, kUnknown };

Outcome holds_if(bool truth) { return truth ? Outcome::kHolds : Outcome::kFails; }

Outcome found_purely(cpython::Found found, PyObject*& value) {
  value = found.value;
  return found.certain ? holds_if(value != nullptr) : Outcome::kUnknown;
}

// Reads the value below `base`. When the answer is kHolds, `value` is set to it, borrowed.
Outcome read(Instruction& i, PyObject* base, PyObject*& value) {
  switch (i.op) {
    case Op::ITEM:
      if (!PyDict_CheckExact(base)) return Outcome::kUnknown;
      [[fallthrough]];
    case Op::DICT_ITEM:
      if (!PyDict_Check(base)) return Outcome::kFails;
      return found_purely(cpython::find_purely(base, i.object, i.arg), value);
    case Op::CONSTANT: value = i.object; return Outcome::kHolds;
    case Op::GENERIC_DICT: {
      const cpython::InstanceDict instance = cpython::instance_dict(base);
      value = instance.dict;
      return instance.state == cpython::DictState::kReady ? Outcome::kHolds : Outcome::kUnknown;
    }
    case Op::ATTR: {
      const PureAttribute found = attribute_purely(base, i.object, i.arg);
      if (found.is_new) Py_XDECREF(found.value);  // a discriminator owns no values: the answer is kUnknown then
      value = found.is_new ? nullptr : found.value;
      return value != nullptr ? Outcome::kHolds : Outcome::kUnknown;
    }
    case Op::LIST_ITEM:
      if (!PyList_Check(base) || i.arg >= PyList_GET_SIZE(base)) return Outcome::kFails;
      value = PyList_GET_ITEM(base, i.arg);
      return Outcome::kHolds;
    case Op::TUPLE_ITEM:
      if (!PyTuple_Check(base) || i.arg >= PyTuple_GET_SIZE(base)) return Outcome::kFails;
      value = PyTuple_GET_ITEM(base, i.arg);
      return Outcome::kHolds;
    default: return Outcome::kUnknown;
  }
}

bool compares_in_c(PyTypeObject* type) {
  return type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type || type == &PyBytes_Type ||
         type == &PyBool_Type;
}

Outcome equals(PyObject* found, PyObject* expected) {
  if (found == expected) return Outcome::kHolds;
  if (Py_TYPE(found) != Py_TYPE(expected)) return Outcome::kFails;
  if (!compares_in_c(Py_TYPE(found))) return Outcome::kUnknown;
  const int truth = PyObject_RichCompareBool(found, expected, Py_EQ);
  if (truth < 0) PyErr_Clear();
  return holds_if(truth > 0);
}

Outcome has_length(PyObject* object, uint32_t length) {
  if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return Outcome::kUnknown;
  return holds_if(Py_SIZE(object) == static_cast<Py_ssize_t>(length));
}

Outcome dict_contains(PyObject* object, PyObject* key, bool expected) {
  if (!PyDict_CheckExact(object)) return Outcome::kUnknown;
  const cpython::Found found = cpython::find_purely(object, key);
  return found.certain ? holds_if((found.value != nullptr) == expected) : Outcome::kUnknown;
}

// Leaves the dispatch keys, and a device that depends on the thread, to the program.
Outcome tensor_is(const TensorSpec& spec, const int64_t* dims, PyObject* object) {
  if (Py_TYPE(object) != spec.type) return Outcome::kFails;
  const c10::TensorImpl& impl = *tensor_of(object).unsafeGetTensorImpl();
  if (!reads_in_place(impl).likeness()) return Outcome::kUnknown;
  const c10::IntArrayRef sizes = impl.sizes();
  return holds_if(sizes_and_strides_match(spec, dims, sizes.size(), sizes.data(), impl.strides().data()) &&
                  static_cast<int8_t>(c10::typeMetaToScalarType(impl.dtype())) == spec.dtype &&
                  (spec.device_is_current || impl.device().index() == spec.device_index) &&
                  requires_gradient(impl.autograd_meta()) == spec.requires_grad);
}

Outcome number_is_read(const Instruction& i, PyObject* base, std::vector<Number>& numbers) {
  switch (read_number(i, base, numbers[i.arg])) {
    case Reading::kRead: return Outcome::kHolds;
    case Reading::kMissing: return Outcome::kFails;
    default: return Outcome::kUnknown;
  }
}

Outcome ask(const Instruction& i, PyObject* base) {
  switch (i.op) {
    case Op::TYPE_IS: return holds_if(reinterpret_cast<uint64_t>(Py_TYPE(base)) == i.number);
    case Op::IS: return holds_if(reinterpret_cast<uint64_t>(base) == i.number);
    case Op::IS_NOT: return holds_if(reinterpret_cast<uint64_t>(base) != i.number);
    case Op::EQUALS: return equals(base, i.object);
    case Op::LENGTH:
    case Op::LENGTH_OR_SET: return has_length(base, i.arg);
    case Op::DICT_LENGTH:
      return holds_if(PyDict_Check(base) && PyDict_GET_SIZE(base) == static_cast<Py_ssize_t>(i.arg));
    case Op::DICT_CONTAINS: return dict_contains(base, i.object, i.arg != 0);
    default: return Outcome::kUnknown;
  }
}

}  // namespace

Discriminator::Discriminator(const Program& guard, int64_t first_row) : first_row_(first_row) {
  for (size_t at = 0; at < guard.code.size(); at++) {
    const Instruction& i = guard.code[at];
    if (i.op == Op::TORCH_FUNCTION_OFF) continue;  // no step calls a torch function
    if (traits_of(i.op).order != Order::kAny) throw std::invalid_argument("such a guard cannot be asked first");
    if (length_ == kMostSteps) throw std::invalid_argument("a discriminator has too long a path");
    rows_[length_] = static_cast<uint8_t>(guard.origins[at]);
    steps_[length_++] = i;
  }
  if (guard.tensors.size() > 1 || guard.dims.size() > dims_.size()) {
    throw std::invalid_argument("a discriminator is about one tensor of few dimensions");
  }
  if (!guard.tensors.empty()) tensor_ = guard.tensors[0];
  shapes_ = guard.shapes;
  if (shapes_) numbers_ = shapes_->make_registers();
  std::copy(guard.dims.begin(), guard.dims.end(), dims_.begin());
  for (uint32_t at = 0; at < length_; at++) Py_INCREF(steps_[at].object);
}

Discriminator::~Discriminator() {
  for (uint32_t at = 0; at < length_; at++) Py_DECREF(steps_[at].object);
}

int Discriminator::traverse(visitproc visit, void* arg) const {
  for (uint32_t at = 0; at < length_; at++) Py_VISIT(steps_[at].object);
  return next != nullptr ? next->traverse(visit, arg) : 0;
}

bool Discriminator::rules_out(PyObject* locals) {
  PyObject* registers[kMostSteps + 1];
  registers[0] = locals;
  for (uint32_t at = 0; at < length_; at++) {
    Instruction& i = steps_[at];
    PyObject* base = registers[i.base];
    Outcome answer;
    if (is_accessor(i.op)) {
      PyObject*& value = registers[i.base + 1];
      answer = read(i, base, value);
      if (answer == Outcome::kHolds && !passes_merged(i, value)) return fail(at, true);
    } else if (i.op == Op::TENSOR) {
      answer = tensor_is(tensor_, dims_.data(), base);
    } else if (is_read(i.op)) {
      answer = number_is_read(i, base, numbers_);
    } else if (i.op == Op::SHAPES) {
      answer = shapes_fail() ? Outcome::kFails : Outcome::kUnknown;
    } else {
      answer = ask(i, base);
    }
    if (answer == Outcome::kFails) return fail(at, false);
    if (answer == Outcome::kUnknown) return false;
  }
  return false;
}

bool Discriminator::shapes_fail() {
  uint16_t which = 0;
  return shapes_->run(numbers_.data(), which) == ShapeVerdict::kFails;
}

size_t Discriminator::bytes() const {
  return sizeof *this + (shapes_ ? shapes_->bytes() : 0) + numbers_.capacity() * sizeof(Number);
}

// A guard that was merged into an accessor was the row after it.
bool Discriminator::fail(uint32_t step, bool merged) {
  failed_ = step;
  if (merged) rows_[failed_ = kMostSteps] = static_cast<uint8_t>(rows_[step] + 1);
  return true;
}

}  // namespace unified_guards
