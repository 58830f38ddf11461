// Building a Program; running one is in evaluate.cpp.
#include "program/program.h"

#include "witness/witness.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace unified_guards {

Counts total_counts;

namespace {
constexpr size_t kSpecsToCompare = 64, kMostAsked = 64;
}

Program::Program() = default;

void Program::keep_witnesses() { witnesses_ = std::make_unique<Witnesses>(*this); }

Program::~Program() {
  witnesses_.reset();
  for (PyObject* constant : constants_) Py_DECREF(constant);
}

void Program::add(Op op, uint16_t base, uint32_t arg, PyObject* object, uint64_t number) {
  if (op >= Op::kCount) throw std::invalid_argument("no such instruction");
  if (base >= size_.registers) throw std::invalid_argument("an instruction reads a register that nothing wrote");
  if (is_accessor(op)) {
    size_.registers = std::max<uint32_t>(size_.registers, base + 2u);
    size_.owned++;
  }
  switch (op) {
    case Op::TENSOR:
      if (arg >= tensors_.size()) throw std::invalid_argument("no such tensor");
      needs_dispatch_ = true;
      break;
    case Op::DISPATCH_KEYS: needs_dispatch_ = true; break;
    case Op::UNIQUE:
    case Op::UNIQUE_STORAGE: size_.unique++; break;
    case Op::SAVE: size_.saved = std::max(size_.saved, arg + 1); break;
    case Op::SAME_AS:
    case Op::SHARES_STORAGE:
      if (arg >= size_.saved) throw std::invalid_argument("no such slot");
      break;
    case Op::READ_SIZE:
    case Op::READ_STRIDE:
    case Op::READ_OFFSET:
    case Op::READ_INT:
    case Op::READ_FLOAT: size_.read = std::max(size_.read, arg + 1); break;
    case Op::SHAPES:
      if (!shapes_ || size_.read > shapes_->leaves()) throw std::invalid_argument("no shape code for what was read");
      break;
    case Op::GATHER: size_.gathered++; break;
    case Op::SHAPE_INT: size_.ints = std::max(size_.ints, arg + 1); break;
    case Op::SHAPE_FLOAT: size_.floats = std::max(size_.floats, arg + 1); break;
    default: break;
  }
  if (object != Py_None) {
    Py_INCREF(object);
    constants_.push_back(object);
  }
  code_.push_back({op, kNothing, base, arg, object, number});
}

uint32_t Program::add_tensor(TensorSpec spec, const std::vector<int64_t>& dims) {
  if (dims.size() != 2u * spec.rank) throw std::invalid_argument("a tensor needs one size and one stride a dimension");
  // Layers repeat each other: what stands here once is in the cache when the next of them asks for it.
  for (size_t back = 1; back <= std::min<size_t>(tensors_.size(), kSpecsToCompare); back++) {
    const size_t at = tensors_.size() - back;
    spec.dims = tensors_[at].dims;
    if (spec == tensors_[at] && std::equal(dims.begin(), dims.end(), dims_.begin() + spec.dims)) {
      return static_cast<uint32_t>(at);
    }
  }
  spec.dims = static_cast<uint32_t>(dims_.size());
  dims_.insert(dims_.end(), dims.begin(), dims.end());
  tensors_.push_back(spec);
  return static_cast<uint32_t>(tensors_.size() - 1);
}

void Program::set_shapes(ShapeCode code) {
  if (shapes_) throw std::invalid_argument("a program has one shape code");
  shapes_.emplace(std::move(code));
}

void Program::finish() {
  if (size_.read > (shapes_ ? shapes_->leaves() : 0)) throw std::invalid_argument("no shape code for what was read");
  check_gathered();
  merge();
  scratch_ = make_scratch();
  hints_.resize(code_.size());
  find_root();
  find_places();
}

void Program::check_gathered() const {
  const auto rows = std::count_if(code_.begin(), code_.end(), [](const auto& i) { return i.op == Op::GATHER; });
  std::vector<bool> found(static_cast<size_t>(rows));
  for (const Instruction& i : code_) {
    if (i.op != Op::GATHER) continue;
    if (i.arg >= found.size() || found[i.arg]) throw std::invalid_argument("an index is missing from what is gathered");
    found[i.arg] = true;
  }
}

void Program::merge() {
  std::vector<Instruction> merged;
  merged.reserve(code_.size());
  for (uint32_t i = 0; i < code_.size(); i++) {
    const Instruction& next = code_[i];
    const bool simple = next.op == Op::TYPE_IS || next.op == Op::IS;
    if (simple && !merged.empty()) {
      Instruction& last = merged.back();
      if (is_accessor(last.op) && last.also == kNothing && last.base + 1 == next.base) {
        last.also = next.op == Op::TYPE_IS ? kTypeIs : kIs;
        last.number = next.number;
        continue;
      }
    }
    merged.push_back(next);
    origins_.push_back(i);
  }
  merged.shrink_to_fit();
  code_ = std::move(merged);
}

int Program::traverse(visitproc visit, void* arg) const {
  for (PyObject* constant : constants_) Py_VISIT(constant);
  return 0;
}

namespace {

// What an instruction needs to know of its base.
uint8_t need_of(const Instruction& i) {
  switch (i.op) {
    case Op::TYPE_IS:
    case Op::TYPE:
    case Op::GENERIC_DICT:
    case Op::TYPE_DICT:
    case Op::TYPE_MRO:
    case Op::FUNC_DEFAULTS:
    case Op::FUNC_KWDEFAULTS:
    case Op::FUNC_CODE:
    case Op::FUNC_CLOSURE:
    case Op::WEAKREF_CALL:
    case Op::GRAD: return kNeedsType;
    case Op::DICT_ITEM:
    case Op::GLOBAL_WEAKREF:
    case Op::DICT_KEY_AT:
    case Op::DICT_VALUE_AT:
    case Op::DICT_LENGTH:
    case Op::DICT_CONTAINS:
    case Op::KEYS:
    case Op::MAPPING_KEYS:
    case Op::DICT_VERSION: return kNeedsVersion;
    case Op::ITEM: return kNeedsVersion | kNeedsItems;
    case Op::ATTR:
    case Op::NO_ATTR: return kNeedsAttrs;
    case Op::LIST_ITEM:
    case Op::TUPLE_ITEM:
    case Op::LENGTH:
    case Op::LENGTH_OR_SET: return kNeedsItems;
    default: return 0;
  }
}

}  // namespace

void Program::find_places() {
  std::vector<uint32_t> path{0};  // the accessor that wrote each register, one past it; the frame for register 0
  places_.resize(code_.size());
  const auto close = [&](size_t depth, uint32_t at) {
    for (; path.size() > depth; path.pop_back()) places_[path.back() - 1].end = at;
  };
  for (uint32_t at = 0; at < code_.size(); at++) {
    const Instruction& i = code_[at];
    close(i.base + 1u, at);
    if (i.base >= path.size()) throw std::invalid_argument("an instruction reads a register of another path");
    const uint32_t above = path[i.base];
    places_[at].parent = above == 0 ? at : above - 1;
    places_[at].end = at + 1;
    if (above != 0) places_[above - 1].needs |= need_of(i);
    if (!is_accessor(i.op)) continue;
    if (i.also == kTypeIs) places_[at].needs |= kNeedsType;
    path.push_back(at + 1);
  }
  close(1, static_cast<uint32_t>(code_.size()));
}

void Program::find_root() {
  size_t most = 0;
  for (size_t i = 0; i < code_.size();) {
    size_t next = i + 1;
    // Objects with attributes come back (a module); tensors, tuples and numbers are new on every call.
    bool has_attributes = false;
    for (; next < code_.size() && code_[next].base > 0; next++) {
      const Op op = code_[next].op;
      has_attributes |= code_[next].base == 1 && (op == Op::GENERIC_DICT || op == Op::ATTR);
    }
    if (code_[i].op == Op::DICT_ITEM && has_attributes && next - i > most) {
      most = next - i;
      root_name_ = code_[i].object;
    }
    i = next;
  }
}

// The object that hints and witnesses are about.
const void* Program::root(PyObject* locals) {
  return root_name_ ? cpython::find_purely(locals, root_name_, root_slot_).value : nullptr;
}

Scratch Program::make_scratch() const {
  Scratch scratch;
  scratch.registers.resize(size_.registers);
  scratch.paths.resize(size_.registers, 1);
  scratch.owned.reserve(size_.owned);
  scratch.asked.reserve(code_.size() < kMostAsked ? code_.size() : kMostAsked);
  scratch.saved.resize(size_.saved);
  scratch.gathered.resize(size_.gathered);
  scratch.unique.clear(size_.unique);
  scratch.ints.resize(size_.ints);
  scratch.floats.resize(size_.floats);
  if (shapes_) scratch.numbers = shapes_->make_registers();
  return scratch;
}

size_t Program::bytes() const {
  return sizeof(Program) + code_.capacity() * sizeof(Instruction) + places_.capacity() * sizeof(Place) +
         origins_.capacity() * sizeof(uint32_t) + constants_.capacity() * sizeof(PyObject*) +
         tensors_.capacity() * sizeof(TensorSpec) + dims_.capacity() * sizeof(int64_t) +
         scratch_.registers.capacity() * (sizeof(PyObject*) + sizeof(uint16_t)) +
         (scratch_.owned.capacity() + scratch_.saved.capacity() + scratch_.gathered.capacity()) * sizeof(PyObject*) +
         scratch_.unique.bytes() + scratch_.ints.capacity() * sizeof(int64_t) +
         scratch_.floats.capacity() * sizeof(double) + (shapes_ ? shapes_->bytes() : 0) + hints_.bytes() +
         (witnesses_ ? witnesses_->bytes() : 0);
}

}  // namespace unified_guards
