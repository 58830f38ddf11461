// Torch's own list of the cache entries of a code object, read where torch keeps it. So an entry that torch has
// invalidated, removed or replaced is gone here at the same moment, and the order is torch's. Entry points:
// entries_of(), move_to_front().
//
// The layout is that of the headers of the torch that this is compiled against (torch/csrc/dynamo/extra_state.h); an
// extension that was built for another torch is not loaded.
#pragma once

#include "call/state.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <torch/csrc/dynamo/cache_entry.h>
#include <torch/csrc/dynamo/extra_state.h>

#include <cstdint>
#include <list>

namespace unified_guards {

using CacheEntries = std::list<CacheEntry>;

struct FoundEntries {
  Why why;                // kNone where there are entries to ask
  CacheEntries* entries;  // of the region; borrowed from the code object
};

// The index under which code objects carry what torch keeps; -1 until it is known.
extern Py_ssize_t torchs_index;

// The entries that a lookup of torch's would ask for this code, in a region of recompilation (-1: the common one).
FoundEntries entries_of(PyObject* code, int64_t region);

// As torch does on a hit: the entry is asked first from now on.
inline void move_to_front(CacheEntries& entries, CacheEntries::iterator at) {
  if (at != entries.begin()) entries.splice(entries.begin(), entries, at);
}

}  // namespace unified_guards
