// See checker.h: which tier decides.
#include "check/checker.h"

#include "check/evaluate.h"
#include "witness/witness.h"

#include <ATen/PythonTorchFunctionTLS.h>

#include <chrono>
#include <utility>

namespace unified_guards {

thread_local JustMissed just_missed;

Checker::Checker(Program program) : program_(std::move(program)), scratch_(program_), journal_(program_) {}

namespace {

// Calls what asks torch's tree, which may leave torch functions switched off when it throws: what was set is put back.
PyObject* call_keeping_state(PyObject* function, PyObject* locals, PyObject* verdict) {
  using TLS = at::impl::PythonTorchFunctionTLS;
  const auto state = TLS::get_disabled_state();
  PyObject* answer = PyObject_CallFunctionObjArgs(function, locals, verdict, nullptr);
  TLS::set_disabled_state(state);
  return answer;
}

}  // namespace

Checker::~Checker() {
  Py_XDECREF(observer);
  Py_XDECREF(before);
}

void Checker::keep_witnesses() { witnesses_ = std::make_unique<Witnesses>(program_); }

bool Checker::check_timed(PyObject* locals) {
  if (before != nullptr) {
    Py_XDECREF(call_keeping_state(before, locals, nullptr));
    if (PyErr_Occurred()) PyErr_Clear();
  }
  const auto began = std::chrono::steady_clock::now();
  const bool hit = check(locals);
  last_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - began).count();
  return hit;
}

bool Checker::decide(PyObject* locals, bool exactly) {
  bool hit = false, asks_exact_tier = true;
  const bool nested = busy_;
  passed_by_ = nullptr;
  const bool by_witness = witnesses_ != nullptr && !exactly && !nested;
  try {
    if (nested) {
      Scratch own(program_);
      hit = decide_exactly(own, locals);
    } else {
      busy_ = true;
      const Verdict verdict = by_witness ? ask_witness(locals) : Verdict::kExact;
      asks_exact_tier = verdict == Verdict::kExact || verdict == Verdict::kStale;
      hit = asks_exact_tier ? decide_exactly(scratch_, locals) : verdict == Verdict::kHolds;
    }
  } catch (...) {
    // A tensor whose metadata cannot be read (a strided nested tensor, a subclass that raises): it does not match.
    if (PyErr_Occurred()) PyErr_Clear();
    hit = false;
  }
  if (by_witness) {
    const Witness* witness = witnesses_->finish(asks_exact_tier, hit);
    // Where code of a user's has run, what it leaves behind is to be read as it is now.
    passed_by_ = hit && !asks_exact_tier && scratch_.answers.empty() ? witness : nullptr;
  }
  if (!nested) busy_ = false;
  for (Counts* counts : {&journal_.counts, &total_counts}) hit ? counts->hits++ : counts->misses++;
  return hit;
}

const std::vector<PyObject*>* Checker::found_by_facts() const {
  return passed_by_ != nullptr ? &passed_by_->facts().found : nullptr;
}

const std::vector<PyObject*>* Checker::still_found(PyObject* locals) {
  if (witnesses_ == nullptr || busy_) return nullptr;
  Evaluation evaluation(program_, scratch_, journal_);
  const Witness* witness = witnesses_->unmoved(evaluation, locals);
  return witness != nullptr ? &witness->facts().found : nullptr;
}

bool Checker::decide_exactly(Scratch& scratch, PyObject* locals) {
  Evaluation evaluation(program_, scratch, journal_);
  return evaluation.run(locals);
}

// The verdict of the witness. Where its facts are stale, a second evaluation records them anew.
Verdict Checker::ask_witness(PyObject* locals) {
  const auto ask = [&](auto question) {
    Evaluation evaluation(program_, scratch_, journal_);
    return question(evaluation);
  };
  const Verdict verdict = ask([&](Evaluation& evaluation) { return witnesses_->check(evaluation, locals); });
  if (verdict != Verdict::kStale) return verdict;
  return ask([&](Evaluation& evaluation) { return witnesses_->record(evaluation, locals); });
}

PyObject* Checker::tell_observer(PyObject* locals, bool verdict) const {
  return call_keeping_state(observer, locals, verdict ? Py_True : Py_False);
}

// Discriminators are only ever added, behind those that there are: one of them may be running now (a dict with strange
// keys compares these in Python).
void Checker::ask_first(std::unique_ptr<Discriminator> guard) {
  std::unique_ptr<Discriminator>* last = &discriminators_;
  while (*last != nullptr) last = &(*last)->next;
  *last = std::move(guard);
}

Counts Checker::counts() const {
  Counts counts = journal_.counts;
  counts.misses += ruled_out_;
  return counts;
}

int Checker::traverse(visitproc visit, void* arg) const {
  Py_VISIT(observer);
  Py_VISIT(before);
  if (discriminators_ != nullptr) {
    if (const int stop = discriminators_->traverse(visit, arg)) return stop;
  }
  return program_.traverse(visit, arg);
}

size_t Checker::length() const {
  size_t length = program_.code.size();
  for (const Discriminator* one = discriminators_.get(); one != nullptr; one = one->next.get()) length += one->length();
  return length;
}

size_t Checker::bytes() const {
  size_t bytes = sizeof *this + program_.bytes() + scratch_.bytes() + journal_.hints.bytes() +
                 (witnesses_ ? witnesses_->bytes() : 0);
  for (const Discriminator* one = discriminators_.get(); one != nullptr; one = one->next.get()) bytes += one->bytes();
  return bytes;
}

}  // namespace unified_guards
