// The global and thread-local state of torch that decides what operators do: what a GlobalStateGuard of torch compares.
// It is read without a call into Python and without a string, in one form for all versions of torch. Where torch
// compares a flag that it derives (is this precision tf32?), the value itself is compared: stricter, never laxer.
//
// Entry points: GlobalState::now(), StateGuard::holds().
#pragma once

#include "cpython/ref.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace unified_guards {

struct GlobalState {
  static constexpr size_t kMostDevices = 16;

  uint64_t autocast_off;                            // the dispatch keys of devices without autocast
  std::array<int8_t, kMostDevices> autocast_dtype;  // -1 where it is off
  int threads;
  int8_t default_dtype, torch_function, fp16_reduction, bf16_reduction, matmul_precision;
  bool grad, autocast_cache, deterministic, warn_only;

  static GlobalState now();
  bool operator==(const GlobalState&) const = default;
};

// A guard on the state as it is when this is made.
class StateGuard {
 public:
  // `torchs` is a method of a guard of torch's on the same state, which tells whether a state that differs here is the
  // same to torch (a precision that was never set, and that precision set); None where nobody is to be asked.
  explicit StateGuard(PyObject* torchs) : torchs_(Py_NewRef(torchs)), state_(GlobalState::now()), last_(state_) {}

  bool holds();
  const GlobalState& state() const { return state_; }

 private:
  Ref torchs_;
  GlobalState state_, last_;  // `last_`: the last state that torch said is the same
};

}  // namespace unified_guards
