// See outlive.h.
#include "check/outlive.h"

#include "cpython/cpython.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <utility>
#include <vector>

namespace unified_guards {

Running::One* Running::first = nullptr;
Running::One* Running::unused = nullptr;
bool Running::some_are_kept = false;

namespace {

struct Kept {
  PyObject* object;              // owned; where `carried` is set, the code object that carried it
  void* carried;                 // what torch kept with the code object; else null
  std::vector<PyObject*> dicts;  // owned: the locals of the lookups that were running
};

// Never destroyed: code objects may die until the process ends.
std::vector<Kept>& all_kept() {
  static auto* const kept = new std::vector<Kept>();
  return *kept;
}

freefunc torchs_free = nullptr;

void keep(PyObject* object, void* carried) {
  Kept kept{Py_NewRef(object), carried, {}};
  for (Running::One* one = Running::first; one != nullptr; one = one->next)
    kept.dicts.push_back(Py_NewRef(one->locals));
  all_kept().push_back(std::move(kept));
  Running::some_are_kept = true;
}

void release(Kept& kept) {
  if (kept.carried != nullptr) torchs_free(kept.carried);
  for (PyObject* dict : kept.dicts) Py_DECREF(dict);
  Py_DECREF(kept.object);
}

// What torch keeps with a code object begins with a pointer to it.
PyObject* code_of(void* carried) { return *static_cast<PyObject**>(carried); }

// Frees what torch kept with a code object, at once if no lookup runs. At once, too, if the code object itself is
// dying: then no frame evaluates it.
void free_carried(void* carried) {
  if (carried != nullptr && Running::first != nullptr && Py_REFCNT(code_of(carried)) > 0) {
    keep(code_of(carried), carried);
  } else {
    torchs_free(carried);
  }
}

}  // namespace

void Running::free_what_is_over() {
  std::vector<Kept>& kept = all_kept();
  std::unordered_map<PyObject*, Py_ssize_t> ours;
  for (const Kept& one : kept) {
    for (PyObject* dict : one.dicts) ours[dict]++;
  }
  const auto goes_on = [&](const Kept& one) {
    return std::any_of(one.dicts.begin(), one.dicts.end(),
                       [&](PyObject* dict) { return Py_REFCNT(dict) > ours[dict]; });
  };
  const auto over = std::partition(kept.begin(), kept.end(), goes_on);
  std::vector<Kept> released(std::make_move_iterator(over), std::make_move_iterator(kept.end()));
  kept.erase(over, kept.end());
  some_are_kept = !kept.empty();
  for (Kept& one : released) release(one);  // may run code of a user's, which may have more kept
}

void outlive(PyObject* object) {
  if (Running::first != nullptr) keep(object, nullptr);
}

bool outlive_what_code_carries(PyObject* code) {
  if (torchs_free != nullptr) return true;
  const Py_ssize_t index = cpython::only_extra_of(code);
  if (index < 0 || code_of(cpython::extra_of(code, index)) != code) return false;
  freefunc* slot = cpython::extra_free_slot(index);
  if (slot == nullptr || *slot == nullptr) return false;
  torchs_free = std::exchange(*slot, free_carried);
  return true;
}

}  // namespace unified_guards
