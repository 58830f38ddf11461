// Finds by its address the place at which something is kept for an object. No object is read or owned.
#pragma once

#include <cstddef>
#include <vector>

namespace unified_guards {

class Roots {
 public:
  // Whether something is kept for `root`: at() then says where. Roots come round in the same order, so the search
  // begins behind the one that was found last.
  bool find(const void* root) {
    for (size_t tried = 0; tried < roots_.size(); tried++) {
      at_ = at_ + 1 < roots_.size() ? at_ + 1 : 0;
      if (roots_[at_] == root) return true;
    }
    return false;
  }

  // The same where it is likely the one that was found last.
  bool find_again(const void* root) { return (at_ < roots_.size() && roots_[at_] == root) || find(root); }

  size_t at() const { return at_; }

  // Puts `root` at an existing place, or at a new one behind the last.
  void put(size_t at, const void* root) {
    at_ = at;
    if (at == roots_.size()) {
      roots_.push_back(root);
    } else {
      roots_[at] = root;
    }
  }

  // Takes away the root at a place. The place stays, and is free.
  void clear(size_t at) { roots_[at] = this; }  // no root has this address

  // The first place that was cleared; size() where there is none.
  size_t first_free() const {
    size_t at = 0;
    while (at < roots_.size() && roots_[at] != this) at++;
    return at;
  }

  size_t size() const { return roots_.size(); }
  size_t bytes() const { return roots_.capacity() * sizeof(void*); }

 private:
  size_t at_ = 0;
  std::vector<const void*> roots_;
};

}  // namespace unified_guards
