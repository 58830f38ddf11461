// A share of all checks, drawn at random and without a call into Python.
#pragma once

#include <cstdint>
#include <random>

namespace unified_guards {

// Each owner draws for itself. So the order in which a program asks several owners never falls into step with the
// draws.
class Share {
 public:
  // `share` is from 0, which draws none, to 1, which draws all and is the default.
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

  // Differs for each owner and in each process; never 0.
  static uint64_t seed() {
    static std::mt19937_64 seeds{std::random_device{}()};
    return seeds() | 1;
  }

  uint64_t limit_ = kOne;
  uint64_t state_ = seed();
};

}  // namespace unified_guards
