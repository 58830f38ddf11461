// Building a Program. Running one is in check/evaluate.cpp.
#include "program/program.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace unified_guards {

namespace {

constexpr size_t kSpecsToCompare = 64;

void grow(uint32_t& size, uint32_t arg) { size = std::max(size, arg + 1); }

void require(bool is_legal, const char* otherwise) {
  if (!is_legal) throw std::invalid_argument(otherwise);
}

}  // namespace

int Program::traverse(visitproc visit, void* arg) const {
  for (const Ref& constant : constants) Py_VISIT(constant.get());
  return 0;
}

size_t Program::bytes() const {
  return code.capacity() * sizeof(Instruction) + tree.capacity() * sizeof(TreePosition) +
         origins.capacity() * sizeof(uint32_t) + constants.capacity() * sizeof(Ref) +
         tensors.capacity() * sizeof(TensorSpec) + dims.capacity() * sizeof(int64_t) + (shapes ? shapes->bytes() : 0);
}

void ProgramBuilder::add(Op op, uint16_t base, uint32_t arg, PyObject* object, uint64_t number) {
  require(op < Op::kCount, "no such instruction");
  require(base < program_.size.registers, "an instruction reads a register that nothing wrote");
  if (is_accessor(op)) {
    grow(program_.size.registers, base + 1u);
    program_.size.owned++;
  }
  if (op == Op::TENSOR || op == Op::DISPATCH_KEYS) program_.needs_dispatch = true;
  make_room(op, arg);
  if (object != Py_None) program_.constants.emplace_back(Py_NewRef(object));
  program_.code.push_back({op, Merged::kNone, base, arg, object, number});
}

// Makes room for what an instruction writes, and requires that what it reads is there.
void ProgramBuilder::make_room(Op op, uint32_t arg) {
  ProgramSize& size = program_.size;
  switch (traits_of(op).arg) {
    case Arg::kTensor: require(arg < program_.tensors.size(), "no such tensor"); break;
    case Arg::kGroup: size.unique++; break;
    case Arg::kWrittenSlot: grow(size.saved, arg); break;
    case Arg::kReadSlot: require(arg < size.saved, "no such slot"); break;
    case Arg::kRegister: grow(size.read, arg); break;
    case Arg::kShapes:
      require(program_.shapes && size.read <= program_.shapes->leaves(), "no shape code for what was read");
      break;
    case Arg::kInt: grow(size.ints, arg); break;
    case Arg::kFloat: grow(size.floats, arg); break;
    case Arg::kNothing:
    case Arg::kHint:
    case Arg::kIndex:
    case Arg::kLength:
    case Arg::kTruth: break;
  }
}

uint32_t ProgramBuilder::add_tensor(TensorSpec spec, const std::vector<int64_t>& dims) {
  require(dims.size() == 2u * spec.rank, "a tensor needs one size and one stride a dimension");
  std::vector<TensorSpec>& tensors = program_.tensors;
  // Layers repeat each other. A spec that stands here only once is in the cache already when the next layer needs it.
  for (size_t back = 1; back <= std::min(tensors.size(), kSpecsToCompare); back++) {
    const size_t at = tensors.size() - back;
    spec.dims = tensors[at].dims;
    if (spec == tensors[at] && std::equal(dims.begin(), dims.end(), program_.dims.begin() + spec.dims)) {
      return static_cast<uint32_t>(at);
    }
  }
  spec.dims = static_cast<uint32_t>(program_.dims.size());
  program_.dims.insert(program_.dims.end(), dims.begin(), dims.end());
  tensors.push_back(spec);
  return static_cast<uint32_t>(tensors.size() - 1);
}

void ProgramBuilder::set_shapes(ShapeCode code) {
  require(!program_.shapes, "a program has one shape code");
  program_.shapes.emplace(std::move(code));
}

Program ProgramBuilder::finish() {
  require(program_.size.read <= (program_.shapes ? program_.shapes->leaves() : 0), "no shape code for what was read");
  merge();
  find_root();
  find_tree();
  return std::move(program_);
}

void ProgramBuilder::merge() {
  std::vector<Instruction> kept;
  kept.reserve(program_.code.size());
  for (uint32_t row = 0; row < program_.code.size(); row++) {
    const Instruction& next = program_.code[row];
    if ((next.op == Op::TYPE_IS || next.op == Op::IS) && !kept.empty()) {
      Instruction& last = kept.back();
      if (is_accessor(last.op) && last.merged == Merged::kNone && last.base + 1 == next.base) {
        last.merged = next.op == Op::TYPE_IS ? Merged::kTypeIs : Merged::kIs;
        last.number = next.number;
        continue;
      }
    }
    kept.push_back(next);
    program_.origins.push_back(row);
  }
  kept.shrink_to_fit();
  program_.code = std::move(kept);
}

void ProgramBuilder::find_tree() {
  const std::vector<Instruction>& code = program_.code;
  std::vector<TreePosition>& tree = program_.tree;
  std::vector<uint32_t> path{0};  // by register: the accessor that wrote it, plus one; 0 for the frame
  tree.resize(code.size());
  const auto close = [&](size_t depth, uint32_t at) {
    for (; path.size() > depth; path.pop_back()) tree[path.back() - 1].end = at;
  };
  for (uint32_t at = 0; at < code.size(); at++) {
    const Instruction& i = code[at];
    close(i.base + 1u, at);
    require(i.base < path.size(), "an instruction reads a register of another path");
    const uint32_t above = path[i.base];
    tree[at].parent = above == 0 ? at : above - 1;
    tree[at].end = at + 1;
    if (above != 0) tree[above - 1].needs |= traits_of(i.op).needs;
    if (!is_accessor(i.op)) continue;
    if (i.merged == Merged::kTypeIs) tree[at].needs |= kNeedsType;
    path.push_back(at + 1);
  }
  close(1, static_cast<uint32_t>(code.size()));
}

void ProgramBuilder::find_root() {
  const std::vector<Instruction>& code = program_.code;
  size_t most = 0;
  for (size_t i = 0; i < code.size();) {
    size_t next = i + 1;
    // An object with attributes comes back on the next call (a module). Tensors, tuples and numbers are new each time.
    bool has_attributes = false;
    for (; next < code.size() && code[next].base > 0; next++) {
      const Op op = code[next].op;
      has_attributes |= code[next].base == 1 && (op == Op::GENERIC_DICT || op == Op::ATTR);
    }
    if (code[i].op == Op::DICT_ITEM && has_attributes && next - i > most) {
      most = next - i;
      program_.root_name = code[i].object;
    }
    i = next;
  }
}

}  // namespace unified_guards
