// See plan.h.
#include "call/plan.h"

#include "cpython/pure.h"

#include <c10/core/GradMode.h>
#include <c10/util/SmallVector.h>

namespace unified_guards {
namespace {

bool refuse(const char* why) {
  PyErr_SetString(PyExc_ValueError, why);
  return false;
}

// References that are dropped at the end of a call.
class Registers {
 public:
  explicit Registers(const BoundLocals& bound)
      : values_(bound.values.begin(), bound.values.end()), borrowed_(values_.size()) {}
  Registers(const Registers&) = delete;
  ~Registers() {
    for (size_t at = borrowed_; at < values_.size(); at++) Py_DECREF(values_[at]);
  }

  // Takes a new reference; false where it is null.
  bool push(PyObject* value) {
    if (value != nullptr) values_.push_back(value);
    return value != nullptr;
  }

  PyObject* operator[](size_t at) const { return values_[at]; }

 private:
  c10::SmallVector<PyObject*, 64> values_;
  const size_t borrowed_;
};

}  // namespace

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

bool Plan::set(PyObject* reads, PyObject* inputs, PyObject* steps, size_t locals) {
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
  if (!rebuild_.set(steps)) return false;
  return rebuild_.needs() <= locals || refuse("a result holds a local that there is not");
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

// As torch/_dynamo/utils.py does: the method of the tensor, which a subclass may have replaced.
PyObject* Plan::number(const Read& read, PyObject* tensor) const {
  static PyObject* const size = PyUnicode_InternFromString("size");
  static PyObject* const stride = PyUnicode_InternFromString("stride");
  static PyObject* const offset = PyUnicode_InternFromString("storage_offset");
  if (read.kind == Kind::kOffset) return PyObject_CallMethodNoArgs(tensor, offset);
  return PyObject_CallMethodOneArg(tensor, read.kind == Kind::kSize ? size : stride, read.key);
}

// As the bytecode would read it. What can be said without code of a user's is looked up where it was last found.
PyObject* Plan::value_of(const Read& read, PyObject* base) const {
  switch (read.kind) {
    case Kind::kGlobal: return global(read.key);
    case Kind::kAttribute: {
      const PureAttribute found = attribute_purely(base, read.key, read.slot);
      if (!found.certain || found.value == nullptr) return PyObject_GetAttr(base, read.key);
      return found.is_new ? found.value : Py_NewRef(found.value);
    }
    case Kind::kItem: {
      if (!PyDict_CheckExact(base)) return PyObject_GetItem(base, read.key);
      const cpython::Found found = cpython::find_purely(base, read.key, read.slot);
      return found.certain && found.value != nullptr ? Py_NewRef(found.value) : PyObject_GetItem(base, read.key);
    }
    default: return number(read, base);
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

// The flat outputs; null with an error set. The first of `args` is the callee's to use.
PyObject* Plan::call(const Inputs& args) const {
  const Ref graph(graph_.attribute == nullptr ? Py_NewRef(graph_.owner)
                                              : PyObject_GetAttr(graph_.owner, graph_.attribute));
  if (!graph) return nullptr;
  if (graph_.outputs >= 0) return call_boxed(graph.get(), args);
  const size_t count = args.size() - 1;
  return PyObject_Vectorcall(graph.get(), args.data() + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
}

PyObject* Plan::call_boxed(PyObject* graph, const Inputs& args) const {
  const auto count = static_cast<Py_ssize_t>(args.size()) - 1;
  const Ref list(PyList_New(count));
  if (!list) return nullptr;
  for (Py_ssize_t at = 0; at < count; at++) PyList_SET_ITEM(list.get(), at, Py_NewRef(args[at + 1]));
  const WithoutGradients off;
  Ref outputs(PyObject_CallOneArg(graph, list.get()));
  if (!outputs) return nullptr;
  const Py_ssize_t found = PyTuple_Check(outputs.get()) || PyList_Check(outputs.get())
                               ? PySequence_Fast_GET_SIZE(outputs.get())
                               : PyObject_Length(outputs.get());
  if (found == graph_.outputs) return Py_NewRef(outputs.get());
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

PyObject* Plan::run(const BoundLocals& bound) const {
  Ref flat;
  {
    Registers registers(bound);
    for (const Read& read : reads_) {
      PyObject* base = read.kind == Kind::kGlobal ? nullptr : registers[read.base];
      if (!registers.push(value_of(read, base))) return nullptr;
    }
    c10::SmallVector<PyObject*, 65> args{nullptr};  // the first is the callee's to use
    for (const uint32_t input : inputs_) args.push_back(registers[input]);
    *flat.out() = call(args);
    if (!flat) name_what_is_left_out();
  }
  return flat ? rebuild_.run(flat.get(), bound.values.data()) : nullptr;
}

int Plan::traverse(visitproc visit, void* arg) const {
  Py_VISIT(globals_);
  Py_VISIT(graph_.owner);
  for (const Read& read : reads_) Py_VISIT(read.key);
  return rebuild_.traverse(visit, arg);
}

}  // namespace unified_guards
