// How the result of a call is made of the outputs of its graph. Entry point: Rebuild.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace unified_guards {

// Every kind of step: what `count` and `object` mean to it. Steps are in prefix order.
#define UG_REBUILD(X)                                                          \
  X(LEAF)     /* count: index in the flat list                              */ \
  X(CONSTANT) /* object: the value                                          */ \
  X(TUPLE)    /* count: of the children that follow                         */ \
  X(LIST)     /* count: of the children that follow                         */ \
  X(DICT)     /* object: tuple of `count` keys, one for each child          */ \
  X(GIVEN)    /* count: index in what the caller gives beside that list     */

enum class Step : uint8_t {
#define UG_STEP(name) name,
  UG_REBUILD(UG_STEP)
#undef UG_STEP
      kCount
};

class Rebuild {
 public:
  Rebuild() = default;
  Rebuild(const Rebuild&) = delete;
  ~Rebuild();

  // `steps` is a list of (kind, count, object). False with a Python error set when it is not one tree.
  bool set(PyObject* steps);

  // The result made of `flat`, a list or tuple that is at least as long as leaves() says: a new reference, or null with
  // an error set. `given` is as long as needs() says.
  PyObject* run(PyObject* flat, PyObject* const* given) const;

  // How long the list has to be, and whether an item of it is used.
  Py_ssize_t leaves() const { return leaves_; }
  bool has_leaf(Py_ssize_t index) const;

  // How many objects have to be given.
  size_t needs() const { return given_; }

  int traverse(visitproc visit, void* arg) const;

 private:
  friend class Builder;
  struct One {
    Step kind;
    uint32_t count;
    PyObject* object;  // owned; null where the kind has none
  };

  bool add(PyObject* step);

  std::vector<One> steps_;
  Py_ssize_t leaves_ = 0;  // how long the flat list must be
  size_t given_ = 0;
};

}  // namespace unified_guards
