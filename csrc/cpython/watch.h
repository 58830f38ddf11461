// The word that tells that a dict has changed. Entry point: dict_version_word().
//
// Up to Python 3.11 it is the dict's version tag. Later dicts are watched: the interpreter calls us before a change,
// and a counter moves. The counters lie together, so that asking whether a thousand dicts are as they were reads a few
// cache lines and none of the dicts.
#pragma once

#include "cpython/cpython.h"

namespace unified_guards {

// The word that says that `dict` is as it is now; null when there is no way to tell. Reading it again never needs the
// dict to be alive.
cpython::Word dict_version_word(PyObject* dict);

// Whether dict_version_word() can answer: on Python 3.12 and newer one of the eight dict watchers must be free, and the
// interpreter must tell of every change (3.13.0 does not). Finds out on the first call.
bool dicts_are_versioned();

}  // namespace unified_guards
