// See vouched.h.
#include "call/vouched.h"

#include "cpython/pure.h"

#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>

namespace unified_guards {
namespace {

// Whether the attribute is the gradient of a tensor, and torch's own descriptor reads it: as the accessor does.
bool is_gradient(PyTypeObject* type, PyObject* name) {
  if (!THPVariable_CheckTypeExact(type) || PyUnicode_CompareWithASCIIString(name, "grad") != 0) return false;
  if (!cpython::looks_up_purely(type) || !cpython::plain_attribute_access(type)) return false;
  PyObject* found = _PyType_Lookup(type, name);
  return found != nullptr && Py_TYPE(found) == &PyGetSetDescr_Type && cpython::is_built_in(PyDescr_TYPE(found));
}

// How often what was taken may turn out to be something else, before nothing is taken any more.
constexpr int kMostFailures = 8;
// How many inputs ahead an object is fetched into the cache.
constexpr size_t kAhead = 8;

}  // namespace

void Vouched::set(const Program& program, const std::vector<std::vector<int64_t>>& rows) {
  is_vouched_.assign(rows.size(), false);
  for (size_t at = 0; at < rows.size(); at++) {
    std::vector<uint32_t> instructions;
    for (const int64_t row : rows[at]) {
      const auto found = std::lower_bound(program.origins.begin(), program.origins.end(), row);
      if (found == program.origins.end() || *found != row) break;
      instructions.push_back(static_cast<uint32_t>(found - program.origins.begin()));
    }
    if (instructions.empty() || instructions.size() != rows[at].size()) continue;
    is_vouched_[at] = true;
    inputs_.push_back({static_cast<uint32_t>(at), instructions.front()});
    for (size_t next = 1; next < instructions.size(); next++) on_the_way_.push_back({instructions[next], nullptr});
  }
  const auto is_less = [](const OnTheWay& a, const OnTheWay& b) { return a.instruction < b.instruction; };
  const auto is_same = [](const OnTheWay& a, const OnTheWay& b) { return a.instruction == b.instruction; };
  std::sort(on_the_way_.begin(), on_the_way_.end(), is_less);
  on_the_way_.erase(std::unique(on_the_way_.begin(), on_the_way_.end(), is_same), on_the_way_.end());
}

bool Vouched::take(const std::vector<PyObject*>* found, Inputs& inputs) {
  if (inputs_.empty() || found == nullptr) return false;
  bool has_all = true;
  for (size_t at = 0; at < inputs_.size(); at++) {
    // The check has not touched the objects themselves.
    if (at + kAhead < inputs_.size()) __builtin_prefetch((*found)[inputs_[at + kAhead].instruction], 1);
    PyObject* value = (*found)[inputs_[at].instruction];
    inputs.set(inputs_[at].at, value);
    has_all = has_all && value != nullptr;
  }
  if (has_all) {
    compare_classes(*found);
  } else {
    drop_evaluated(*found);
  }
  return has_all;
}

void Vouched::compare_classes(const std::vector<PyObject*>& found) {
  for (OnTheWay& one : on_the_way_) {
    PyObject* object = found[one.instruction];
    PyTypeObject* type = object != nullptr ? Py_TYPE(object) : nullptr;
    if (type != nullptr && type == one.type) [[likely]]
      continue;
    one.type = type;
    is_learnt_ = false;
  }
}

// What is new on every call is evaluated on every check. It is read by the plan from now on.
void Vouched::drop_evaluated(const std::vector<PyObject*>& found) {
  const auto is_evaluated = [&](const Input& input) { return found[input.instruction] == nullptr; };
  for (const Input& input : inputs_) is_vouched_[input.at] = !is_evaluated(input);
  inputs_.erase(std::remove_if(inputs_.begin(), inputs_.end(), is_evaluated), inputs_.end());
}

void Vouched::forget() {
  inputs_.clear();
  is_vouched_.clear();
  on_the_way_.clear();
}

bool Vouched::is_known() const {
  return is_learnt_ && std::all_of(classes_.begin(), classes_.end(),
                                   [](const Class& known) { return known.type->tp_version_tag == known.version; });
}

void Vouched::begin_to_learn() {
  classes_.clear();
  is_learnt_ = is_doubtful_ = false;
}

void Vouched::learn(PyObject* base, PyObject* name) {
  if (name == nullptr) {
    is_doubtful_ |= !PyDict_CheckExact(base) && !PyTuple_CheckExact(base) && !PyList_CheckExact(base);
    return;
  }
  PyTypeObject* type = Py_TYPE(base);
  const bool is_found = attributes_are_of_instance(type, name) || is_gradient(type, name);
  is_doubtful_ |= !is_found || cpython::type_version_word(type) == nullptr;
  const bool is_new =
      std::none_of(classes_.begin(), classes_.end(), [type](const Class& known) { return known.type == type; });
  if (is_new && !is_doubtful_) classes_.push_back({type, type->tp_version_tag});
}

void Vouched::end_to_learn(bool are_same) {
  is_learnt_ = are_same && !is_doubtful_;
  if (!is_learnt_ && ++failures_ >= kMostFailures) forget();
}

}  // namespace unified_guards
