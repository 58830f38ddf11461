// See facts.h.
#include "witness/facts.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace unified_guards {

FactsMoved facts_moved;

bool KnownTypes::add(PyTypeObject* type) {
  if (cpython::is_built_in(type)) return true;
  const bool is_known =
      std::any_of(types_.rbegin(), types_.rend(), [&](const Known& known) { return known.type == type; });
  if (is_known) return true;
  const bool collects = PyGC_Disable() != 0;  // making an object may start a collection, which runs finalizers
  PyObject* reference = PyWeakref_NewRef(reinterpret_cast<PyObject*>(type), nullptr);
  if (collects) PyGC_Enable();
  if (reference == nullptr) {
    PyErr_Clear();
    return false;
  }
  types_.push_back({type, reference});
  return true;
}

void Facts::finish() {
  static constexpr uint64_t nothing = 0;
  sort_tensors();
  facts.resize(count() + kAhead, {&nothing, 0});
  auto* nowhere = static_cast<PyObject*>(Py_None);
  tensors.resize(tensor_count() + kTensorsAhead, {nowhere, nowhere, nowhere, 0, 0, 0});
}

// Sorts the tensors into runs of one kind each: the loop over a run then takes the same branches again and again.
void Facts::sort_tensors() {
  const size_t count = tensor_count();
  const auto kind = [&](uint32_t at) {
    const TensorFact& tensor = tensors[at];
    return std::tuple(uint32_t{tensor.spec}, tensor.type_version, uint32_t{tensor.is_bare});
  };
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return kind(a) < kind(b); });
  std::vector<TensorFact> sorted;
  std::vector<uint32_t> sorted_owners;
  for (const uint32_t at : order) {
    if (!sorted.empty() && !are_alike(sorted.back(), tensors[at])) runs.push_back(static_cast<uint32_t>(sorted.size()));
    remembered[tensor_owners[at]].first = static_cast<uint32_t>(sorted.size());
    sorted.push_back(tensors[at]);
    sorted_owners.push_back(tensor_owners[at]);
  }
  if (count != 0) runs.push_back(static_cast<uint32_t>(count));
  tensors = std::move(sorted);
  tensor_owners = std::move(sorted_owners);
}

uint32_t Facts::note_dict_moved(uint32_t at) {
  for (DictMoved& moved : dict_moved) {
    if (moved.at != at) continue;
    if (moved.check != checks) moved.in_a_row = moved.check + 1 == checks ? moved.in_a_row + 1 : 1;
    moved.check = checks;
    return moved.in_a_row;
  }
  dict_moved.push_back({at, 1, checks});
  return 1;
}

bool Facts::has(uint32_t at, FactKind kind) const {
  for (size_t fact = remembered[at].first; fact < count() && owners[fact] == at; fact++) {
    if (kinds[fact] == kind) return true;
  }
  return false;
}

}  // namespace unified_guards
