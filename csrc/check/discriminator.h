// One guard that tells a cache entry from the others of its code object, asked before the entry's program. Entry point:
// Discriminator::rules_out().
#pragma once

#include "program/program.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace unified_guards {

// What a no costs is the memory that it touches, so all that is read lies together.
class alignas(64) Discriminator {
 public:
  static constexpr size_t kMostSteps = 8, kMostRank = 8;

  // `guard` holds one guard, whose rows are numbered from `first_row`. Throws std::invalid_argument when it does not
  // fit, or when the table of operations says that it cannot be asked first.
  Discriminator(const Program& guard, int64_t first_row);
  Discriminator(const Discriminator&) = delete;
  ~Discriminator();

  // True when the guard is certain to fail on this dict of locals. Where only code of a user's could tell, it stops:
  // false means nothing.
  bool rules_out(PyObject* locals);

  // The row that failed when rules_out() last said true.
  int64_t last_failure() const { return first_row_ + rows_[failed_]; }

  size_t length() const { return length_; }
  size_t bytes() const;

  const void* tensor_line() const { return &tensor_; }

  // Shows the collector every object that is held.
  int traverse(visitproc visit, void* arg) const;

  std::unique_ptr<Discriminator> next;

 private:
  bool fail(uint32_t step, bool merged);
  bool shapes_fail();

  uint32_t length_ = 0, failed_ = 0;
  std::array<Instruction, kMostSteps> steps_;
  alignas(64) TensorSpec tensor_{};
  std::array<int64_t, 2 * kMostRank> dims_{};
  std::optional<ShapeCode> shapes_;
  std::vector<Number> numbers_;                 // the registers of the shape code
  std::array<uint8_t, kMostSteps + 1> rows_{};  // of each step; the last one is that of a merged guard that failed
  int64_t first_row_;
};

}  // namespace unified_guards
