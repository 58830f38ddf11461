// From the rows that lower/rows.py makes to a Program.
#pragma once

#include "program/program.h"

namespace unified_guards {

// `rows` is a list of (op, base, arg, object, number); a TENSOR row holds its facts as the object. Throws
// std::invalid_argument on rows that are not legal, pybind11::error_already_set on values of wrong types.
void add_rows(Program& program, PyObject* rows);

}  // namespace unified_guards
