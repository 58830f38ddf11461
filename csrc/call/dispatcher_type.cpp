// See dispatcher_type.h.
#include "call/dispatcher_type.h"

#include "call/dispatcher.h"
#include "cpython/ref.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

namespace py = pybind11;

namespace unified_guards {
namespace {

PyObject* made = nullptr;  // the type

// A call that is running holds its record.
int dispatcher_clear(PyObject* object) {
  const auto dropped = std::exchange(dispatcher_of(object).records, {});
  return 0;
}

bool set_target(Dispatcher& self, PyObject* callee, PyObject* forward) {
  self.held = Py_NewRef(callee);
  PyObject* function = callee;
  if (PyMethod_Check(callee)) {
    self.target.receiver = PyMethod_GET_SELF(callee);
    function = PyMethod_GET_FUNCTION(callee);
  }
  if (forward != Py_None) {
    function = forward;
    self.target.known = known_class_of(self.target.receiver);
  }
  if (!PyFunction_Check(function)) {
    PyErr_SetString(PyExc_TypeError, "a dispatcher is made for a function or a bound method");
    return false;
  }
  self.target.function = reinterpret_cast<PyFunctionObject*>(function);
  self.target.code = self.target.function->func_code;
  return true;
}

PyObject* dispatcher_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"callee",   "forward", "whole", "region", "fullgraph",
                                   "callback", "patches", "own",   nullptr};
  PyObject *callee = nullptr, *forward = nullptr, *callback = nullptr;
  PyObject* patches = nullptr;
  int whole = 0, fullgraph = 0, own = 0;
  long long region = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOpLpOO!|p", const_cast<char**>(keywords), &callee, &forward, &whole,
                                   &region, &fullgraph, &callback, &PyTuple_Type, &patches, &own)) {
    return nullptr;
  }
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  Dispatcher& self = dispatcher_of(object);
  new (&self.target) Target();
  new (&self.records) std::vector<std::shared_ptr<Record>>();
  new (&self.longs) std::array<uint64_t, kWhys>{};
  if (!set_target(self, callee, forward)) {
    new (&self.signature) Signature();
    Py_DECREF(object);
    return nullptr;
  }
  new (&self.signature) Signature(reinterpret_cast<PyCodeObject*>(self.target.code));
  self.target.is_called_whole = whole;
  self.region = region;
  self.is_fullgraph = fullgraph;
  self.is_own = own;
  self.callback = Py_NewRef(callback);
  self.patches = Py_NewRef(patches);
  Py_INCREF(self.target.code);
  self.frame = PyDict_New();
  if (self.frame == nullptr) Py_CLEAR(object);
  return object;
}

int dispatcher_traverse(PyObject* object, visitproc visit, void* arg) {
  Dispatcher& self = dispatcher_of(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self.held);
  Py_VISIT(self.callback);
  Py_VISIT(self.patches);
  if (const int stop = self.target.known.traverse(visit, arg)) return stop;
  for (const auto& record : self.records) {
    if (record.use_count() > 1) continue;  // a call that runs it keeps it alive
    Py_VISIT(record->function);
    Py_VISIT(record->comparison);
    if (record->plan == nullptr) continue;
    if (const int stop = record->plan->traverse(visit, arg)) return stop;
  }
  return 0;
}

void dispatcher_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  Dispatcher& self = dispatcher_of(object);
  if (self.weak_gates != nullptr) PyObject_ClearWeakRefs(object);
  dispatcher_clear(object);
  self.records.~vector();
  self.signature.~Signature();
  Py_CLEAR(self.target.code);
  self.target.~Target();
  Py_CLEAR(self.frame);
  Py_CLEAR(self.held);
  Py_CLEAR(self.wrapper);
  Py_CLEAR(self.callback);
  Py_CLEAR(self.patches);
  type->tp_free(object);
  Py_DECREF(type);
}

// What compares hits (dynamo/comparison.py). False with an error set where it is of another kind.
bool set_comparison(Record& record, PyObject* comparison) {
  const Ref every(PyObject_GetAttrString(comparison, "every"));
  if (!every) return false;
  record.every = PyLong_AsUnsignedLongLong(every.get());
  if (PyErr_Occurred()) return false;
  record.comparison = Py_NewRef(comparison);
  return true;
}

// What dynamo/vouched.py gives: a list of tuples of rows. False with an error set where it is not legal.
bool rows_from(PyObject* list, std::vector<std::vector<int64_t>>& rows) {
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
    PyObject* tuple = PyList_GET_ITEM(list, at);
    if (!PyTuple_CheckExact(tuple)) {
      PyErr_SetString(PyExc_TypeError, "the rows of an input are a tuple");
      return false;
    }
    rows.emplace_back();
    for (Py_ssize_t next = 0; next < PyTuple_GET_SIZE(tuple); next++) {
      rows.back().push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, next)));
      if (PyErr_Occurred()) return false;
    }
  }
  return true;
}

// `way` is (plan, the rows that read the same as its inputs, the function that is left to run or None). False with an
// error set where it is not legal.
bool set_plan(const Dispatcher& self, Record& record, PyObject* way) {
  PyObject *plan = nullptr, *rows = nullptr, *rest = nullptr;
  if (!PyArg_ParseTuple(way, "OO!O", &plan, &PyList_Type, &rows, &rest)) return false;
  record.plan = make_plan(self, plan);
  if (record.plan == nullptr) return false;
  std::vector<std::vector<int64_t>> numbers;
  if (!rows_from(rows, numbers)) return false;
  record.plan->vouch(record.checker->program(), numbers);
  if (rest != Py_None) record.function = Py_NewRef(rest);
  return true;
}

PyObject* dispatcher_add(PyObject* object, PyObject* args) {
  Dispatcher& self = dispatcher_of(object);
  PyObject *manager = nullptr, *code = nullptr, *checker = nullptr, *plan = nullptr, *comparison = Py_None;
  const char* why = nullptr;
  if (!PyArg_ParseTuple(args, "OOOOs|O:_add", &manager, &code, &checker, &plan, &why, &comparison)) return nullptr;
  auto record = std::make_shared<Record>();
  record->manager = manager;
  record->code = code;
  if (!why_named(why, record->why)) return nullptr;
  record->reference = PyWeakref_NewRef(manager, nullptr);
  if (record->reference == nullptr) return nullptr;
  if (checker != Py_None) record->checker = py::cast<std::shared_ptr<Checker>>(py::handle(checker));
  if (PyFunction_Check(plan)) record->function = Py_NewRef(plan);
  if (PyTuple_CheckExact(plan) && !set_plan(self, *record, plan)) return nullptr;
  if (comparison != Py_None && !set_comparison(*record, comparison)) return nullptr;
  if ((record->why == Why::kNone) !=
      ((record->plan != nullptr || record->function != nullptr) && record->checker != nullptr)) {
    PyErr_SetString(PyExc_ValueError, "an entry is asked and run, or there is a reason why not");
    return nullptr;
  }
  self.records.push_back(std::move(record));
  Py_RETURN_NONE;
}

// The entry of a guard manager is forgotten: torch has dropped it.
PyObject* dispatcher_forget_entry(PyObject* object, PyObject* manager) {
  auto& records = dispatcher_of(object).records;
  const auto dead =
      std::find_if(records.begin(), records.end(), [&](const auto& record) { return record->manager == manager; });
  if (dead != records.end()) {
    const std::shared_ptr<Record> dropped = std::move(*dead);
    records.erase(dead);
  }
  Py_RETURN_NONE;
}

// All of torch's entries at once: Python code may let another thread run that frees them.
PyObject* dispatcher_entries(PyObject* object, PyObject*) {
  const Dispatcher& self = dispatcher_of(object);
  const FoundEntries found = entries_of(self.target.code, self.region);
  std::vector<std::array<PyObject*, 3>> seen;
  if (found.why == Why::kNone) {
    for (const CacheEntry& entry : *found.entries) {
      seen.push_back(
          {Py_NewRef(entry.guard_manager.ptr()), Py_NewRef(entry.code.ptr()), Py_NewRef(entry.backend.ptr())});
    }
  }
  const Ref all(PyList_New(0));
  bool is_whole = static_cast<bool>(all);
  for (const auto& [manager, code, backend] : seen) {
    const Ref entry(Py_BuildValue("NNN", manager, code, backend));
    is_whole = is_whole && entry && PyList_Append(all.get(), entry.get()) == 0;
  }
  return is_whole ? Py_NewRef(all.get()) : nullptr;
}

PyObject* dispatcher_serve(PyObject* object, PyObject* wrapper) {
  PyObject* reference = PyWeakref_NewRef(wrapper, nullptr);
  if (reference == nullptr) return nullptr;
  Py_XSETREF(dispatcher_of(object).wrapper, reference);
  Py_RETURN_NONE;
}

PyObject* dispatcher_forget(PyObject* object, PyObject*) {
  dispatcher_clear(object);
  Py_RETURN_NONE;
}

// The names of what is bound, in the order of the registers of a plan.
PyObject* dispatcher_names(PyObject* object, void*) {
  const Signature& signature = dispatcher_of(object).signature;
  PyObject* found = PyTuple_New(static_cast<Py_ssize_t>(signature.size()));
  for (size_t at = 0; found != nullptr && at < signature.size(); at++) {
    PyTuple_SET_ITEM(found, static_cast<Py_ssize_t>(at), Py_NewRef(signature.name(at)));
  }
  return found;
}

PyObject* dispatcher_function(PyObject* object, void*) {
  return Py_NewRef(reinterpret_cast<PyObject*>(dispatcher_of(object).target.function));
}

// Of each entry that has a plan: how many inputs it gathers, and how many of them came from the check the last time.
PyObject* dispatcher_inputs(PyObject* object, void*) {
  const Ref all(PyList_New(0));
  if (!all) return nullptr;
  for (const auto& record : dispatcher_of(object).records) {
    if (record->plan == nullptr) continue;
    const auto inputs = static_cast<Py_ssize_t>(record->plan->inputs());
    const Ref one(Py_BuildValue("nn", inputs, static_cast<Py_ssize_t>(record->plan->taken())));
    if (!one || PyList_Append(all.get(), one.get()) != 0) return nullptr;
  }
  return Py_NewRef(all.get());
}

PyObject* counts_of(uint64_t shorts, const std::array<uint64_t, kWhys>& longs) {
  static constexpr const char* kTexts[] = {
#define UG_NAME(name, text) text,
      UG_LONG_WAYS(UG_NAME)
#undef UG_NAME
  };
  const Ref reasons(PyDict_New());
  for (size_t at = 0; reasons && at < kWhys; at++) {
    if (longs[at] == 0) continue;
    const Ref count(PyLong_FromUnsignedLongLong(longs[at]));
    if (!count || PyDict_SetItemString(reasons.get(), kTexts[at], count.get()) != 0) return nullptr;
  }
  return reasons ? Py_BuildValue("KO", static_cast<unsigned long long>(shorts), reasons.get()) : nullptr;
}

PyObject* dispatcher_counts(PyObject* object, void*) {
  const Dispatcher& self = dispatcher_of(object);
  return counts_of(self.shorts, self.longs);
}

PyObject* total_counts_method(PyObject*, PyObject*) {
  const Ref calls(counts_of(totals.shorts, totals.longs));
  return calls ? Py_BuildValue("OK", calls.get(), static_cast<unsigned long long>(totals.frames)) : nullptr;
}

PyObject* dispatcher_find(PyObject* object, PyObject* arguments) {
  PyObject *args = nullptr, *kwargs = nullptr;
  if (!PyArg_ParseTuple(arguments, "O!O!:_find", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) return nullptr;
  return find_entry(object, args, kwargs);
}

PyMethodDef kDispatcherMethods[] = {
    {"_find", dispatcher_find, METH_VARARGS, "_find(args, kwargs): the guard manager of the entry that fits, or None."},
    {"_add", dispatcher_add, METH_VARARGS,
     "_add(guard manager, code, checker, plan, why, comparison): what is known of one of torch's entries."},
    {"_serve", dispatcher_serve, METH_O, "Says whose calls these are: torch's wrapper."},
    {"_forget_entry", dispatcher_forget_entry, METH_O, "Forgets the entry of a guard manager."},
    {"_entries", dispatcher_entries, METH_NOARGS, "(guard manager, code, backend) of torch's entries, in its order."},
    {"_forget", dispatcher_forget, METH_NOARGS, "Forgets all entries."},
    {"_totals", total_counts_method, METH_NOARGS | METH_STATIC,
     "The counts of all dispatchers there have been, and how many frames in the middle of a call."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef kDispatcherGetters[] = {
    {"_names", dispatcher_names, nullptr, "The names of all that is bound, in order.", nullptr},
    {"_function", dispatcher_function, nullptr, "The function whose code has the cache entries.", nullptr},
    {"inputs", dispatcher_inputs, nullptr, "[(inputs, taken from the last check)] of the entries with a plan.",
     nullptr},
    {"counts", dispatcher_counts, nullptr, "(short ways, {why long: how many times}).", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef kDispatcherMembers[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Dispatcher, weak_gates), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

}  // namespace

PyObject* make_dispatcher_type() {
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("The short way of a call to one compiled function.")},
                         {Py_tp_new, cpython::slot(dispatcher_new)},
                         {Py_tp_traverse, cpython::slot(dispatcher_traverse)},
                         {Py_tp_clear, cpython::slot(dispatcher_clear)},
                         {Py_tp_dealloc, cpython::slot(dispatcher_dealloc)},
                         {Py_tp_methods, kDispatcherMethods},
                         {Py_tp_getset, kDispatcherGetters},
                         {Py_tp_members, kDispatcherMembers},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.Dispatcher", sizeof(Dispatcher), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, slots};
  made = PyType_FromSpec(&spec);
  return Py_XNewRef(made);
}

bool is_dispatcher(PyObject* object) { return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(made)); }

}  // namespace unified_guards
