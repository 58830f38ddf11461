// See fact_builder.h: facts are written in the order of the program, and some of them are written anew in a repair.
#include "witness/fact_builder.h"

#include "cpython/pure.h"

#include <algorithm>

namespace unified_guards {
namespace {

using cpython::Word;

// Guards that guard_facts() answers itself: there are facts only where the guard holds.
bool is_absence(Op op) { return op == Op::NO_ATTR || op == Op::DIM_MARKING || op == Op::DYNAMIC_INDICES; }

bool is_relation(Op op) { return op == Op::UNIQUE || op == Op::SAVE || op == Op::SAME_AS; }

}  // namespace

// ---- emitting ----------------------------------------------------------------------------------------------------

void FactBuilder::begin(uint32_t at) {
  current_ = at;
  from_ = facts_->facts.size();
  change_from_ = changes_.size();
  if (!updating_) facts_->remembered[at].first = static_cast<uint32_t>(from_);
}

void FactBuilder::emit(FactKind kind, Word word) {
  if (!updating_) {
    facts_->facts.push_back({word, *word});
    facts_->owners.push_back(current_);
    facts_->kinds.push_back(kind);
    return;
  }
  const auto at = static_cast<uint32_t>(facts_->remembered[current_].first + changes_.size() - change_from_);
  if (at >= facts_->count() || facts_->owners[at] != current_ || facts_->kinds[at] != kind) {
    outcome_ = Outcome::kOther;
    return;
  }
  changes_.push_back({at, {word, *word}});
}

void FactBuilder::emit_type(PyObject* object) {
  if (!facts_->types.add(Py_TYPE(object))) outcome_ = Outcome::kOther;
  emit(FactKind::kType, cpython::type_word(object));
}

void FactBuilder::drop_emitted() {
  if (updating_) {
    changes_.resize(change_from_);
  } else {
    facts_->facts.resize(from_);
    facts_->owners.resize(from_);
    facts_->kinds.resize(from_);
  }
}

// Call when all facts of an instruction have been emitted. False when updating, if they are not as many as before.
bool FactBuilder::end(uint32_t at) {
  if (!updating_) return true;
  const size_t next = facts_->remembered[at].first + emitted();
  if (outcome_ == Outcome::kOther || (next < facts_->count() && facts_->owners[next] == at)) return other();
  return true;
}

bool FactBuilder::mode_is(uint32_t at, Mode mode) {
  if (updating_) return facts_->remembered[at].mode == mode || other();
  facts_->remembered[at].mode = mode;
  return true;
}

void FactBuilder::start_update() {
  updating_ = true;
  outcome_ = Outcome::kDone;
  changes_.clear();
  finds_.clear();
  tensor_changes_.clear();
  keeps_.clear();
}

FactBuilder::Outcome FactBuilder::commit() {
  if (outcome_ != Outcome::kDone) return outcome_;
  for (const auto& [at, fact] : tensor_changes_) {
    if (!are_alike(facts_->tensors[at], fact)) return Outcome::kOther;
  }
  for (const Change& change : changes_) facts_->facts[change.at] = change.fact;
  for (const auto& [at, value] : finds_) facts_->found[at] = value;
  for (const auto& [at, fact] : tensor_changes_) facts_->tensors[at] = fact;
  for (const auto& [at, value] : keeps_) facts_->kept.replace(at, value);
  return outcome_;
}

// ---- walking -----------------------------------------------------------------------------------------------------

FactBuilder::Outcome FactBuilder::record(PyObject* locals) {
  const size_t length = program_.code.size();
  *facts_ = Facts();
  facts_->remembered.resize(length);
  facts_->likenesses.resize(program_.tensors.size());
  facts_->found.resize(length);
  updating_ = false;
  outcome_ = Outcome::kDone;
  registers_[0] = {locals, Knows::kValue, 0};
  if (build(0, static_cast<uint32_t>(length))) decide_relations();
  facts_->finish();
  return outcome_;
}

bool FactBuilder::build(uint32_t begin, uint32_t end) {
  for (uint32_t at = begin; at < end; at++) {
    if (!(is_accessor(program_.code[at].op) ? build_accessor(at) : build_guard(at))) return false;
  }
  return true;
}

bool FactBuilder::build_accessor(uint32_t at) {
  Instruction& i = program_.code[at];
  const Register base = registers_[i.base];
  work_++;
  begin(at);
  if (i.op == Op::CONSTANT) return remember(at, i.object, Mode::kRemembered);
  if (base.state == Knows::kNothing) return leave_live(at, {});
  if (base.state == Knows::kValue) {
    PyObject* value = peek(i, base.value);
    if (value == nullptr) return leave_live(at, {});
    if (is_anchor(at, value)) return remember(at, value, Mode::kAnchor);
    return leave_live(at, {value, Knows::kValue, 0});
  }
  PyObject* value = read_accessor(at, base);
  if (value != nullptr) return remember(at, value, Mode::kRemembered);
  drop_emitted();
  return leave_live(at, {});
}

bool FactBuilder::leave_live(uint32_t at, Register value) {
  registers_[program_.code[at].base + 1] = value;
  return mode_is(at, Mode::kLive);
}

// The facts emitted so far keep the answer that the accessor finds `value`. Adds facts about the value itself.
bool FactBuilder::remember(uint32_t at, PyObject* value, Mode mode) {
  const Instruction& i = program_.code[at];
  Remembered& remembered = facts_->remembered[at];
  if (!mode_is(at, mode)) return false;
  const auto reading_facts = static_cast<uint16_t>(emitted());
  const uint8_t has = value_facts(at, value, program_.tree[at].needs);
  if (updating_) {
    if (reading_facts != remembered.reading_facts || has != remembered.has || !end(at)) return other();
    finds_.emplace_back(at, value);
  } else {
    remembered.reading_facts = reading_facts;
    remembered.has = has;
    facts_->found[at] = value;
  }
  registers_[i.base + 1] = {value, Knows::kFacts, has};
  return passes_merged(i, value) || fails(at, /*merged=*/true);
}

bool FactBuilder::build_guard(uint32_t at) {
  Instruction& i = program_.code[at];
  const Register& base = registers_[i.base];
  work_++;
  begin(at);
  const bool has_facts = i.base == 0 ? ambient_facts(i) : base.state == Knows::kFacts && guard_facts(at, base);
  if (!has_facts) {
    drop_emitted();
    return mode_is(at, Mode::kLive);
  }
  if (!mode_is(at, Mode::kRemembered)) return false;
  // How a group of objects relates is decided when all of them are known. An update cannot replace one of them alone.
  if (is_relation(i.op)) return !updating_ || other();
  return end(at) && (is_absence(i.op) || evaluation_->passes(i, base.value) || fails(at));
}

// Objects that all have facts relate to each other as they do now, for as long as the facts hold. Each of the others is
// compared with them on every check.
void FactBuilder::decide_relations() {
  const std::vector<Instruction>& code = program_.code;
  std::vector<bool> live_groups(code.size()), live_slots(program_.size.saved);
  for (uint32_t at = 0; at < code.size(); at++) {
    const Instruction& i = code[at];
    const bool live = facts_->remembered[at].mode == Mode::kLive;
    if (i.op == Op::UNIQUE && live) live_groups[i.arg] = true;
    if ((i.op == Op::SAVE || i.op == Op::SAME_AS || i.op == Op::SHARES_STORAGE) && live) live_slots[i.arg] = true;
    if (i.op == Op::OVERLAP) live_slots.assign(live_slots.size(), true);
  }
  facts_->unique.clear(static_cast<size_t>(std::count_if(
      code.begin(), code.end(), [&](const Instruction& i) { return i.op == Op::UNIQUE && live_groups[i.arg]; })));
  for (uint32_t at = 0; at < code.size(); at++) {
    Remembered& remembered = facts_->remembered[at];
    if (!is_relation(code[at].op) || remembered.mode == Mode::kLive) continue;
    PyObject* value = facts_->found[program_.tree[at].parent];
    if (code[at].op != Op::UNIQUE && live_slots[code[at].arg]) {
      remembered.mode = Mode::kLive;
    } else if (!evaluation_->passes(program_.code[at], value)) {
      fails(at);
      return;
    } else if (code[at].op == Op::UNIQUE && live_groups[code[at].arg]) {
      facts_->unique.insert(value, code[at].arg);
    }
  }
}

// ---- updating ----------------------------------------------------------------------------------------------------

FactBuilder::Outcome FactBuilder::repair(uint32_t at, FactKind kind) {
  start_update();
  const Instruction& i = program_.code[at];
  const uint32_t parent = program_.tree[at].parent;
  const Remembered& remembered = facts_->remembered[at];
  if (parent != at) registers_[i.base] = {facts_->found[parent], Knows::kFacts, facts_->remembered[parent].has};
  if (!is_accessor(i.op)) {
    build_guard(at);
    return commit();
  }
  PyObject* value = facts_->found[at];
  begin(at);
  work_++;
  if (remembered.mode == Mode::kRemembered && i.op != Op::CONSTANT) value = read_accessor(at, registers_[i.base]);
  if (value == nullptr || outcome_ == Outcome::kOther) return Outcome::kOther;
  const bool same = value == facts_->found[at];
  if (remember(at, value, remembered.mode)) {
    same ? refresh_children(at) : build(at + 1, program_.tree[at].end);
  }
  const Outcome outcome = commit();
  const bool moves = outcome == Outcome::kDone && kind == FactKind::kDictVersion && dict_keeps_moving(at);
  return moves ? Outcome::kOther : outcome;
}

FactBuilder::Outcome FactBuilder::replace(uint32_t anchor, PyObject* value) {
  start_update();
  begin(anchor);
  work_++;
  if (remember(anchor, value, Mode::kAnchor)) build(anchor + 1, program_.tree[anchor].end);
  const Outcome outcome = commit();
  if (outcome != Outcome::kDone) return outcome;
  uint8_t& moves = anchor_moves_[anchor];
  if (moves < kMostMoves) moves++;
  return moves < kMostMoves ? Outcome::kDone : Outcome::kOther;
}

// The accessor finds the same object, in which something has changed. Evaluates the instructions again that read the
// object directly; those further below only where an accessor finds another object than before.
bool FactBuilder::refresh_children(uint32_t at) {
  for (uint32_t child = at + 1; child < program_.tree[at].end; child = program_.tree[child].end) {
    const Instruction& i = program_.code[child];
    const Remembered& remembered = facts_->remembered[child];
    if (remembered.mode == Mode::kLive || is_relation(i.op)) continue;
    if (!is_accessor(i.op)) {
      if (!build_guard(child)) return false;
      continue;
    }
    work_++;
    begin(child);
    if (i.op == Op::CONSTANT) continue;
    PyObject* value = read_accessor(child, registers_[i.base]);
    if (value == nullptr || outcome_ == Outcome::kOther || emitted() != remembered.reading_facts) return other();
    const bool was_dict = remembered.has & kNeedsVersion;
    if (value == facts_->found[child] && (!was_dict || PyDict_Check(value)) && !is_immutable(value)) continue;
    if (!remember(child, value, Mode::kRemembered) || !build(child + 1, program_.tree[child].end)) return false;
  }
  return true;
}

}  // namespace unified_guards
