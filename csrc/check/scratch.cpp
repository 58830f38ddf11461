// See scratch.h.
#include "check/scratch.h"

#include <algorithm>

namespace unified_guards {

Counts total_counts;

Scratch::Scratch(const Program& program) {
  constexpr size_t kMostAnswers = 64;
  const ProgramSize& size = program.size;
  registers.resize(size.registers);
  paths.resize(size.registers, 1);
  owned.reserve(size.owned);
  answers.reserve(std::min(program.code.size(), kMostAnswers));
  saved.resize(size.saved);
  unique.clear(size.unique);
  ints.resize(size.ints);
  floats.resize(size.floats);
  if (program.shapes) numbers = program.shapes->make_registers();
}

size_t Scratch::bytes() const {
  return registers.capacity() * (sizeof(PyObject*) + sizeof(uint16_t)) +
         (owned.capacity() + saved.capacity()) * sizeof(PyObject*) + unique.bytes() +
         ints.capacity() * sizeof(int64_t) + floats.capacity() * sizeof(double);
}

}  // namespace unified_guards
