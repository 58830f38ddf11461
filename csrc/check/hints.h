// Where the last passing check of a program found what it read, so that the next one can fetch it ahead of time.
//
// Addresses here are only ever given to the prefetch instruction, never read through: the objects may be long gone. One
// code object serves many roots (36 layers, one forward). So there is one table of hints for each object that
// Program::root has been, for a bounded number of them; then the oldest is overwritten.
#pragma once

#include "check/roots.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace unified_guards {

// Where lines point that no instruction has set. Not to null: fetching that costs a walk through the page tables each
// time.
inline constexpr char kAnywhere = 0;

// Four cache lines that an instruction will touch, or fewer.
struct Hint {
  const void* lines[4] = {&kAnywhere, &kAnywhere, &kAnywhere, &kAnywhere};

  void fetch() const {
    for (const void* line : lines) __builtin_prefetch(line);
  }

  // Writes only what has changed: a check that changes nothing leaves no cache line dirty.
  void set(size_t which, const void* line) {
    if (lines[which] != line) lines[which] = line;
  }
};
static_assert(sizeof(Hint) == 32);

class Hints {
 public:
  // How many instructions ahead is fetched.
  static constexpr size_t kAhead = 16;

  explicit Hints(size_t instructions)
      : length_(instructions + kAhead),
        limit_(std::clamp<size_t>(kMostBytes / (length_ * sizeof(Hint)), 1, kMostRoots)) {}

  // The table of `root`, made or taken from the oldest when there is none.
  Hint* of(const void* root) {
    if (roots_.find(root)) return tables_[roots_.at()].data();
    if (roots_.size() < limit_) {
      tables_.emplace_back(length_);
      roots_.put(roots_.size(), root);
    } else {
      oldest_ = oldest_ + 1 < limit_ ? oldest_ + 1 : 0;
      roots_.put(oldest_, root);
    }
    return tables_[roots_.at()].data();
  }

  size_t bytes() const { return tables_.size() * (length_ * sizeof(Hint) + sizeof(void*)); }

 private:
  static constexpr size_t kMostBytes = 1 << 20;
  static constexpr size_t kMostRoots = 64;

  const size_t length_, limit_;
  size_t oldest_ = 0;
  Roots roots_;
  std::vector<std::vector<Hint>> tables_;
};

}  // namespace unified_guards
