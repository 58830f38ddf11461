// From the rows that lower/rows.py makes to a Program. Entry point: program_of().
#pragma once

#include "program/program.h"

namespace unified_guards {

// `rows` is a list of (op, base, arg, object, number). The object of a TENSOR row is what the tensor must be. Throws
// std::invalid_argument on rows that are not legal, pybind11::error_already_set on values of wrong types.
Program program_of(PyObject* rows);

}  // namespace unified_guards
