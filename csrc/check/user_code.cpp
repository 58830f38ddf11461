// See evaluate.h: what an evaluation does because code of a user's may run in the middle of it.
#include "check/evaluate.h"
#include "cpython/pure.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

namespace unified_guards {
namespace {

// Which objects would die if these references were dropped, and whether code of a user's could notice. The death of a
// bound method is not noticed, but the method alone may hold the object that it is bound to.
class LastReferences {
 public:
  explicit LastReferences(const std::vector<PyObject*>& owned) {
    for (PyObject* object : owned) lose(object);
  }

  bool any_runs_code() const { return any_runs_code_; }

  // Whether this object would die, and code of a user's could notice: a finalizer, or the callback of a weak reference.
  bool runs_code(PyObject* object) const {
    while (dies(object)) {
      const Bound bound = bound_of(object);
      if (!bound.is_bound) return !dies_quietly(object);
      if (bound.to == nullptr) return false;
      object = bound.to;
    }
    return false;
  }

 private:
  bool dies(PyObject* object) const {
    const auto found = lost_.find(object);
    return found != lost_.end() && Py_REFCNT(object) == found->second;
  }

  void lose(PyObject* object) {
    while (++lost_[object] == Py_REFCNT(object)) {
      const Bound bound = bound_of(object);
      any_runs_code_ |= !bound.is_bound && !dies_quietly(object);
      if (bound.to == nullptr) return;
      object = bound.to;
    }
  }

  std::unordered_map<PyObject*, Py_ssize_t> lost_;
  bool any_runs_code_ = false;
};

}  // namespace

bool Evaluation::before_user_code(const Instruction& i) {
  runs_user_code_ = true;
  if (settling_ || traits_of(i.op).user_code == UserCode::kNever) return false;
  if (loads_.steps != nullptr) own_loaded();
  for (uint16_t at = scratch_.paths[i.base]; at <= i.base; at++) own(Py_NewRef(scratch_.registers[at]));
  // Last, because making a dict may start a collection.
  if (!locals_copy_) *locals_copy_.out() = PyDict_Copy(scratch_.registers[0]);
  return true;
}

// Takes ownership of the values that live steps load. Facts vouched for these values, until code of a user's may run.
void Evaluation::own_loaded() {
  const Loads loads = std::exchange(loads_, Loads());
  for (const LiveStep& live : *loads.steps) {
    if (live.load != kNoLoad) own(Py_NewRef(loads.found[live.load]));
  }
}

// Notes what an instruction found that ran code of a user's. False while settling: an instruction that ran no such code
// the first time would now have to, so it fails.
bool Evaluation::note_answer(size_t index, PyObject* value) {
  runs_user_code_ = false;
  if (settling_) return false;
  scratch_.answers.push_back({static_cast<uint32_t>(index), value});
  if (value != nullptr) own(Py_NewRef(value));
  return true;
}

void Evaluation::begin_settling() {
  settling_ = true;
  put_torch_function_back();
  loads_ = Loads();
  next_answer_ = 0;
  gone_until_ = 0;
  exact_ = true;
  clear_seen(program_.size.unique);
  if (dispatch_) dispatch_.emplace();
}

// Whether an instruction must not be evaluated again: it ran code of a user's, or it reads a value that is gone.
bool Evaluation::was_answered(size_t index) {
  if (index < gone_until_) return true;
  while (next_answer_ < scratch_.answers.size() && scratch_.answers[next_answer_].at < index) next_answer_++;
  return next_answer_ < scratch_.answers.size() && scratch_.answers[next_answer_].at == index;
}

// Takes what an accessor found the first time. A guard that ran code of a user's has passed then.
bool Evaluation::repeat_answer(const Instruction& i, size_t index) {
  if (index < gone_until_ || !is_accessor(i.op)) return true;
  PyObject* value = scratch_.answers[next_answer_].value;
  if (value == nullptr) {
    gone_until_ = program_.tree[index].end;
    return true;
  }
  scratch_.registers[i.base + 1] = value;
  scratch_.paths[i.base + 1] = scratch_.paths[i.base];
  return passes_merged(i, value) || fail(index, /*merged=*/true);
}

// Drops the objects that only this evaluation holds. True when the death of any of them may have run code of a user's.
bool Evaluation::drop_unshared() {
  const LastReferences last(scratch_.owned);
  if (!last.any_runs_code()) return false;
  for (Answer& answer : scratch_.answers) {
    if (answer.value != nullptr && last.runs_code(answer.value)) answer.value = nullptr;
  }
  for (PyObject*& saved : scratch_.saved) {
    if (saved != nullptr && last.runs_code(saved)) saved = nullptr;
  }
  const auto kept = std::partition(scratch_.owned.begin(), scratch_.owned.end(),
                                   [&](PyObject* object) { return !last.runs_code(object); });
  const std::vector<PyObject*> dropped(kept, scratch_.owned.end());
  scratch_.owned.erase(kept, scratch_.owned.end());
  for (PyObject* object : dropped) Py_DECREF(object);
  return true;
}

}  // namespace unified_guards
