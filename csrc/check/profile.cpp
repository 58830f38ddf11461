// See profile.h.
#include "check/profile.h"

#include "check/evaluate.h"
#include "witness/witness.h"

#include <algorithm>
#include <chrono>
#include <limits>

namespace unified_guards {

namespace {

using Clock = std::chrono::steady_clock;

template <typename Run>
double ns_of(Run run) {
  const auto began = Clock::now();
  run();
  return std::chrono::duration<double, std::nano>(Clock::now() - began).count();
}

template <typename Run>
double least_ns(uint32_t passes, Run run) {
  double least = std::numeric_limits<double>::infinity();
  for (uint32_t pass = 0; pass < passes; pass++) least = std::min(least, ns_of(run));
  return least;
}

// How often an instruction is evaluated between two readings of a clock that may tick every ten nanoseconds.
uint32_t repeats(Op op) {
  constexpr uint32_t kMany = 16;
  const OpTraits& traits = traits_of(op);
  const bool calls = traits.user_code == UserCode::kMostly || traits.user_code == UserCode::kCallback;
  return traits.order == Order::kOnce || calls ? 1 : kMany;
}

}  // namespace

class Profile {
 public:
  Profile(Checker& checker, PyObject* locals) : checker_(checker), program_(checker.program()), locals_(locals) {}

  Costs run(uint32_t passes) {
    Journal& journal = checker_.journal();
    const Counts own = journal.counts, all = total_counts;
    const WitnessCounts all_witnesses = total_witness_counts;
    WitnessCounts* counted = checker_.witnesses() ? &checker_.witnesses()->counts : nullptr;
    const WitnessCounts witnesses = counted ? *counted : WitnessCounts();
    const int64_t failure = journal.last_failure;
    Costs costs;
    costs.check_ns = least_ns(passes, [&] { checker_.check(locals_); });
    costs.exact_ns = least_ns(passes, [&] { checker_.check_exactly(locals_); });
    costs.rows = rows(passes);
    journal.counts = own;
    journal.last_failure = failure;
    total_counts = all;
    total_witness_counts = all_witnesses;
    if (counted) *counted = witnesses;
    return costs;
  }

 private:
  std::vector<Costs::Row> rows(uint32_t passes) {
    const size_t length = program_.code.size();
    std::vector<double> least(length, std::numeric_limits<double>::infinity());
    double clock = std::numeric_limits<double>::infinity();
    std::vector<std::vector<LiveStep>> steps(length);
    for (uint32_t at = 0; at < length; at++) {
      steps[at].assign(repeats(program_.code[at].op), {program_.code[at], at, kNoLoad});
    }
    try {
      for (uint32_t pass = 0; pass < passes; pass++) {
        if (!take(steps, least, clock)) return {};
      }
    } catch (...) {  // a tensor whose metadata cannot be read
      if (PyErr_Occurred()) PyErr_Clear();
      return {};
    }
    std::vector<Costs::Row> found;
    for (size_t at = 0; at < length; at++) {
      const double ns = std::max(0.0, least[at] - clock) / static_cast<double>(steps[at].size());
      found.push_back({program_.row_of(at, false), ns});
    }
    return found;
  }

  // One pass. Each pass has an evaluation of its own, because within one evaluation an object may be saved or
  // compared in a group only once.
  bool take(std::vector<std::vector<LiveStep>>& steps, std::vector<double>& least, double& clock) {
    Scratch scratch(program_);
    Evaluation evaluation(program_, scratch, checker_.journal());
    std::vector<LiveStep> nothing;
    bool holds = true;
    const auto ns = [&](std::vector<LiveStep>& step) {
      return ns_of([&] { holds = evaluation.run_live(locals_, step, nullptr, {}); });
    };
    clock = std::min(clock, ns(nothing));
    for (size_t at = 0; at < steps.size(); at++) {
      least[at] = std::min(least[at], ns(steps[at]));
      if (!holds) return false;
    }
    return true;
  }

  Checker& checker_;
  Program& program_;
  PyObject* locals_;
};

Costs profile(Checker& checker, PyObject* locals, uint32_t passes) { return Profile(checker, locals).run(passes); }

}  // namespace unified_guards
