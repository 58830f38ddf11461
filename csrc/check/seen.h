// A set of objects and storages that were seen, each in a group. Entry points: clear(), then insert().
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace unified_guards {

class SeenTable {
 public:
  // Call first: empties the set, and makes room for `most`. Allocates only when there has never been as much room.
  void clear(size_t most) {
    const size_t slots = std::bit_ceil(2 * most + 1);
    if (slots > slots_.size()) slots_.resize(slots);
    std::fill_n(slots_.begin(), slots, Slot());
    mask_ = slots - 1;
  }

  // False when it is there already.
  bool insert(const void* object, uint32_t group) {
    Slot& slot = slots_[place_of(object, group)];
    if (slot.object != nullptr) return false;
    slot = {object, group};
    return true;
  }

  bool has(const void* object, uint32_t group) const { return slots_[place_of(object, group)].object != nullptr; }

  size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    const void* object = nullptr;
    uint32_t group = 0;
  };

  // Where it is, or else the empty slot where it would be.
  size_t place_of(const void* object, uint32_t group) const {
    size_t at = (reinterpret_cast<uintptr_t>(object) >> 4) * 0x9E3779B97F4A7C15ull >> 32 & mask_;
    while (slots_[at].object != nullptr && (slots_[at].object != object || slots_[at].group != group)) {
      at = (at + 1) & mask_;
    }
    return at;
  }

  std::vector<Slot> slots_{1};
  size_t mask_ = 0;
};

}  // namespace unified_guards
