// What is done because code of a user's may run in the middle of an evaluation. See evaluate.h.
#include "check/evaluate.h"
#include "cpython/pure.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

namespace unified_guards {
namespace {

// What would die if these references were dropped. A bound method dies without a trace, but what it is bound to may be
// held by it alone.
class Dying {
 public:
  explicit Dying(const std::vector<PyObject*>& owned) {
    for (PyObject* object : owned) lose(object);
  }

  bool any_is_mortal() const { return any_is_mortal_; }

  // Whether code of a user's may notice that this object dies.
  bool ends_mortal(PyObject* object) const {
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
      any_is_mortal_ |= !bound.is_bound && !dies_quietly(object);
      if (bound.to == nullptr) return;
      object = bound.to;
    }
  }

  std::unordered_map<PyObject*, Py_ssize_t> lost_;
  bool any_is_mortal_ = false;
};

}  // namespace

bool Evaluation::ask(const Instruction& i) {
  asking_ = true;
  if (settling_) return false;
  if (loads_.steps != nullptr) hold_loads();
  for (uint16_t at = scratch_.paths[i.base]; at <= i.base; at++) own(Py_NewRef(scratch_.registers[at]));
  // Last, because making a dict may start a collection.
  if (!locals_before_) *locals_before_.out() = PyDict_Copy(scratch_.registers[0]);
  return true;
}

// The facts vouched for these until now.
void Evaluation::hold_loads() {
  const Loads loads = std::exchange(loads_, Loads());
  for (const LiveStep& live : *loads.steps) {
    if (live.load != kNoLoad) own(Py_NewRef(loads.found[live.load]));
  }
}

// False while settling: an instruction that had asked nothing would now have to.
bool Evaluation::note_asked(size_t index, PyObject* value) {
  asking_ = false;
  if (settling_) return false;
  scratch_.asked.push_back({static_cast<uint32_t>(index), value});
  if (value != nullptr) own(Py_NewRef(value));
  return true;
}

void Evaluation::begin_settling() {
  settling_ = true;
  put_torch_function_back();
  loads_ = Loads();
  next_asked_ = 0;
  dead_end_ = 0;
  exact_ = true;
  clear_seen(program_.size_.unique);
  if (dispatch_) dispatch_.emplace();
}

// Whether this instruction is not to be evaluated again: it asked, or it is about something that is gone.
bool Evaluation::was_asked(size_t index) {
  if (index < dead_end_) return true;
  while (next_asked_ < scratch_.asked.size() && scratch_.asked[next_asked_].at < index) next_asked_++;
  return next_asked_ < scratch_.asked.size() && scratch_.asked[next_asked_].at == index;
}

// What an accessor was given when it asked; guards that asked have passed.
bool Evaluation::repeat_answer(const Instruction& i, size_t index) {
  if (index < dead_end_ || !is_accessor(i.op)) return true;
  PyObject* value = scratch_.asked[next_asked_].value;
  if (value == nullptr) {
    dead_end_ = program_.places_[index].end;
    return true;
  }
  scratch_.registers[i.base + 1] = value;
  scratch_.paths[i.base + 1] = scratch_.paths[i.base];
  return also_passes(i, value) || fail(index, /*merged=*/true);
}

// Drops what nobody but this evaluation holds. Whether any of it may have run code of a user's in dying: a finalizer,
// or the callback of a weak reference.
bool Evaluation::drop_mortals() {
  const Dying dying(scratch_.owned);
  if (!dying.any_is_mortal()) return false;
  for (Asked& asked : scratch_.asked) {
    if (asked.value != nullptr && dying.ends_mortal(asked.value)) asked.value = nullptr;
  }
  for (PyObject*& saved : scratch_.saved) {
    if (saved != nullptr && dying.ends_mortal(saved)) saved = nullptr;
  }
  const auto kept = std::partition(scratch_.owned.begin(), scratch_.owned.end(),
                                   [&](PyObject* object) { return !dying.ends_mortal(object); });
  const std::vector<PyObject*> dropped(kept, scratch_.owned.end());
  scratch_.owned.erase(kept, scratch_.owned.end());
  for (PyObject* object : dropped) Py_DECREF(object);
  return true;
}

}  // namespace unified_guards
