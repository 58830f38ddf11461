// The callable that Dynamo's lookup runs: checker(dict of locals) -> bool.
#pragma once

#include "check/share.h"
#include "check/telling.h"
#include "program/program.h"

#include <memory>

namespace unified_guards {

// What a checker needs; shared by the Python handle and by every callable made from it.
//
// A code object has one checker for each of its cache entries, and a lookup asks one after the other until one holds.
// The entries share most of their guards. So that these are not evaluated once for each entry, a checker first asks the
// few that tell its entry from the others (lower/discriminators.py chooses them): those of the wrong entries fail
// there, and all that they share is evaluated by the one that can still hold. No verdict is kept from one checker to
// the next: between two of them user code may run (a guard's, a backend's __eq__, another thread's while the lookup
// waits for a lock), and whatever it changes is seen, because an entry that holds has had each of its guards evaluated
// after that. Nor can asking first make an entry hold: `program` has the telling guards, too.
struct Checker {
 private:
  // First, so that a quick no reads two or three lines of memory.
  std::unique_ptr<Telling> telling_;
  const Telling* ruled_out_by_ = nullptr;
  uint64_t ruled_out_ = 0;

 public:
  // Called as oracle(locals, verdict) after a check of this share; answers which verdict to give instead, or anything
  // but a bool to leave it, and raises when the verdict is wrong. Null unless verifying or profiling.
  PyObject* oracle = nullptr;
  Share share;
  // How long the last check took that the oracle was told of.
  int64_t last_ns = 0;
  Program program;

  ~Checker() { Py_XDECREF(oracle); }

  // Whether the oracle is to be told of the check that is made now.
  bool is_oracle_told() { return oracle != nullptr && share.draw(); }

  // The verdict on a dict of locals, and what a hit gathers (see Program::evaluate).
  bool check(PyObject* locals, PyObject** gathered = nullptr) {
    ruled_out_by_ = nullptr;
    for (Telling* one = telling_.get(); one != nullptr; one = one->next.get()) {
      if (one->rules_out(locals)) return rule_out(one);
    }
    return program.evaluate(locals, gathered);
  }

  // The verdict of the exact tier alone: what check() must agree with.
  bool check_exactly(PyObject* locals) { return program.evaluate(locals, nullptr, /*exactly=*/true); }

  // Adds a guard that `program` checks too, to be asked first.
  void tell(std::unique_ptr<Telling> guard);

  // The row at which the last miss stopped; -1 when there was none.
  int64_t last_failure() const { return ruled_out_by_ ? ruled_out_by_->last_failure() : program.last_failure(); }

  Counts counts() const;

  // Shows the collector every object that is held.
  int traverse(visitproc visit, void* arg) const;

  size_t length() const;
  size_t bytes() const;

 private:
  bool rule_out(const Telling* by) {
    ruled_out_by_ = by;
    ruled_out_++;
    total_counts.misses++;
    return false;
  }
};

// A callable over `checker`: a new reference, or null with an error set.
PyObject* make_callable(std::shared_ptr<Checker> checker);

}  // namespace unified_guards
