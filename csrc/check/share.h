// A share of all checks, drawn at random and without a call into Python.
#pragma once

#include <cstdint>
#include <random>

namespace unified_guards {

// Each owner draws for itself, so that no order in which a program asks them falls into step with what is drawn.
class Share {
 public:
  // From 0 (none is drawn) to 1 (all are, which is so at first).
  void set(double share) { limit_ = static_cast<uint64_t>(share * kOne); }

  bool draw() {
    if (limit_ >= kOne) return true;
    state_ ^= state_ >> 12;  // xorshift64*
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545F4914F6CDD1D >> (64 - kBits)) < limit_;
  }

 private:
  static constexpr int kBits = 53;
  static constexpr uint64_t kOne = uint64_t{1} << kBits;

  // Another one for each owner, in each process; never 0.
  static uint64_t seed() {
    static std::mt19937_64 seeds{std::random_device{}()};
    return seeds() | 1;
  }

  uint64_t limit_ = kOne;
  uint64_t state_ = seed();
};

}  // namespace unified_guards
