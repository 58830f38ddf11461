// See plan.h.
#include "call/plan.h"

#include "call/state.h"
#include "cpython/pure.h"

#include <c10/core/GradMode.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/autograd/python_variable.h>

#include <optional>

namespace unified_guards {
namespace {

bool refuse(const char* why) {
  PyErr_SetString(PyExc_ValueError, why);
  return false;
}

// unpack(outputs, count): what the interpreter's own unpacking gives, with its own errors. Null with an error set.
PyObject* unpacker() {
  static constexpr const char* kCode = R"(
def unpack(outputs, count):
    scope = {}
    names = ", ".join(f"o{at}" for at in range(count))
    exec(f"def unpack(outputs):\n    [{names}] = outputs\n    return [{names}]", scope)
    return scope["unpack"](outputs)
)";
  const Ref scope(cpython::scope_of(kCode));
  return scope ? Py_XNewRef(PyDict_GetItemString(scope.get(), "unpack")) : nullptr;
}

}  // namespace

// What was bound, borrowed, and what is read, owned.
class Registers {
 public:
  explicit Registers(const BoundLocals& bound)
      : values_(bound.values.begin(), bound.values.end()), borrowed_(values_.size()) {}
  Registers(const Registers&) = delete;
  ~Registers() {
    for (size_t at = borrowed_; at < values_.size(); at++) Py_XDECREF(values_[at]);
  }

  void make_room(size_t reads) { values_.resize(borrowed_ + reads, nullptr); }

  // Takes a new reference; false where it is null.
  bool set(size_t read, PyObject* value) { return (values_[borrowed_ + read] = value) != nullptr; }

  PyObject* operator[](size_t at) const { return values_[at]; }

 private:
  c10::SmallVector<PyObject*, 64> values_;
  const size_t borrowed_;
};

Plan::Plan(PyObject* globals, const Graph& graph) : globals_(Py_NewRef(globals)), graph_(graph) {
  Py_INCREF(graph_.owner);
  Py_XINCREF(graph_.attribute);
  Py_INCREF(graph_.left_out);
}

Plan::~Plan() {
  for (const Read& read : reads_) Py_DECREF(read.key);
  Py_DECREF(globals_);
  Py_DECREF(graph_.owner);
  Py_XDECREF(graph_.attribute);
  Py_DECREF(graph_.left_out);
}

bool Plan::set(PyObject* reads, PyObject* inputs, PyObject* steps, Py_ssize_t unpacked, size_t locals, size_t kept) {
  if (!PyList_CheckExact(reads) || !PyList_CheckExact(inputs)) return refuse("reads and inputs are lists");
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(reads); at++) {
    if (!add_read(PyList_GET_ITEM(reads, at), locals + reads_.size())) return false;
  }
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(inputs); at++) {
    const size_t input = PyLong_AsSize_t(PyList_GET_ITEM(inputs, at));
    if (PyErr_Occurred()) return false;
    if (input >= locals + reads_.size()) return refuse("an input is read by nobody");
    inputs_.push_back(static_cast<uint32_t>(input));
  }
  if (kept > inputs_.size()) return refuse("more is kept than is read");
  graph_inputs_ = inputs_.size() - kept;
  unpacked_ = unpacked;
  has_rest_ = steps == Py_None;
  locals_ = locals;
  mark_reads();
  if (has_rest_) return true;
  if (!rebuild_.set(steps)) return false;
  return rebuild_.needs() <= locals || refuse("a result holds a local that there is not");
}

void Plan::vouch(const Program& program, const std::vector<std::vector<int64_t>>& rows) {
  vouched_.set(program, rows);
  mark_reads();
}

void Plan::mark_reads() {
  for (Read& read : reads_) read.is_vouched_for = read.is_needed = false;
  for (size_t at = 0; at < inputs_.size(); at++) {
    mark(inputs_[at], vouched_.is_vouched(at) ? &Read::is_vouched_for : &Read::is_needed);
  }
  needed_reads_.clear();
  for (uint32_t at = 0; at < reads_.size(); at++) {
    if (reads_[at].is_needed) needed_reads_.push_back(at);
  }
  read_inputs_.clear();
  for (uint32_t at = 0; at < inputs_.size(); at++) {
    if (!vouched_.is_vouched(at)) read_inputs_.push_back(at);
  }
}

// Marks the read of a register, and those that it is read from.
void Plan::mark(uint32_t reg, bool Read::* as) {
  while (reg >= locals_ && !(reads_[reg - locals_].*as)) {
    Read& read = reads_[reg - locals_];
    read.*as = true;
    if (read.kind == Kind::kGlobal) return;
    reg = read.base;
  }
}

bool Plan::add_read(PyObject* read, size_t registers) {
  unsigned int kind = 0, base = 0;
  PyObject* key = nullptr;
  if (!PyArg_ParseTuple(read, "IIO", &kind, &base, &key)) return false;
  if (kind > static_cast<unsigned int>(Kind::kOffset)) return refuse("no such kind of read");
  if (kind != static_cast<unsigned int>(Kind::kGlobal) && base >= registers)
    return refuse("a read comes before its base");
  if (kind < static_cast<unsigned int>(Kind::kItem) && !PyUnicode_Check(key)) return refuse("a name is a string");
  reads_.push_back({static_cast<Kind>(kind), base, Py_NewRef(key)});
  return true;
}

PyObject* Plan::global(PyObject* name) const {
  PyObject* found = PyDict_GetItemWithError(globals_, name);
  if (found == nullptr && !PyErr_Occurred()) PyErr_SetObject(PyExc_NameError, name);
  return Py_XNewRef(found);
}

// As torch/_dynamo/utils.py does: the method of the tensor, which a subclass may have replaced. It is not compiled.
PyObject* Plan::number(const Read& read, PyObject* tensor) const {
  std::optional<HookOff> off;
  if (!THPVariable_CheckExact(tensor) && off.emplace().callback() == nullptr) return nullptr;
  static PyObject* const size = PyUnicode_InternFromString("size");
  static PyObject* const stride = PyUnicode_InternFromString("stride");
  static PyObject* const offset = PyUnicode_InternFromString("storage_offset");
  if (read.kind == Kind::kOffset) return PyObject_CallMethodNoArgs(tensor, offset);
  return PyObject_CallMethodOneArg(tensor, read.kind == Kind::kSize ? size : stride, read.key);
}

// As the bytecode would read it. What can be said without code of a user's is looked up where it was last found.
// `is_pure` becomes false where code of a user's may have run.
PyObject* Plan::value_of(Read& read, PyObject* base, bool& is_pure) const {
  switch (read.kind) {
    case Kind::kGlobal: return global(read.key);
    case Kind::kAttribute: {
      const PureAttribute found = attribute_purely(base, read.key, read.slot);
      if (found.certain && found.value != nullptr) return found.is_new ? found.value : Py_NewRef(found.value);
      is_pure = false;
      return PyObject_GetAttr(base, read.key);
    }
    case Kind::kItem: {
      const bool is_dict = PyDict_CheckExact(base);
      const cpython::Found found =
          is_dict ? cpython::find_purely(base, read.key, read.slot) : cpython::Found{false, nullptr};
      if (found.certain && found.value != nullptr) return Py_NewRef(found.value);
      is_pure = is_pure && (PyTuple_CheckExact(base) || PyList_CheckExact(base));
      return PyObject_GetItem(base, read.key);
    }
    default: is_pure = is_pure && THPVariable_CheckExact(base); return number(read, base);
  }
}

// Gradients are off in its scope.
class WithoutGradients {
 public:
  WithoutGradients() : was_enabled_(c10::GradMode::is_enabled()) {
    if (was_enabled_) c10::GradMode::set_enabled(false);
  }
  WithoutGradients(const WithoutGradients&) = delete;
  ~WithoutGradients() {
    if (was_enabled_) c10::GradMode::set_enabled(true);
  }

 private:
  const bool was_enabled_;
};

// The flat outputs; null with an error set.
PyObject* Plan::call(const Inputs& inputs) const {
  const Ref graph(graph_.attribute == nullptr ? Py_NewRef(graph_.owner)
                                              : PyObject_GetAttr(graph_.owner, graph_.attribute));
  if (!graph) return nullptr;
  if (graph_.outputs == kAsList) return call_on_list(graph.get(), inputs);
  if (graph_.outputs >= 0) return call_without_gradients(graph.get(), inputs);
  return PyObject_Vectorcall(graph.get(), inputs.data(), graph_inputs_ | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
}

PyObject* Plan::call_on_list(PyObject* graph, const Inputs& inputs) const {
  const auto count = static_cast<Py_ssize_t>(graph_inputs_);
  const Ref list(PyList_New(count));
  if (!list) return nullptr;
  for (Py_ssize_t at = 0; at < count; at++) PyList_SET_ITEM(list.get(), at, Py_NewRef(inputs[at]));
  return PyObject_CallOneArg(graph, list.get());
}

PyObject* Plan::call_without_gradients(PyObject* graph, const Inputs& inputs) const {
  const WithoutGradients off;
  const Ref outputs(call_on_list(graph, inputs));
  if (!outputs) return nullptr;
  // What is no list is the only output.
  const bool are_many = PyTuple_Check(outputs.get()) || PyList_Check(outputs.get());
  const Py_ssize_t found = are_many ? PySequence_Fast_GET_SIZE(outputs.get()) : 1;
  if (found == graph_.outputs) return are_many ? Py_NewRef(outputs.get()) : PyTuple_Pack(1, outputs.get());
  if (!PyErr_Occurred()) PyErr_Format(PyExc_AssertionError, "expected %zd outputs, got %zd", graph_.outputs, found);
  return nullptr;
}

// A traceback has the names that it would have if the wrappers had been called.
void Plan::name_what_is_left_out() const {
  for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(graph_.left_out); at++) {
    auto* code = reinterpret_cast<PyCodeObject*>(PyTuple_GET_ITEM(graph_.left_out, at));
    cpython::add_to_traceback(code, globals_);
  }
}

// The outputs as a list or tuple, taken as Dynamo's code takes them: unpacked, or by index. A backend may give another
// iterable, or another number of outputs than were traced.
PyObject* Plan::as_bytecode_takes_them(PyObject* outputs) const {
  const bool is_plain = PyList_CheckExact(outputs) || PyTuple_CheckExact(outputs);
  const Py_ssize_t count = is_plain ? PySequence_Fast_GET_SIZE(outputs) : -1;
  if (is_plain && (unpacked_ < 0 ? count >= rebuild_.leaves() : count == unpacked_)) return Py_NewRef(outputs);
  if (unpacked_ >= 0) {
    static PyObject* const unpack = unpacker();
    return unpack == nullptr ? nullptr : PyObject_CallFunction(unpack, "On", outputs, unpacked_);
  }
  const Ref taken(PyList_New(rebuild_.leaves()));
  for (Py_ssize_t at = 0; taken && at < rebuild_.leaves(); at++) {
    const Ref index(PyLong_FromSsize_t(at));
    PyObject* item = rebuild_.has_leaf(at) ? PyObject_GetItem(outputs, index.get()) : Py_NewRef(Py_None);
    if (item == nullptr) return nullptr;
    PyList_SET_ITEM(taken.get(), at, item);
  }
  return Py_XNewRef(taken.get());
}

void Plan::take(const std::vector<PyObject*>* found, Inputs& inputs) {
  if (is_gathering_) return;  // a call in the middle of a read: its own inputs are all read
  inputs.make_room(inputs_.size());
  const size_t count = vouched_.count();
  inputs.are_taken = vouched_.take(found, inputs);
  if (vouched_.count() != count) mark_reads();
}

// Reads in the order in which Dynamo's code does. Where code of a user's may have run, nothing behind it is skipped:
// that code may have replaced what the check has found.
bool Plan::read(Registers& registers, bool& skips, bool is_learning) {
  size_t next = 0;
  if (skips) registers.make_room(needed_reads_.empty() ? 0 : needed_reads_.back() + 1u);
  for (size_t at = 0; skips && at < needed_reads_.size(); at++) {
    if (!read_one(registers, needed_reads_[at], skips, is_learning)) return false;
    next = needed_reads_[at] + 1u;
  }
  if (skips) return true;
  registers.make_room(reads_.size());
  for (; next < reads_.size(); next++) {
    if (!read_one(registers, next, skips, is_learning)) return false;
  }
  return true;
}

bool Plan::read_one(Registers& registers, size_t at, bool& is_pure, bool is_learning) {
  Read& read = reads_[at];
  PyObject* base = nullptr;
  if (read.kind != Kind::kGlobal) {
    // It was skipped, before code of a user's ran.
    if (registers[read.base] == nullptr && !read_one(registers, read.base - locals_, is_pure, is_learning))
      return false;
    base = registers[read.base];
  }
  if (is_learning && read.is_vouched_for && base != nullptr) {
    vouched_.learn(base, read.kind == Kind::kAttribute ? read.key : nullptr);
  }
  return registers.set(at, value_of(read, base, is_pure));
}

// Fills in what the check has not found.
bool Plan::gather(const BoundLocals& bound, Inputs& inputs) {
  if (inputs.are_complete) return true;
  const bool is_nested = is_gathering_;
  if (is_nested) inputs.clear();
  is_gathering_ = true;
  const bool is_done = gather_alone(bound, inputs);
  is_gathering_ = is_nested;
  return is_done;
}

// Alone: no call in the middle of a read changes meanwhile which reads are needed.
bool Plan::gather_alone(const BoundLocals& bound, Inputs& inputs) {
  inputs.make_room(inputs_.size());
  const bool is_learning = inputs.are_taken && !vouched_.is_known();
  bool skips = inputs.are_taken && !is_learning;
  if (is_learning) vouched_.begin_to_learn();
  Registers registers(bound);
  if (!read(registers, skips, is_learning)) return false;
  if (skips) {
    for (const uint32_t at : read_inputs_) inputs.set(at, registers[inputs_[at]]);
    taken_ = vouched_.count();
  } else {
    const bool are_same = fill(registers, inputs);
    if (is_learning) vouched_.end_to_learn(are_same);
    if (is_learning && vouched_.count() == 0) mark_reads();
  }
  inputs.are_complete = true;
  return true;
}

// Fills in all that was read. What was not was taken, before code of a user's ran. Gives whether what was read is also
// what was taken.
bool Plan::fill(const Registers& registers, Inputs& inputs) {
  bool are_same = true;
  taken_ = 0;
  for (size_t at = 0; at < inputs_.size(); at++) {
    PyObject* value = registers[inputs_[at]];
    if (value == nullptr) {
      taken_++;
      continue;
    }
    are_same = are_same && (inputs[at] == nullptr || inputs[at] == value);
    inputs.set(at, value);
  }
  return are_same;
}

PyObject* Plan::gathered(const BoundLocals& bound, Inputs& inputs) {
  if (!gather(bound, inputs)) return nullptr;
  PyObject* all = PyTuple_New(static_cast<Py_ssize_t>(graph_inputs_));
  for (size_t at = 0; all != nullptr && at < graph_inputs_; at++) {
    PyTuple_SET_ITEM(all, static_cast<Py_ssize_t>(at), Py_NewRef(inputs[at]));
  }
  return all;
}

bool Plan::give(PyObject* tuple, Inputs& inputs) const {
  if (!PyTuple_CheckExact(tuple) || static_cast<size_t>(PyTuple_GET_SIZE(tuple)) != graph_inputs_) return false;
  for (size_t at = 0; at < graph_inputs_; at++) {
    inputs.set(at, PyTuple_GET_ITEM(tuple, static_cast<Py_ssize_t>(at)));
  }
  return true;
}

// What the code that is left to run takes: the outputs of the graph, and what was kept for it.
PyObject* Plan::handed_over(PyObject* outputs, const Inputs& inputs) const {
  const size_t kept = inputs_.size() - graph_inputs_;
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(kept + 1));
  if (list == nullptr) return nullptr;
  PyList_SET_ITEM(list, 0, Py_NewRef(outputs));
  for (size_t at = 0; at < kept; at++) {
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(at + 1), Py_NewRef(inputs[graph_inputs_ + at]));
  }
  return list;
}

PyObject* Plan::run(const BoundLocals& bound, Inputs& inputs) {
  if (!gather(bound, inputs)) return nullptr;
  Ref flat(call(inputs));
  if (!flat) {
    name_what_is_left_out();
    return nullptr;
  }
  if (has_rest_) {
    PyObject* list = handed_over(flat.get(), inputs);
    inputs.clear();
    return list;
  }
  inputs.clear();
  const Ref outputs(as_bytecode_takes_them(flat.get()));
  flat.reset();
  return outputs ? rebuild_.run(outputs.get(), bound.values.data()) : nullptr;
}

int Plan::traverse(visitproc visit, void* arg) const {
  Py_VISIT(globals_);
  Py_VISIT(graph_.owner);
  for (const Read& read : reads_) Py_VISIT(read.key);
  return rebuild_.traverse(visit, arg);
}

}  // namespace unified_guards
