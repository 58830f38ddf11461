// The checker of one cache entry: decides, on a dict of locals, whether the compiled code may be reused. Entry points:
// Checker, make_callable().
//
// It asks in three steps: discriminators, which can only say no; the witness, which compares the facts that an earlier
// check remembered; and the exact tier, which evaluates all instructions. A step gives the answer that the exact tier
// would give, or leaves the question to the next.
#pragma once

#include "check/discriminator.h"
#include "check/scratch.h"
#include "check/share.h"
#include "program/program.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace unified_guards {

// Declared, and witness.h not included: whatever includes that compiles torch's headers.
class Witness;
class Witnesses;
enum class Verdict;

// Shared by the Python handle and by every callable made from it. Whoever checks holds the GIL.
//
// A code object has one checker for each of its cache entries, and a lookup asks one after the other until one holds.
// The entries share most of their guards. So that these are not evaluated once for each entry, a checker first asks the
// discriminators that tell its entry from the others (lower/discriminators.py chooses them). The wrong entries fail
// there. The guards that all entries share are then decided once, by the entry that can still hold. No verdict is kept
// from one checker to the next: between two of them user code may run (a guard's, a backend's __eq__, another thread's
// while the lookup waits for a lock). What it changes is seen, because the entry that holds has decided each of its
// guards after that. Nor can a discriminator make an entry hold: its guard is one of the program, too.
class Checker {
 private:
  // These come first in memory, so that a quick no reads two or three cache lines.
  std::unique_ptr<Discriminator> discriminators_;
  const Discriminator* ruled_out_by_ = nullptr;
  uint64_t ruled_out_ = 0;

 public:
  explicit Checker(Program program);
  Checker(const Checker&) = delete;
  ~Checker();

  // Called as observer(locals, verdict) after a share of the checks. A bool that it returns is given instead of the
  // verdict; any other value leaves the verdict as it is. It raises when the verdict is wrong and that is to be an
  // error. Null unless verifying or profiling.
  PyObject* observer = nullptr;
  // Called as before(locals) ahead of each check that the observer is told of, to measure there what else decides on
  // such a frame. What it raises is dropped. Null unless profiling.
  PyObject* before = nullptr;
  Share share;
  // How long the last check took that the observer was told of.
  int64_t last_ns = 0;

  // Whether the observer is to be told of the check that is made now.
  bool is_observed() { return observer != nullptr && share.draw(); }

  // Tells the observer, and gives its answer: a new reference, or null with an error set. Torch's tree, which it asks,
  // may leave torch functions switched off when it throws; what was set before is put back.
  PyObject* tell_observer(PyObject* locals, bool verdict) const;

  // The verdict on a dict of locals. Never throws, never leaves a Python error set.
  bool check(PyObject* locals) {
    ruled_out_by_ = nullptr;
    passed_by_ = nullptr;
    for (Discriminator* one = discriminators_.get(); one != nullptr; one = one->next.get()) {
      if (one->rules_out(locals)) return rule_out(one);
    }
    return decide(locals, /*exactly=*/false);
  }

  // The same, for the observer, after `before`: how long the check took goes to `last_ns`.
  bool check_timed(PyObject* locals);

  // The verdict of the exact tier alone: what check() must agree with.
  bool check_exactly(PyObject* locals) { return decide(locals, /*exactly=*/true); }

  // Has a guard of the program asked before all others.
  void ask_first(std::unique_ptr<Discriminator> guard);

  // From now on, facts that a passing check remembers spare the next one most of its work (see witness.h).
  void keep_witnesses();
  Witnesses* witnesses() const { return witnesses_.get(); }

  // The row at which the last miss stopped; -1 when there was none.
  int64_t last_failure() const { return ruled_out_by_ ? ruled_out_by_->last_failure() : journal_.last_failure; }

  Program& program() { return program_; }

  // By instruction: the object that an accessor found in the last check, borrowed. Null where that check has not passed
  // by what it remembers. One of them is null where its accessor was evaluated. Valid until anything else runs.
  const std::vector<PyObject*>* found_by_facts() const;
  // The same for locals that a check has passed with, where other code may have run since. Null where something that
  // the facts are about has moved. It evaluates nothing.
  const std::vector<PyObject*>* still_found(PyObject* locals);
  Journal& journal() { return journal_; }
  Counts counts() const;

  // Shows the collector every object that is held.
  int traverse(visitproc visit, void* arg) const;

  size_t length() const;
  size_t bytes() const;

 private:
  bool rule_out(const Discriminator* by) {
    ruled_out_by_ = by;
    ruled_out_++;
    total_counts.misses++;
    return false;
  }

  bool decide(PyObject* locals, bool exactly);
  bool decide_exactly(Scratch& scratch, PyObject* locals);
  Verdict ask_witness(PyObject* locals);

  Program program_;
  Scratch scratch_;
  Journal journal_;
  std::unique_ptr<Witnesses> witnesses_;
  const Witness* passed_by_ = nullptr;  // see found_by_facts()
  bool busy_ = false;  // scratch_ is in use; a nested check, from code of a user's in a guard, needs one of its own
};

// The checkers that have said no to the call that goes torch's way now, in this thread. Torch's lookup asks them once
// more. They then say the same, without evaluating again: code of a user's in a guard runs once for each call.
class JustMissed {
 public:
  void note(const Checker* checker) { checkers_.push_back(checker); }
  void clear() { checkers_.clear(); }

  // Whether `checker` has said no; it is asked only once.
  bool take(const Checker* checker) {
    if (checkers_.empty()) return false;
    const auto found = std::find(checkers_.begin(), checkers_.end(), checker);
    if (found == checkers_.end()) return false;
    checkers_.erase(found);
    return true;
  }

 private:
  std::vector<const Checker*> checkers_;
};

extern thread_local JustMissed just_missed;

// A callable over `checker`, which Dynamo's lookup runs as checker(dict of locals) -> bool: a new reference, or null
// with an error set.
PyObject* make_callable(std::shared_ptr<Checker> checker);

}  // namespace unified_guards
