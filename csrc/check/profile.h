// What each instruction of a checker costs, measured on one frame: for reading, never part of a check.
#pragma once

#include "check/checker.h"

#include <cstdint>
#include <vector>

namespace unified_guards {

// Nanoseconds, each the least of several passes one right after the other: memory is in the cache.
struct Costs {
  struct Row {
    int64_t row;  // see Checker::last_failure
    double ns;
  };
  double check_ns = 0;    // a whole check, by the witness where there are facts
  double exact_ns = 0;    // a whole check of the exact tier
  std::vector<Row> rows;  // each instruction evaluated alone, less what reading the clock takes; empty when one failed
};

// Checks `locals` again and again; user code in guards runs each time, too. Leaves every count as it was.
Costs profile(Checker& checker, PyObject* locals, uint32_t passes);

}  // namespace unified_guards
