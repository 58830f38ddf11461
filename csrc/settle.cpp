// What is done because code of a user's may run in the middle of an evaluation. See evaluate.h.
#include "evaluate.h"
#include "pure.h"

#include <algorithm>
#include <utility>

namespace unified_guards {

bool Evaluation::ask(const Instruction& i) {
  asking_ = true;
  if (settling_) return false;
  if (!locals_before_) *locals_before_.out() = PyDict_Copy(scratch_.registers[0]);
  if (loads_.steps != nullptr) hold_loads();
  for (uint16_t at = scratch_.paths[i.base]; at <= i.base; at++) own(Py_NewRef(scratch_.registers[at]));
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
  std::vector<PyObject*> owned = scratch_.owned, mortals;
  std::sort(owned.begin(), owned.end());
  for (auto one = owned.begin(), end = one; one != owned.end(); one = end) {
    end = std::upper_bound(one, owned.end(), *one);
    if (Py_REFCNT(*one) == end - one && !dies_quietly(*one)) mortals.push_back(*one);
  }
  if (mortals.empty()) return false;
  const auto is_mortal = [&](PyObject* object) { return std::binary_search(mortals.begin(), mortals.end(), object); };
  for (Asked& asked : scratch_.asked) {
    if (asked.value != nullptr && is_mortal(asked.value)) asked.value = nullptr;
  }
  for (PyObject*& saved : scratch_.saved) {
    if (saved != nullptr && is_mortal(saved)) saved = nullptr;
  }
  const auto kept = std::partition(scratch_.owned.begin(), scratch_.owned.end(),
                                   [&](PyObject* object) { return !is_mortal(object); });
  const std::vector<PyObject*> dropped(kept, scratch_.owned.end());
  scratch_.owned.erase(kept, scratch_.owned.end());
  for (PyObject* object : dropped) Py_DECREF(object);
  return true;
}

}  // namespace unified_guards
