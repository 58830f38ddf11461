// The witness tier: a check that costs what has changed since the last one, not what there is to check. Entry points:
// Witnesses::check(), record(), finish().
//
// A passing check leaves facts (facts.h). The next one reads the anchors (the objects of the frame at which facts
// begin), compares the facts in order, compares the tensors, and evaluates the instructions that have no facts. Where a
// fact no longer holds, what depends on it is evaluated again, and the fact is replaced when that passes. The answer is
// the one that the exact tier would give.
//
// One code object serves many roots (36 layers, one forward). Facts are kept for each object that Program::root has
// been, for a bounded number of them. They go when the object dies, or when it is the least recently used and another
// needs the room. Nothing here owns a reference to a root.
#pragma once

#include "check/global_state.h"
#include "check/roots.h"
#include "witness/fact_builder.h"
#include "witness/facts.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace unified_guards {

enum class Verdict {
  kHolds,
  kFails,
  kExact,  // the exact tier has to say
  kStale,  // the facts have to be recorded anew; failing that, the exact tier has to say
};

// What was remembered about one root.
class Witness {
 public:
  Verdict verify(FactBuilder& builder, Evaluation& evaluation, PyObject* locals);
  Verdict record(FactBuilder& builder, Evaluation& evaluation, PyObject* locals);

  bool is_ready() const { return ready_; }
  // Whether all facts, and the objects at which they begin, are as they were. Evaluates nothing.
  bool nothing_moved(Evaluation& evaluation, PyObject* locals);
  // Whether most instructions have no facts, so that the exact tier, which fetches ahead, is as good.
  bool is_idle(const Program& program) const;

  const Facts& facts() const { return facts_; }
  const std::vector<LiveStep>& live() const { return live_; }
  size_t bytes() const;

 private:
  Verdict anchors_hold(FactBuilder& builder, Evaluation& evaluation, PyObject* locals);
  Verdict facts_hold(FactBuilder& builder);
  Verdict tensors_hold(Program& program, Evaluation& evaluation);
  Verdict tensor_holds(Program& program, Evaluation& evaluation, const TensorFact& fact);
  Verdict state_holds(Program& program, Evaluation& evaluation);
  Verdict live_holds(Program& program, Evaluation& evaluation, PyObject* locals);
  bool run_live(Evaluation& evaluation, PyObject* locals);
  void plan(Program& program);

  Facts facts_;
  // An anchor, or an accessor that leads to one.
  struct AnchorStep {
    Instruction instruction;
    uint32_t at;
    bool is_anchor;
  };
  std::vector<AnchorStep> anchor_path_;
  std::vector<LiveStep> live_;
  size_t live_unique_ = 0;  // how many of them compare objects, or storages, within a group
  bool ready_ = false;
  std::vector<uint32_t> state_guards_;  // the instructions that `state_` answers
  GlobalState state_{};
  DispatchState dispatch_;  // in which the likenesses of tensors were taken
};

// How many checks passed by facts alone, passed after some had been repaired, and passed while all were recorded.
struct WitnessCounts {
  uint64_t held = 0, repaired = 0, recorded = 0;
};

// The same of all programs there have been.
extern WitnessCounts total_witness_counts;

// The witnesses of one program.
class Witnesses {
 public:
  static constexpr size_t kMost = 256;

  explicit Witnesses(Program& program);
  Witnesses(const Witnesses&) = delete;
  ~Witnesses();

  // One check. kExact: the caller has to evaluate all.
  Verdict check(Evaluation& evaluation, PyObject* locals);
  // Records the facts anew. Call after a check that says kStale, with a new evaluation.
  Verdict record(Evaluation& evaluation, PyObject* locals);

  // Call at the end of a check. `exactly` says whether the exact tier decided. What is remembered about the root that
  // was checked; null without, or where the root has died.
  const Witness* finish(bool exactly, bool hit);

  // What is remembered about the root of these locals, where all of it is as it was; null otherwise.
  const Witness* unmoved(Evaluation& evaluation, PyObject* locals);

  // Drops what was remembered for a root that has died, given the weak reference to it.
  void forget(PyObject* reference);

  WitnessCounts counts;
  size_t roots() const;
  size_t facts() const;
  size_t tensors() const;
  size_t live() const;
  size_t bytes() const;

  // The rows (see Checker::last_failure) that are evaluated on every check of the root that was checked last.
  std::vector<int64_t> live_rows() const;
  // The row that each of its facts belongs to.
  std::vector<int64_t> fact_rows() const;
  // What each of its facts is about.
  std::vector<FactKind> fact_kinds() const;

 private:
  struct Entry {
    PyObject* reference = nullptr;  // a weak one to the root
    std::unique_ptr<Witness> witness;
    uint64_t used = 0;
    uint32_t exact_checks_left = 0;  // how many checks go to the exact tier before facts are tried again
    uint32_t costly_in_a_row = 0;    // how many checks in a row would have been cheaper in the exact tier
    bool is_unproven = true;         // no check of the exact tier has passed yet, so nothing is worth recording
  };

  Entry* admit(const void* root);
  void note_cost(Entry& entry, bool cheap);
  PyObject* watch(const void* root);
  void drop(size_t at);
  const Witness* last() const;
  template <typename Measure>
  size_t sum(Measure of) const;
  void count(uint64_t WitnessCounts::* what) {
    counts.*what += 1;
    total_witness_counts.*what += 1;
  }

  Program& program_;
  FactBuilder builder_;
  Roots roots_;
  std::vector<Entry> entries_;  // one for each place in roots_
  Entry* current_ = nullptr;
  PyObject* on_death_ = nullptr;
  uint64_t clock_ = 0;
};

}  // namespace unified_guards
