// One instruction of a program, and what a tensor guard compares a tensor with.
#pragma once

#include "program/op.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <type_traits>

namespace unified_guards {

// The guard on its own result that was merged into an accessor: the most frequent pair of instructions becomes one.
enum class Merged : uint8_t { kNone, kTypeIs, kIs };

// Trivially copyable: discriminators and witnesses keep copies. `object` is borrowed from Program::constants.
struct Instruction {
  Op op;
  Merged merged;
  uint16_t base;     // the register that is read
  uint32_t arg;      // see Arg
  PyObject* object;  // see the table of operations
  uint64_t number;   // see the table of operations; of an accessor: what `merged` compares its result with
};
static_assert(sizeof(Instruction) == 24 && std::is_trivially_copyable_v<Instruction>);

// Whether the result of an accessor passes the guard that was merged into it.
inline bool passes_merged(const Instruction& i, PyObject* value) {
  if (i.merged == Merged::kNone) return true;
  const void* found = i.merged == Merged::kTypeIs ? static_cast<void*>(Py_TYPE(value)) : static_cast<void*>(value);
  return reinterpret_cast<uint64_t>(found) == i.number;
}

// What a tensor must be. Its sizes, then its strides stand in the program's pool of dimensions.
struct TensorSpec {
  PyTypeObject* type;
  uint64_t keys;  // after DispatchState::apply
  uint32_t dims;  // offset into the pool
  uint16_t rank;
  int8_t dtype;
  int8_t device_index;
  bool requires_grad;
  bool device_is_current;  // torch 2.15: the index must be the accelerator's current one instead

  bool operator==(const TensorSpec&) const = default;
};

// A dimension that is not guarded.
inline constexpr int64_t kAnyDim = INT64_MIN;

}  // namespace unified_guards
