// See decide.h.
#include "call/decide.h"

#include "cpython/ref.h"

#include <c10/util/SmallVector.h>

#include <cstddef>
#include <utility>

namespace unified_guards {

Frame::Frame(Dispatcher& self, const BoundLocals& bound) : self_(self), is_own_(!self.is_frame_taken) {
  if (is_own_) self.is_frame_taken = true;
  dict_ = is_own_ ? self.frame : PyDict_New();
  is_ready_ = dict_ != nullptr && fill(bound);
  if (!is_ready_) PyErr_Clear();
}

Frame::~Frame() {
  if (is_own_) {
    empty();
    self_.is_frame_taken = false;
  } else {
    Py_XDECREF(dict_);
  }
}

bool Frame::fill(const BoundLocals& bound) {
  for (size_t at = 0; at < bound.values.size(); at++) {
    if (!put(at, bound.values[at])) return false;
  }
  return true;
}

// Nothing of a call is kept alive by the dict.
void Frame::empty() {
  for (size_t at = 0; at < self_.signature.size(); at++) {
    if (!put(at, Py_None)) PyErr_Clear();
  }
}

// The names are put into the dict in order, so each has an entry of the same number.
bool Frame::put(size_t at, PyObject* value) {
  PyObject* name = self_.signature.name(at);
  if (is_own_) {
    Py_INCREF(value);
    if (cpython::replace_at(dict_, static_cast<cpython::Slot>(at), name, value)) return true;
    Py_DECREF(value);
  }
  return PyDict_SetItem(dict_, name, value) == 0;
}

namespace {

std::shared_ptr<Record> record_of(Dispatcher& self, const CacheEntry& entry) {
  for (const auto& record : self.records) {
    if (record->is_of(entry)) return record;
  }
  return nullptr;
}

// Whether the entry of a record fits; what its check has found is taken. A no of the observer's is taken, as torch's
// lookup takes it.
bool fits(const Record& record, PyObject* locals, Inputs& inputs, bool& raised) {
  Checker& checker = *record.checker;
  inputs.clear();  // before the check: the end of what an earlier check has found may run code
  const bool is_observed = checker.is_observed();
  const bool hit = is_observed ? checker.check_timed(locals) : checker.check(locals);
  // At once: while an observer runs, other threads may check other roots, and free what was found.
  if (hit && record.plan != nullptr) record.plan->take(checker.found_by_facts(), inputs);
  if (!is_observed) return hit;
  const Ref answer(checker.tell_observer(locals, hit));
  raised = !answer;
  return answer.get() == Py_True || (hit && answer && answer.get() != Py_False);
}

// Asks the entries one after the other, in torch's order. A guard may run code of a user's, which may change the list:
// what is walked next is looked for again in torch's list. Hits of other threads, which move entries meanwhile, may
// leave an entry out: then the list has one in the end that was not asked.
Decision walk(Dispatcher& self, PyObject* locals, Inputs& inputs) {
  FoundEntries found = entries_of(self.target.code, self.region);
  if (found.why != Why::kNone) return {found.why, nullptr};
  c10::SmallVector<PyObject*, 8> asked;
  for (size_t at = 0; at < found.entries->size(); at++) {
    auto entry = std::next(found.entries->begin(), static_cast<ptrdiff_t>(at));
    std::shared_ptr<Record> record = record_of(self, *entry);
    if (record == nullptr) return {Why::kNew, nullptr};
    if (record->why == Why::kMiss) {
      asked.push_back(record->manager);
      continue;
    }
    if (record->why != Why::kNone) return {record->why, nullptr};  // torch asks it
    Decision decision{Why::kNone, record};
    // Leaf guards of torch's read the root that made them. Code of a user's in a guard may drop the manager of it.
    const Ref held(Py_NewRef(record->manager));
    const bool hit = fits(*record, locals, inputs, decision.raised);
    if (decision.raised) return decision;
    found = entries_of(self.target.code, self.region);
    if (found.why != Why::kNone) return {found.why, nullptr};
    if (at >= found.entries->size()) return {Why::kMoved, nullptr};
    entry = std::next(found.entries->begin(), static_cast<ptrdiff_t>(at));
    if (!record->is_of(*entry)) return {Why::kMoved, nullptr};
    if (!hit) {
      asked.push_back(record->manager);
      just_missed.note(record->checker.get());
      continue;
    }
    if (State::now.moves_hits) move_to_front(*found.entries, entry);
    return decision;
  }
  Managers all(asked.begin(), asked.end());
  if (has_others(*found.entries, all)) return {Why::kMoved, nullptr};
  return {Why::kMiss, nullptr, false, std::move(all)};
}

// How often a walk begins anew because code of a guard, or another thread meanwhile, has changed torch's list.
constexpr int kMostWalks = 8;

}  // namespace

Decision decide(Dispatcher& self, PyObject* locals, Inputs& inputs) {
  Decision decision = walk(self, locals, inputs);
  for (int walks = 1; decision.why == Why::kMoved && !decision.raised && walks < kMostWalks; walks++) {
    just_missed.clear();
    decision = walk(self, locals, inputs);
  }
  return decision;
}

}  // namespace unified_guards
