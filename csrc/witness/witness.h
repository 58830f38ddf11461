// The witness tier: a check that costs what has changed since the last one, not what there is to check.
//
// A passing check leaves facts (facts.h). The next one reads the anchors (the objects in the frame at which facts
// begin), compares the facts in order, compares the tensors, and evaluates exactly what has no facts. A fact that no
// longer holds has what hangs below it evaluated again, and is replaced when that passes. What it answers is what the
// exact tier would answer.
//
// One code object serves many roots (36 layers, one forward): facts are kept for each object that the largest local has
// been, bounded, the least recently used replaced, and dropped when the object dies. None holds a reference to it.
#pragma once

#include "check/global_state.h"
#include "witness/derive.h"
#include "witness/facts.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace unified_guards {

enum class Verdict {
  kHolds,
  kFails,
  kExact,  // the exact tier has to say
  kStale,  // and so do these facts, which have to be recorded anew
};

// What was remembered about one root.
class Witness {
 public:
  Verdict verify(Deriver& deriver, Evaluation& evaluation, PyObject* locals);
  Verdict record(Deriver& deriver, Evaluation& evaluation, PyObject* locals);

  bool is_ready() const { return ready_; }
  // Whether most has no facts, so that the exact tier, which fetches ahead, is as good.
  bool is_idle(const Program& program) const;

  const Facts& facts() const { return facts_; }
  const std::vector<LiveStep>& live() const { return live_; }
  size_t bytes() const;

 private:
  Verdict anchors_hold(Deriver& deriver, PyObject* locals);
  Verdict facts_hold(Deriver& deriver);
  Verdict tensors_hold(Program& program, Evaluation& evaluation);
  Verdict tensor_holds(Program& program, Evaluation& evaluation, const TensorFact& fact);
  Verdict state_holds(Program& program, Evaluation& evaluation);
  Verdict live_holds(Program& program, Evaluation& evaluation, PyObject* locals);
  bool run_live(Evaluation& evaluation, PyObject* locals);
  bool nothing_moved(Program& program, PyObject* locals);
  void plan(Program& program);

  Facts facts_;
  // Anchors, and the accessors that lead to them; each with what an anchor has to find.
  struct Approach {
    Instruction instruction;
    uint32_t at;
    bool is_anchor;
  };
  std::vector<Approach> approach_;
  std::vector<LiveStep> live_;
  size_t apart_ = 0;  // how many of them have to be told apart
  bool ready_ = false;
  std::vector<uint32_t> state_guards_;  // the instructions that `state_` answers
  GlobalState state_{};
  DispatchState dispatch_;  // in which the likenesses of tensors were taken
};

// How often facts were enough, had to be mended, and were recorded.
struct WitnessCounts {
  uint64_t held = 0, repaired = 0, recorded = 0;
};

// Of all programs there have been.
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
  // After a check that says kStale, with a new evaluation.
  Verdict record(Evaluation& evaluation, PyObject* locals);

  // The end of a check; `exactly`: the exact tier had to say, and said `hit`.
  void finish(bool exactly, bool hit);

  // `reference`, a weak one, has lost its object.
  void forget(PyObject* reference);

  WitnessCounts counts;
  size_t roots() const;
  size_t facts() const;
  size_t tensors() const;
  size_t live() const;
  size_t bytes() const;

  // The rows (see Program::last_failure) that are evaluated on every check of the root that was checked last.
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
    uint32_t rests = 0;    // how many checks are left to the exact tier
    uint32_t strikes = 0;  // how often in a row that had been cheaper
    bool doubtful = true;  // until a check of the exact tier has passed there is nothing to remember
  };

  Entry* entry_of(const void* root);
  Entry* admit(const void* root);
  void judge(Entry& entry, bool cheap);
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
  Deriver deriver_;
  std::vector<const void*> roots_;
  std::vector<Entry> entries_;
  Entry* current_ = nullptr;
  PyObject* on_death_ = nullptr;
  size_t at_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace unified_guards
