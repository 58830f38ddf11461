// What evaluations of a program write, kept between them so that a hit allocates nothing.
#pragma once

#include "check/hints.h"
#include "check/seen.h"
#include "program/program.h"

#include <cstdint>
#include <vector>

namespace unified_guards {

// How often programs were asked, and what they answered.
struct Counts {
  uint64_t hits = 0, misses = 0, python_callbacks = 0;

  uint64_t checks() const { return hits + misses; }
};

// The counts of all programs there have been, together.
extern Counts total_counts;

// What an instruction found that ran code of a user's. The value is null for a guard, and where it had to be dropped.
struct Answer {
  uint32_t at;
  PyObject* value;
};

// The memory of one evaluation. References in it are borrowed where nothing else is said.
struct Scratch {
  explicit Scratch(const Program& program);

  size_t bytes() const;

  std::vector<PyObject*> registers;
  std::vector<uint16_t> paths;   // of each register: the first register of its path that this evaluation has read
  std::vector<PyObject*> owned;  // new references, dropped at the end
  std::vector<Answer> answers;   // in the order of the program
  std::vector<PyObject*> saved;
  SeenTable unique;
  std::vector<int64_t> ints;
  std::vector<double> floats;
  std::vector<Number> numbers;  // the registers of the shape code
};

// What evaluations of one program leave behind beside their verdicts.
struct Journal {
  explicit Journal(const Program& program) : hints(program.code.size()) {}

  Counts counts;
  int64_t last_failure = -1;  // the row at which the last miss stopped; -1 when there was none
  Hints hints;
};

}  // namespace unified_guards
