// What must outlive the lookup that is running: our checkers are asked by torch's lookup, which walks memory that code
// of a user's in a guard may have freed.
//
// The lookup walks the entries of a code object without owning them. torch._dynamo.reset() frees them all, and the
// death of an object that a guard knows by its identity frees the root that is being checked. While a checker runs,
// what would be freed is kept until every lookup is over that was running then. A lookup owns the dict of the frame's
// locals until the evaluation of its frame ends, compilation included. So a lookup is over when nobody but us owns that
// dict.
//
// Entry points: Running, outlive().
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <utility>

namespace unified_guards {

// One check, while it runs. Needs the GIL, as all here does. What other checks read of this one is not on the stack:
// where code of a user's in a guard switches to another greenlet, the stack of the check is copied away.
class Running {
 public:
  explicit Running(PyObject* locals) : one_(take()) {
    *one_ = {locals, first, nullptr};
    if (first != nullptr) first->before = one_;
    first = one_;
    if (some_are_kept) free_what_is_over();
  }
  Running(const Running&) = delete;
  ~Running() {
    (one_->before != nullptr ? one_->before->next : first) = one_->next;  // checks of several threads end in any order
    if (one_->next != nullptr) one_->next->before = one_->before;
    one_->next = std::exchange(unused, one_);
  }

  struct One {
    PyObject* locals;
    One *next, *before;
  };

  static One* first;
  static bool some_are_kept;
  static void free_what_is_over();

 private:
  static One* take() { return unused != nullptr ? std::exchange(unused, unused->next) : new One; }

  static One* unused;  // kept to be used again: no more than the most checks that ever ran at once

  One* const one_;
};

// Keeps an object until the lookups that are running are over; does nothing where none is.
void outlive(PyObject* object);

// From now on, what torch keeps with code objects outlives running lookups in the same way. `code` must carry what
// torch keeps, and nothing else. False where it is not known how; then torch frees it at once, as it does without us.
bool outlive_what_code_carries(PyObject* code);

}  // namespace unified_guards
