// See witness.h.
#include "witness/witness.h"

#include <algorithm>
#include <utility>

namespace unified_guards {

WitnessCounts total_witness_counts;

namespace {

[[gnu::always_inline]] inline void fetch(const TensorFact& fact) {
  fetch_tensor(fact.tensor, fact.implementation, fact.autograd);
}

// The first of these tensors that does not look like those that matched; `end` when all do.
template <int kRank>
const TensorFact* first_unlike(const TensorFact* fact, const TensorFact* end, const TensorSpec& spec,
                               const int64_t* dims, const Likeness& like) {
  for (; fact != end; fact++) {
    fetch(fact[Facts::kTensorsAhead]);
    if (Py_TYPE(fact->tensor) != spec.type) break;
    if (!matches_like<kRank>(like, spec, dims, *tensor_of(fact->tensor).unsafeGetTensorImpl())) break;
    if (fact->is_bare && !cpython::is_bare(fact->tensor)) break;
  }
  return fact;
}

const TensorFact* first_unlike(const TensorFact* fact, const TensorFact* end, const TensorSpec& spec,
                               const int64_t* dims, const Likeness& like) {
  const bool all_guarded = std::find(dims, dims + 2 * spec.rank, kAnyDim) == dims + 2 * spec.rank;
  switch (all_guarded ? spec.rank : -1) {
    case 1: return first_unlike<1>(fact, end, spec, dims, like);
    case 2: return first_unlike<2>(fact, end, spec, dims, like);
    case 3: return first_unlike<3>(fact, end, spec, dims, like);
    case 4: return first_unlike<4>(fact, end, spec, dims, like);
    default: return first_unlike<-1>(fact, end, spec, dims, like);
  }
}

Verdict verdict_of(FactBuilder::Outcome outcome) {
  switch (outcome) {
    case FactBuilder::Outcome::kDone: return Verdict::kHolds;
    case FactBuilder::Outcome::kFails: return Verdict::kFails;
    default: return Verdict::kStale;
  }
}

}  // namespace

// ---- one root ----------------------------------------------------------------------------------------------------

Verdict Witness::verify(FactBuilder& builder, Evaluation& evaluation, PyObject* locals) {
  for (size_t ahead = 0; ahead < Facts::kAhead; ahead++) __builtin_prefetch(facts_.facts[ahead].word);
  builder.bind(facts_, evaluation);
  evaluation.clear_seen(live_unique_);
  Program& program = builder.program();
  Verdict verdict = state_holds(program, evaluation);
  if (verdict == Verdict::kHolds) verdict = anchors_hold(builder, evaluation, locals);
  if (verdict == Verdict::kHolds) verdict = facts_hold(builder);
  if (verdict == Verdict::kHolds) verdict = tensors_hold(program, evaluation);
  if (verdict == Verdict::kHolds) verdict = live_holds(program, evaluation, locals);
  if (verdict == Verdict::kStale) ready_ = false;
  return verdict;
}

Verdict Witness::record(FactBuilder& builder, Evaluation& evaluation, PyObject* locals) {
  builder.bind(facts_, evaluation);
  ready_ = false;
  const GlobalState state = GlobalState::now();
  evaluation.clear_seen(builder.program().size.unique);
  Verdict verdict = verdict_of(builder.record(locals));
  if (verdict != Verdict::kHolds) return verdict;
  state_ = state;
  plan(builder.program());
  verdict = live_holds(builder.program(), evaluation, locals);
  ready_ = verdict == Verdict::kHolds;
  return verdict;
}

void Witness::plan(Program& program) {
  const std::vector<Instruction>& code = program.code;
  std::vector<bool> leads(code.size());
  live_.clear();
  anchor_path_.clear();
  live_unique_ = 0;
  state_guards_.clear();
  for (uint32_t at = static_cast<uint32_t>(code.size()); at-- > 0;) {
    const uint32_t parent = program.tree[at].parent;
    const bool is_anchor = facts_.remembered[at].mode == Mode::kAnchor;
    if (is_anchor || leads[at]) leads[at] = leads[parent] = true;
  }
  for (uint32_t at = 0; at < code.size(); at++) {
    const uint32_t parent = program.tree[at].parent;
    if (leads[at]) anchor_path_.push_back({code[at], at, facts_.remembered[at].mode == Mode::kAnchor});
    if (code[at].op == Op::TORCH_CALL || code[at].op == Op::GLOBAL_STATE) state_guards_.push_back(at);
    if (facts_.remembered[at].mode != Mode::kLive) continue;
    const bool loads = parent != at && facts_.remembered[parent].mode != Mode::kLive;
    live_.push_back({code[at], at, loads ? parent : kNoLoad});
    live_unique_ += code[at].op == Op::UNIQUE || code[at].op == Op::UNIQUE_STORAGE;
  }
  live_.shrink_to_fit();
  anchor_path_.shrink_to_fit();
}

Verdict Witness::state_holds(Program& program, Evaluation& evaluation) {
  if (state_guards_.empty()) return Verdict::kHolds;
  const GlobalState now = GlobalState::now();
  if (now == state_) return Verdict::kHolds;
  facts_moved.note(FactKind::kState);
  for (const uint32_t at : state_guards_) {
    if (evaluation.passes(program.code[at], nullptr)) continue;
    evaluation.fail(at);
    return Verdict::kFails;
  }
  state_ = now;
  return Verdict::kHolds;
}

Verdict Witness::anchors_hold(FactBuilder& builder, Evaluation& evaluation, PyObject* locals) {
  PyObject** registers = evaluation.registers();
  registers[0] = locals;
  for (AnchorStep& step : anchor_path_) {
    Instruction& i = step.instruction;
    const uint32_t at = step.at;
    PyObject* value = FactBuilder::peek(i, registers[i.base]);
    if (value == nullptr) return Verdict::kExact;
    registers[i.base + 1] = value;
    if (!step.is_anchor || value == facts_.found[at]) continue;
    facts_moved.note(FactKind::kAnchor);
    const Verdict verdict = verdict_of(builder.replace(at, value));
    if (verdict != Verdict::kHolds) return verdict;
  }
  return Verdict::kHolds;
}

Verdict Witness::facts_hold(FactBuilder& builder) {
  if (!facts_.types.are_alive()) return Verdict::kStale;
  const size_t count = facts_.count();
  const Fact* facts = facts_.facts.data();
  for (size_t at = 0; at < count; at++) {
    __builtin_prefetch(facts[at + Facts::kAhead].word);
    if (*facts[at].word == facts[at].expected) [[likely]]
      continue;
    facts_moved.note(facts_.kinds[at]);
    const Verdict verdict = verdict_of(builder.repair(facts_.owners[at], facts_.kinds[at]));
    if (verdict != Verdict::kHolds) return verdict;
  }
  return Verdict::kHolds;
}

Verdict Witness::tensors_hold(Program& program, Evaluation& evaluation) {
  if (facts_.tensor_count() == 0) return Verdict::kHolds;
  if (!(dispatch_ == *evaluation.dispatch())) {
    std::fill(facts_.likenesses.begin(), facts_.likenesses.end(), Likeness());
    dispatch_ = *evaluation.dispatch();
  }
  const TensorFact* fact = facts_.tensors.data();
  for (size_t ahead = 0; ahead < Facts::kTensorsAhead; ahead++) fetch(fact[ahead]);
  for (const uint32_t end_of_run : facts_.runs) {
    const TensorSpec& spec = program.tensors[fact->spec];
    if (fact->type_version != 0 && spec.type->tp_version_tag != fact->type_version) return Verdict::kStale;
    const TensorFact* end = facts_.tensors.data() + end_of_run;
    const int64_t* dims = program.dims.data() + spec.dims;
    while ((fact = first_unlike(fact, end, spec, dims, facts_.likenesses[fact->spec])) != end) {
      const Verdict verdict = tensor_holds(program, evaluation, *fact++);
      if (verdict != Verdict::kHolds) return verdict;
    }
  }
  return Verdict::kHolds;
}

// Compares a tensor that does not look like the last one that matched: it may match all the same.
Verdict Witness::tensor_holds(Program& program, Evaluation& evaluation, const TensorFact& fact) {
  facts_moved.note(FactKind::kTensor);
  const TensorSpec& spec = program.tensors[fact.spec];
  const int64_t* dims = program.dims.data() + spec.dims;
  const auto fails = [&] {
    evaluation.fail(facts_.tensor_owners[static_cast<size_t>(&fact - facts_.tensors.data())]);
    return Verdict::kFails;
  };
  if (Py_TYPE(fact.tensor) != spec.type) return fails();  // there may be no tensor any more at that address
  const c10::TensorImpl& implementation = *tensor_of(fact.tensor).unsafeGetTensorImpl();
  if (!reads_in_place(implementation).likeness()) return Verdict::kStale;
  if (!tensor_matches(spec, dims, fact.tensor, *evaluation.dispatch())) return fails();
  if (fact.is_bare && !cpython::is_bare(fact.tensor)) return Verdict::kStale;
  facts_.likenesses[fact.spec] = likeness_of(implementation);
  return Verdict::kHolds;
}

Verdict Witness::live_holds(Program& program, Evaluation& evaluation, PyObject* locals) {
  if (!run_live(evaluation, locals)) return Verdict::kFails;
  // Code of a user's may have run: facts are compared again. Where one has moved, the exact tier decides.
  const bool holds = evaluation.settle([&] {
    return nothing_moved(evaluation, evaluation.unchanged(locals)) &&
           tensors_hold(program, evaluation) == Verdict::kHolds && run_live(evaluation, locals);
  });
  return holds ? Verdict::kHolds : Verdict::kExact;
}

bool Witness::run_live(Evaluation& evaluation, PyObject* locals) {
  return evaluation.run_live(locals, live_, facts_.found.data(), facts_.unique);
}

bool Witness::nothing_moved(Evaluation& evaluation, PyObject* locals) {
  if (!state_guards_.empty() && !(GlobalState::now() == state_)) return false;
  if (!facts_.types.are_alive()) return false;
  PyObject** registers = evaluation.registers();
  registers[0] = locals;
  for (AnchorStep& step : anchor_path_) {
    Instruction& i = step.instruction;
    PyObject* value = FactBuilder::peek(i, registers[i.base]);
    if (value == nullptr || (step.is_anchor && value != facts_.found[step.at])) return false;
    registers[i.base + 1] = value;
  }
  const auto end = facts_.facts.begin() + static_cast<ptrdiff_t>(facts_.count());
  return std::all_of(facts_.facts.begin(), end, [](const Fact& fact) { return *fact.word == fact.expected; });
}

bool Witness::is_idle(const Program& program) const {
  return live_.size() > 64 && live_.size() * 2 > program.code.size();
}

size_t Witness::bytes() const {
  return sizeof *this + facts_.bytes() + anchor_path_.capacity() * sizeof(AnchorStep) +
         live_.capacity() * sizeof(LiveStep) + state_guards_.capacity() * sizeof(uint32_t);
}

// ---- all roots ---------------------------------------------------------------------------------------------------

namespace {

// The collector may call this after the witnesses are gone. The context of the capsule `self` is null by then.
PyObject* on_death(PyObject* self, PyObject* reference) {
  if (auto* witnesses = static_cast<Witnesses*>(PyCapsule_GetContext(self))) witnesses->forget(reference);
  Py_RETURN_NONE;
}

PyMethodDef on_death_method{"forget_root", on_death, METH_O, "Drops what was remembered about an object that died."};

}  // namespace

Witnesses::Witnesses(Program& program) : program_(program), builder_(program) {}

Witnesses::~Witnesses() {
  for (size_t at = 0; at < entries_.size(); at++) drop(at);
  if (on_death_ != nullptr) PyCapsule_SetContext(PyCFunction_GET_SELF(on_death_), nullptr);
  Py_XDECREF(on_death_);
}

void Witnesses::drop(size_t at) {
  roots_.clear(at);
  Py_CLEAR(entries_[at].reference);
  entries_[at] = Entry();
}

void Witnesses::forget(PyObject* reference) {
  for (size_t at = 0; at < entries_.size(); at++) {
    if (entries_[at].reference != reference) continue;
    if (&entries_[at] == current_) return;  // being checked; finish() will see that it is dead
    drop(at);
    return;
  }
}

PyObject* Witnesses::watch(const void* root) {
  if (root == nullptr) return nullptr;
  if (on_death_ == nullptr) {
    PyObject* self = PyCapsule_New(this, nullptr, nullptr);
    if (self != nullptr && PyCapsule_SetContext(self, this) == 0) on_death_ = PyCFunction_New(&on_death_method, self);
    Py_XDECREF(self);
  }
  PyObject* reference = nullptr;
  if (on_death_ != nullptr) reference = PyWeakref_NewRef(static_cast<PyObject*>(const_cast<void*>(root)), on_death_);
  if (reference == nullptr) PyErr_Clear();  // the root's death goes unnoticed; in time it is the least recently used
  return reference;
}

Witnesses::Entry* Witnesses::admit(const void* root) {
  size_t at = roots_.first_free();
  if (at == roots_.size() && at < kMost) {
    entries_.emplace_back();
  } else if (at == roots_.size()) {
    // Where more roots than fit come round in order, the least recently used is the one that comes next. So one is
    // replaced only now and then, and most of them stay.
    if (clock_ % 16 != 0) return nullptr;
    const auto oldest = std::min_element(entries_.begin(), entries_.end(),
                                         [](const Entry& a, const Entry& b) { return a.used < b.used; });
    at = static_cast<size_t>(oldest - entries_.begin());
    drop(at);
  }
  roots_.put(at, root);
  entries_[at].reference = watch(root);
  return &entries_[at];
}

Verdict Witnesses::check(Evaluation& evaluation, PyObject* locals) {
  const void* root = program_.root(locals);
  clock_++;
  current_ = roots_.find(root) ? &entries_[roots_.at()] : admit(root);
  if (current_ == nullptr) return Verdict::kExact;
  Entry& entry = *current_;
  entry.used = clock_;
  if (entry.exact_checks_left > 0) entry.exact_checks_left--;
  if (entry.is_unproven || entry.exact_checks_left > 0) return Verdict::kExact;
  if (entry.witness == nullptr) entry.witness = std::make_unique<Witness>();
  if (!entry.witness->is_ready()) return Verdict::kStale;
  if (entry.witness->is_idle(program_)) return Verdict::kExact;
  const Verdict verdict = entry.witness->verify(builder_, evaluation, locals);
  const size_t work = builder_.work();
  if (verdict == Verdict::kHolds) count(work == 0 ? &WitnessCounts::held : &WitnessCounts::repaired);
  note_cost(entry, verdict != Verdict::kStale && verdict != Verdict::kExact && work * 4 <= program_.code.size());
  return verdict;
}

// Facts that have to be replaced on every call cost more than they save. The exact tier then checks for a while, each
// time for twice as long.
void Witnesses::note_cost(Entry& entry, bool cheap) {
  constexpr uint32_t kPatience = 3, kMostCostly = 9;
  if (cheap) {
    entry.costly_in_a_row = 0;
    return;
  }
  entry.costly_in_a_row = std::min(entry.costly_in_a_row + 1, kMostCostly);
  if (entry.costly_in_a_row >= kPatience) entry.exact_checks_left = 1u << (entry.costly_in_a_row - kPatience + 1);
}

Verdict Witnesses::record(Evaluation& evaluation, PyObject* locals) {
  const Verdict verdict = current_->witness->record(builder_, evaluation, locals);
  if (verdict == Verdict::kHolds) count(&WitnessCounts::recorded);
  current_->is_unproven = verdict != Verdict::kHolds;
  return verdict;
}

const Witness* Witnesses::finish(bool exactly, bool hit) {
  Entry* entry = std::exchange(current_, nullptr);
  if (entry == nullptr) return nullptr;
  if (exactly && hit) entry->is_unproven = false;
  const auto nobody = cpython::bits(Py_None);
  if (entry->reference != nullptr && *cpython::weakref_word(entry->reference) == nobody) {
    drop(static_cast<size_t>(entry - entries_.data()));
  }
  return entry->witness.get();
}

const Witness* Witnesses::unmoved(Evaluation& evaluation, PyObject* locals) {
  if (!roots_.find_again(program_.root(locals))) return nullptr;
  Witness* witness = entries_[roots_.at()].witness.get();
  const bool is_known = witness != nullptr && witness->is_ready();
  return is_known && witness->nothing_moved(evaluation, locals) ? witness : nullptr;
}

template <typename Measure>
size_t Witnesses::sum(Measure of) const {
  size_t sum = 0;
  for (const Entry& entry : entries_) sum += entry.witness ? of(*entry.witness) : 0;
  return sum;
}

size_t Witnesses::roots() const {
  return sum([](const Witness& witness) { return size_t{witness.is_ready()}; });
}

size_t Witnesses::facts() const {
  return sum([](const Witness& witness) { return witness.facts().count(); });
}

size_t Witnesses::tensors() const {
  return sum([](const Witness& witness) { return witness.facts().tensor_count(); });
}

size_t Witnesses::live() const {
  return sum([](const Witness& witness) { return witness.live().size(); });
}

const Witness* Witnesses::last() const { return !entries_.empty() ? entries_[roots_.at()].witness.get() : nullptr; }

std::vector<int64_t> Witnesses::live_rows() const {
  std::vector<int64_t> rows;
  if (last() == nullptr) return rows;
  for (const LiveStep& step : last()->live()) rows.push_back(program_.origins[step.at]);
  return rows;
}

std::vector<int64_t> Witnesses::fact_rows() const {
  std::vector<int64_t> rows;
  if (last() == nullptr) return rows;
  for (const uint32_t owner : last()->facts().owners) rows.push_back(program_.origins[owner]);
  return rows;
}

std::vector<FactKind> Witnesses::fact_kinds() const {
  return last() != nullptr ? last()->facts().kinds : std::vector<FactKind>();
}

size_t Witnesses::bytes() const {
  return sizeof *this + roots_.bytes() + entries_.capacity() * sizeof(Entry) +
         sum([](const Witness& witness) { return witness.bytes(); });
}

}  // namespace unified_guards
