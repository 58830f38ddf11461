// See rebuild.h.
#include "call/rebuild.h"

#include <algorithm>

namespace unified_guards {
namespace {

// How deep steps may nest: Builder recurses.
constexpr size_t kDeepest = 1000;

bool refuse(const char* why) {
  PyErr_SetString(PyExc_ValueError, why);
  return false;
}

bool has_children(Step kind) { return kind == Step::TUPLE || kind == Step::LIST || kind == Step::DICT; }

bool keys_fit(PyObject* keys, long count) {
  if (!PyTuple_CheckExact(keys) || PyTuple_GET_SIZE(keys) != count) return refuse("a DICT has one key for each child");
  for (Py_ssize_t i = 0; i < count; i++) {
    if (PyObject_Hash(PyTuple_GET_ITEM(keys, i)) == -1) return false;
  }
  return true;
}

bool object_fits(Step kind, long count, PyObject* object) {
  switch (kind) {
    case Step::CONSTANT: return count == 0 || refuse("a CONSTANT has no count");
    case Step::DICT: return keys_fit(object, count);
    default: return object == Py_None || refuse("a LEAF, TUPLE or LIST has no object");
  }
}

}  // namespace

Rebuild::~Rebuild() {
  for (const One& step : steps_) Py_XDECREF(step.object);
}

bool Rebuild::add(PyObject* step) {
  if (!PyTuple_CheckExact(step) || PyTuple_GET_SIZE(step) != 3) return refuse("a step has three fields");
  const long kind = PyLong_AsLong(PyTuple_GET_ITEM(step, 0));
  const long count = PyLong_AsLong(PyTuple_GET_ITEM(step, 1));
  if (PyErr_Occurred()) return false;
  if (kind < 0 || kind >= static_cast<long>(Step::kCount)) return refuse("no such kind of step");
  if (count < 0 || count > INT32_MAX) return refuse("a count is out of range");
  PyObject* object = PyTuple_GET_ITEM(step, 2);
  const One one{static_cast<Step>(kind), static_cast<uint32_t>(count), object};
  if (!object_fits(one.kind, count, object)) return false;
  steps_.push_back(one);
  Py_INCREF(object);
  if (one.kind == Step::GIVEN) given_ = std::max<size_t>(given_, count + 1);
  if (one.kind == Step::LEAF) leaves_ = std::max<Py_ssize_t>(leaves_, count + 1);
  return true;
}

bool Rebuild::set(PyObject* steps) {
  if (!PyList_Check(steps)) return refuse("steps are a list");
  std::vector<uint32_t> missing{1};  // how many children each step that is open still waits for
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(steps); i++) {
    if (!add(PyList_GET_ITEM(steps, i))) return false;
    if (missing.empty()) return refuse("a step follows the last one");
    missing.back()--;
    if (has_children(steps_.back().kind)) missing.push_back(steps_.back().count);
    if (missing.size() > kDeepest) return refuse("the steps nest too deeply");
    while (!missing.empty() && missing.back() == 0) missing.pop_back();
  }
  return missing.empty() || refuse("a step is missing");
}

// One run over the steps.
class Builder {
 public:
  Builder(const Rebuild& rebuild, PyObject* flat, PyObject* const* given)
      : next_(rebuild.steps_.data()), flat_(flat), given_(given) {}

  // The object of the next step and all below it: a new reference, or null with an error set.
  PyObject* build() {
    const Rebuild::One& step = *next_++;
    switch (step.kind) {
      case Step::LEAF: return leaf(step.count);
      case Step::GIVEN: return Py_NewRef(given_[step.count]);
      case Step::CONSTANT: return Py_NewRef(step.object);
      case Step::TUPLE: return tuple(step.count);
      case Step::LIST: return list(step.count);
      default: return dict(step.object);
    }
  }

 private:
  PyObject* leaf(uint32_t index) { return Py_NewRef(PySequence_Fast_GET_ITEM(flat_, index)); }

  PyObject* tuple(uint32_t count) {
    PyObject* made = PyTuple_New(count);
    for (uint32_t i = 0; made != nullptr && i < count; i++) {
      PyObject* child = build();
      if (child == nullptr)
        Py_CLEAR(made);
      else
        PyTuple_SET_ITEM(made, i, child);
    }
    return made;
  }

  PyObject* list(uint32_t count) {
    PyObject* made = PyList_New(count);
    for (uint32_t i = 0; made != nullptr && i < count; i++) {
      PyObject* child = build();
      if (child == nullptr)
        Py_CLEAR(made);
      else
        PyList_SET_ITEM(made, i, child);
    }
    return made;
  }

  PyObject* dict(PyObject* keys) {
    PyObject* made = PyDict_New();
    for (Py_ssize_t i = 0; made != nullptr && i < PyTuple_GET_SIZE(keys); i++) {
      PyObject* child = build();
      if (child == nullptr || PyDict_SetItem(made, PyTuple_GET_ITEM(keys, i), child) < 0) Py_CLEAR(made);
      Py_XDECREF(child);
    }
    return made;
  }

  const Rebuild::One* next_;
  PyObject* flat_;
  PyObject* const* given_;
};

PyObject* Rebuild::run(PyObject* flat, PyObject* const* given) const { return Builder(*this, flat, given).build(); }

bool Rebuild::has_leaf(Py_ssize_t index) const {
  return std::any_of(steps_.begin(), steps_.end(), [&](const One& step) {
    return step.kind == Step::LEAF && static_cast<Py_ssize_t>(step.count) == index;
  });
}

int Rebuild::traverse(visitproc visit, void* arg) const {
  for (const One& step : steps_) Py_VISIT(step.object);
  return 0;
}

}  // namespace unified_guards
