// Equality that Python's == does not give: the same types all the way down, and floats bit by bit.
#pragma once

#include "cpython/cpython.h"

namespace unified_guards {

// Whether two float or complex objects of one exact type are the same bit by bit; false for everything else.
bool same_bits(PyObject* found, PyObject* expected);

// Whether `found` is `expected`, or of the same exact type with the same contents: items of tuples, lists and slices in
// order, items of dicts in order, members of sets in any order, floats bit by bit; other objects are asked for ==,
// which may run Python. Never leaves an error set: one of any kind, too deep a nesting among them, is false.
bool deep_equals(PyObject* found, PyObject* expected);

}  // namespace unified_guards
