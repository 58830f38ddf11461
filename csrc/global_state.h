// What of torch's global and thread-local state decides what operators do: what a GlobalStateGuard of torch compares,
// read without a call into Python and without a string, in one form for all versions. Where torch compares a flag that
// it derives (is this precision tf32?), the value itself is compared: stricter, never laxer.
#pragma once

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

}  // namespace unified_guards
