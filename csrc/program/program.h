// A lowered GuardSet: a flat list of instructions over a stack of registers, and its constants. Entry point:
// ProgramBuilder.
//
// Register 0 holds the dict of the frame's locals. An accessor at depth n reads register n and writes register n + 1.
// Parents come before children, so no instruction reads through a pointer that an earlier one has not vouched for.
#pragma once

#include "cpython/cpython.h"
#include "cpython/ref.h"
#include "program/instruction.h"
#include "program/shape_expr.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace unified_guards {

// Where an instruction stands in the tree of accessors.
struct TreePosition {
  uint32_t parent = 0;  // the accessor that made its base; its own index when that is the frame
  uint32_t end = 0;     // of an accessor: one past the last instruction below it
  uint8_t needs = 0;    // of an accessor: what the instructions directly below it need (see Need), or-ed
};

// How much room an evaluation takes.
struct ProgramSize {
  uint32_t registers = 1, owned = 0, saved = 0, unique = 0, ints = 0, floats = 0, read = 0;
};

// Plain data, made by a ProgramBuilder. Evaluations change only hints, which are looked at and not believed: those in
// `arg` (see Arg::kHint), and where the root was last found.
struct Program {
  std::vector<Instruction> code;
  std::vector<uint32_t> origins;   // of each instruction: which row made it
  std::vector<TreePosition> tree;  // of each instruction
  std::vector<Ref> constants;
  std::vector<TensorSpec> tensors;
  std::vector<int64_t> dims;
  std::optional<ShapeCode> shapes;
  ProgramSize size;
  bool needs_dispatch = false;    // whether any instruction compares dispatch key sets
  PyObject* root_name = nullptr;  // borrowed from the constants
  cpython::Slot root_slot = 0;

  // The object that hints and facts are kept for: the local with the most instructions below it. Null where no local
  // is an object with attributes.
  const void* root(PyObject* locals) {
    return root_name != nullptr ? cpython::find_purely(locals, root_name, root_slot).value : nullptr;
  }

  // The row that failed, given the instruction that failed. A guard that was merged into an accessor was the row after
  // the accessor's.
  int64_t row_of(size_t at, bool merged) const { return origins[at] + (merged ? 1 : 0); }

  // Shows the collector every object that the code holds.
  int traverse(visitproc visit, void* arg) const;

  size_t bytes() const;
};

class ProgramBuilder {
 public:
  // Appends an instruction; `object` is None where the operation has none. Throws std::invalid_argument on a code that
  // is not legal.
  void add(Op op, uint16_t base, uint32_t arg, PyObject* object, uint64_t number);

  // Adds a spec, and gives the `arg` of a TENSOR instruction for it. Throws std::invalid_argument unless there are a
  // size and a stride for each dimension.
  uint32_t add_tensor(TensorSpec spec, const std::vector<int64_t>& dims);

  // Sets the shape code: READ_* instructions fill its registers, a SHAPES instruction runs it. Throws
  // std::invalid_argument on a second one.
  void set_shapes(ShapeCode code);

  // Merges accessors with the guards that follow them, and lays out the tree. Call last. Throws std::invalid_argument
  // where numbers are read and nothing reads them.
  Program finish();

 private:
  void make_room(Op op, uint32_t arg);
  void merge();
  void find_root();
  void find_tree();

  Program program_;
};

}  // namespace unified_guards
