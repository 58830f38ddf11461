// See dispatcher.h. Types made by hand and not by pybind11: the call has to be cheap, and the collector has to see what
// a dispatcher refers to.
#include "call/dispatcher.h"

#include "call/entries.h"
#include "call/plan.h"
#include "call/signature.h"
#include "call/state.h"
#include "call/target.h"
#include "check/checker.h"
#include "check/outlive.h"
#include "cpython/cpython.h"
#include "cpython/errors.h"
#include "cpython/ref.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace unified_guards {
namespace {

PyObject* dispatcher_type = nullptr;  // made at import
// The dispatcher whose call a gate of modules has sent the long way, until the call comes to its own gate.
thread_local PyObject* gone_long = nullptr;
PyObject* go_on = nullptr;  // what a gate gives where the call has to go the long way; made at import

struct Names {
  PyObject* prepare = PyUnicode_InternFromString("_prepare");
  PyObject* rescue = PyUnicode_InternFromString("_rescue");
  PyObject* dispatcher = PyUnicode_InternFromString("_unified_guards_dispatcher");
};

Names* names = nullptr;  // made with the type

// What is known of one of torch's cache entries.
struct Record {
  PyObject* manager = nullptr;  // the guard manager: its address, and a weak reference that says whether it lives
  PyObject* reference = nullptr;
  PyObject* code = nullptr;  // the address of the entry's code, which the entry owns
  std::shared_ptr<Checker> checker;
  std::unique_ptr<Plan> plan;  // what to do on a hit; or a function to call, with Dynamo watching; or `why` not
  PyObject* function = nullptr;
  Why why = Why::kNone;  // then: why. kMiss: the entry is another backend's

  ~Record() {
    Py_XDECREF(reference);
    Py_XDECREF(function);
  }

  bool is_of(const CacheEntry& entry) const {
    return entry.guard_manager.ptr() == manager && entry.code.ptr() == code &&
           *cpython::weakref_word(reference) == cpython::bits(manager);
  }
};

struct Dispatcher {
  PyObject_HEAD
  PyObject* weak_gates;
  Target target;
  PyObject* wrapper;   // owned: a weak reference to torch's wrapper, whose calls these are
  PyObject* held;      // owned: the function or method that torch's wrapper calls
  PyObject* callback;  // owned: Dynamo's, for the frame hook
  int64_t region;
  bool is_fullgraph, is_frame_taken;
  Signature signature;
  PyObject* frame;  // owned: the dict of locals, kept between calls
  std::vector<std::shared_ptr<Record>> records;
  uint64_t shorts;
  std::array<uint64_t, kWhys> longs;
};

uint64_t total_shorts = 0;
std::array<uint64_t, kWhys> total_longs{};

Dispatcher& dispatcher_of(PyObject* object) { return *reinterpret_cast<Dispatcher*>(object); }

PyObject* go_long(Dispatcher& self, Why why) {
  self.longs[static_cast<size_t>(why)]++;
  total_longs[static_cast<size_t>(why)]++;
  return Py_NewRef(go_on);
}

// ---- the dict of locals ------------------------------------------------------------------------------------------

// The dict that checkers read locals from. The dispatcher's own is used again and again: its entries stay where they
// are. A call in the middle of another one is given a new dict.
class Frame {
 public:
  Frame(Dispatcher& self, const BoundLocals& bound) : self_(self), is_own_(!self.is_frame_taken) {
    if (is_own_) self.is_frame_taken = true;
    dict_ = is_own_ ? self.frame : PyDict_New();
    is_ready_ = dict_ != nullptr && fill(bound);
    if (!is_ready_) PyErr_Clear();
  }
  Frame(const Frame&) = delete;
  ~Frame() {
    if (is_own_) {
      empty();
      self_.is_frame_taken = false;
    } else {
      Py_XDECREF(dict_);
    }
  }

  bool is_ready() const { return is_ready_; }
  PyObject* dict() const { return dict_; }

 private:
  bool fill(const BoundLocals& bound) {
    for (size_t at = 0; at < bound.values.size(); at++) {
      if (!put(at, bound.values[at])) return false;
    }
    return true;
  }

  // Nothing of a call is kept alive by the dict.
  void empty() {
    for (size_t at = 0; at < self_.signature.size(); at++) {
      if (!put(at, Py_None)) PyErr_Clear();
    }
  }

  // The names are put into the dict in order, so each has an entry of the same number.
  bool put(size_t at, PyObject* value) {
    PyObject* name = self_.signature.name(at);
    if (is_own_) {
      Py_INCREF(value);
      if (cpython::replace_at(dict_, static_cast<cpython::Slot>(at), name, value)) return true;
      Py_DECREF(value);
    }
    return PyDict_SetItem(dict_, name, value) == 0;
  }

  Dispatcher& self_;
  PyObject* dict_ = nullptr;
  bool is_own_, is_ready_ = false;
};

// ---- asking ------------------------------------------------------------------------------------------------------

std::shared_ptr<Record> record_of(Dispatcher& self, const CacheEntry& entry) {
  for (const auto& record : self.records) {
    if (record->is_of(entry)) return record;
  }
  return nullptr;
}

struct Decision {
  Why why;
  std::shared_ptr<Record> record;  // the one that fits, where `why` is kNone
  bool raised = false;             // an observer raised
};

// Whether the entry of a record fits. A no of the observer's is taken, as torch's lookup takes it.
bool fits(const Record& record, PyObject* locals, bool& raised) {
  Checker& checker = *record.checker;
  if (!checker.is_observed()) return checker.check(locals);
  const bool hit = checker.check_timed(locals);
  const Ref answer(checker.tell_observer(locals, hit));
  raised = !answer;
  return answer.get() == Py_True || (hit && answer && answer.get() != Py_False);
}

// Asks the entries one after the other, in torch's order. A guard may run code of a user's, which may change the list:
// what is walked next is looked for again in torch's list.
Decision walk(Dispatcher& self, PyObject* locals) {
  FoundEntries found = entries_of(self.target.code, self.region);
  if (found.why != Why::kNone) return {found.why, nullptr};
  for (size_t at = 0; at < found.entries->size(); at++) {
    auto entry = std::next(found.entries->begin(), static_cast<ptrdiff_t>(at));
    std::shared_ptr<Record> record = record_of(self, *entry);
    if (record == nullptr) return {Why::kNew, nullptr};
    if (record->why == Why::kMiss) continue;
    if (record->why != Why::kNone) return {record->why, nullptr};  // torch asks it
    Decision decision{Why::kNone, record};
    // Leaf guards of torch's read the root that made them. Code of a user's in a guard may drop the manager of it.
    const Ref held(Py_NewRef(record->manager));
    const bool hit = fits(*record, locals, decision.raised);
    if (decision.raised) return decision;
    found = entries_of(self.target.code, self.region);
    if (found.why != Why::kNone) return {found.why, nullptr};
    if (at >= found.entries->size()) return {Why::kMoved, nullptr};
    entry = std::next(found.entries->begin(), static_cast<ptrdiff_t>(at));
    if (!record->is_of(*entry)) return {Why::kMoved, nullptr};
    if (!hit) {
      just_missed.note(record->checker.get());
      continue;
    }
    if (State::now.moves_hits) move_to_front(*found.entries, entry);
    return decision;
  }
  return {Why::kMiss, nullptr};
}

// How often a walk begins anew because code of a guard, or another thread meanwhile, has changed torch's list.
constexpr int kMostWalks = 8;

Decision decide(Dispatcher& self, PyObject* locals) {
  Decision decision = walk(self, locals);
  for (int walks = 1; decision.why == Why::kMoved && !decision.raised && walks < kMostWalks; walks++) {
    just_missed.clear();
    decision = walk(self, locals);
  }
  return decision;
}

// ---- running -----------------------------------------------------------------------------------------------------

// What torch's wrapper puts back when compiled code is left.
class Surroundings {
 public:
  explicit Surroundings(bool is_fullgraph) : is_fullgraph_(is_fullgraph) {
    if (is_fullgraph_) exchange_frame_count(1);
  }
  Surroundings(const Surroundings&) = delete;
  ~Surroundings() {
    {
      const KeptError kept;
      if (is_fullgraph_) exchange_frame_count(-1);
      if (is_in_functorch()) leave_functorch();
    }
    const c10::impl::LocalDispatchKeySet now = c10::impl::tls_local_dispatch_key_set();
    if (now.included_ != before_.included_ || now.excluded_ != before_.excluded_) {
      c10::impl::_force_tls_local_dispatch_key_set(before_);
    }
  }

 private:
  const bool is_fullgraph_;
  const c10::impl::LocalDispatchKeySet before_ = c10::impl::tls_local_dispatch_key_set();
};

// Runs code that may go on in frames that are to be compiled. Its own frame is not: dynamo/dispatch.py has it skipped.
PyObject* run_watched(const Dispatcher& self, PyObject* function, const BoundLocals& bound) {
  if (!set_callback(self.callback)) return nullptr;
  PyObject* result = self.signature.call(function, bound);
  const KeptError kept;
  if (!set_callback(Py_None)) PyErr_Clear();
  return result;
}

// The exception that left the compiled code, as torch's wrapper would raise it.
PyObject* rescue(PyObject* object) {
  PyObject* error = cpython::raised_exception();
  const Ref answer(PyObject_CallMethodOneArg(object, names->rescue, error));
  if (answer) {
    PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(error))), error, PyException_GetTraceback(error));
  } else {
    Py_DECREF(error);  // another form of it was raised
  }
  return nullptr;
}

// Owns what was bound while the compiled code runs: the defaults of the function may be replaced meanwhile.
class Owned {
 public:
  explicit Owned(const BoundLocals& bound) : bound_(bound) {
    for (PyObject* value : bound_.values) Py_INCREF(value);
  }
  Owned(const Owned&) = delete;
  ~Owned() {
    for (PyObject* value : bound_.values) Py_DECREF(value);
  }

 private:
  const BoundLocals& bound_;
};

// Has Python read torch's entries anew. False, with no error set, where that fails.
bool prepare(PyObject* object) {
  const Ref answer(PyObject_CallMethodNoArgs(object, names->prepare));
  if (!answer) PyErr_Clear();
  return answer.get() == Py_True;
}

PyObject* call(PyObject* object, PyObject* args, PyObject* kwargs) {
  Dispatcher& self = dispatcher_of(object);
  if (Running::some_are_kept) Running::free_what_is_over();
  just_missed.clear();
  if (const Why why = why_long(); why != Why::kNone) return go_long(self, why);
  if (const Why why = self.target.changed(); why != Why::kNone) return go_long(self, why);
  BoundLocals bound;
  if (!self.signature.bind(bound, self.target.function, self.target.receiver, args, kwargs)) {
    return go_long(self, Why::kArguments);
  }
  const int frame_count = exchange_frame_count(-1);
  if (frame_count >= 0) {
    exchange_frame_count(frame_count);
    return go_long(self, Why::kFullgraph);
  }
  const Owned owned(bound);
  Decision decision;
  {
    const Frame frame(self, bound);
    if (!frame.is_ready()) return go_long(self, Why::kArguments);
    decision = decide(self, frame.dict());
    if (decision.why == Why::kNew && prepare(object)) decision = decide(self, frame.dict());
  }
  if (decision.raised) return nullptr;
  if (decision.why != Why::kMiss) just_missed.clear();
  if (decision.why != Why::kNone) return go_long(self, decision.why);
  if (!count_generation()) return nullptr;
  self.shorts++;
  total_shorts++;
  const Surroundings surroundings(self.is_fullgraph);
  const Record& record = *decision.record;
  PyObject* result = record.plan != nullptr ? record.plan->run(bound) : run_watched(self, record.function, bound);
  if (result != nullptr) return result;
  if (record.plan != nullptr) {
    cpython::add_to_traceback(reinterpret_cast<PyCodeObject*>(self.target.code), self.target.function->func_globals);
  }
  return rescue(object);
}

// ---- the type of dispatchers -------------------------------------------------------------------------------------

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
  static const char* keywords[] = {"callee", "forward", "whole", "region", "fullgraph", "callback", nullptr};
  PyObject *callee = nullptr, *forward = nullptr, *callback = nullptr;
  int whole = 0, fullgraph = 0;
  long long region = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOpLpO", const_cast<char**>(keywords), &callee, &forward, &whole,
                                   &region, &fullgraph, &callback)) {
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
  self.callback = Py_NewRef(callback);
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
  if (const int stop = self.target.known.traverse(visit, arg)) return stop;
  for (const auto& record : self.records) {
    if (record.use_count() > 1) continue;  // a call that runs it keeps it alive
    Py_VISIT(record->function);
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
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* dispatcher_add(PyObject* object, PyObject* args) {
  Dispatcher& self = dispatcher_of(object);
  PyObject *manager = nullptr, *code = nullptr, *checker = nullptr, *plan = nullptr;
  const char* why = nullptr;
  if (!PyArg_ParseTuple(args, "OOOOs:_add", &manager, &code, &checker, &plan, &why)) return nullptr;
  auto record = std::make_shared<Record>();
  record->manager = manager;
  record->code = code;
  if (!why_named(why, record->why)) return nullptr;
  record->reference = PyWeakref_NewRef(manager, nullptr);
  if (record->reference == nullptr) return nullptr;
  if (checker != Py_None) record->checker = py::cast<std::shared_ptr<Checker>>(py::handle(checker));
  if (PyFunction_Check(plan)) record->function = Py_NewRef(plan);
  if (PyTuple_CheckExact(plan)) {
    Plan::Graph graph{};
    PyObject *reads = nullptr, *inputs = nullptr, *steps = nullptr;
    Py_ssize_t unpacked = -1;
    if (!PyArg_ParseTuple(plan, "OOnO!OOOn", &graph.owner, &graph.attribute, &graph.outputs, &PyTuple_Type,
                          &graph.left_out, &reads, &inputs, &steps, &unpacked)) {
      return nullptr;
    }
    if (graph.attribute == Py_None) graph.attribute = nullptr;
    record->plan = std::make_unique<Plan>(self.target.function->func_globals, graph);
    if (!record->plan->set(reads, inputs, steps, unpacked, self.signature.size())) return nullptr;
  }
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

PyObject* total_counts_method(PyObject*, PyObject*) { return counts_of(total_shorts, total_longs); }

PyMethodDef kDispatcherMethods[] = {
    {"_add", dispatcher_add, METH_VARARGS,
     "_add(guard manager, code, checker, plan, why): what is known of one of torch's entries."},
    {"_serve", dispatcher_serve, METH_O, "Says whose calls these are: torch's wrapper."},
    {"_forget_entry", dispatcher_forget_entry, METH_O, "Forgets the entry of a guard manager."},
    {"_entries", dispatcher_entries, METH_NOARGS, "(guard manager, code, backend) of torch's entries, in its order."},
    {"_forget", dispatcher_forget, METH_NOARGS, "Forgets all entries."},
    {"_totals", total_counts_method, METH_NOARGS | METH_STATIC, "The counts of all dispatchers there have been."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef kDispatcherGetters[] = {
    {"_names", dispatcher_names, nullptr, "The names of all that is bound, in order.", nullptr},
    {"_function", dispatcher_function, nullptr, "The function whose code has the cache entries.", nullptr},
    {"counts", dispatcher_counts, nullptr, "(short ways, {why long: how many times}).", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef kDispatcherMembers[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Dispatcher, weak_gates), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// ---- gates -------------------------------------------------------------------------------------------------------

struct Gate {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* dispatcher;  // a weak reference, owned
};

PyObject* gate_call(PyObject* object, PyObject* const* args, size_t nargs, PyObject*) {
  if (PyVectorcall_NARGS(nargs) != 2 || !PyTuple_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
    return Py_NewRef(go_on);
  }
  const Ref dispatcher(cpython::weakref_target(reinterpret_cast<Gate*>(object)->dispatcher));
  if (dispatcher.get() == Py_None) return Py_NewRef(go_on);
  if (std::exchange(gone_long, nullptr) == dispatcher.get()) return Py_NewRef(go_on);
  return call(dispatcher.get(), args[0], args[1]);
}

PyObject* gate_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* dispatcher = nullptr;
  if (!PyArg_ParseTuple(args, "O:Gate", &dispatcher)) return nullptr;
  const Ref reference(PyWeakref_NewRef(dispatcher, nullptr));
  if (!reference) return nullptr;
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  auto* gate = reinterpret_cast<Gate*>(object);
  gate->call = gate_call;
  gate->dispatcher = Py_NewRef(reference.get());
  return object;
}

void gate_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  Py_CLEAR(reinterpret_cast<Gate*>(object)->dispatcher);
  type->tp_free(object);
  Py_DECREF(type);
}

// The dispatcher of a wrapper; null where the object is no wrapper with a dispatcher of its own. Whatever copies the
// attributes of a wrapper (functools.wraps) copies the dispatcher, too.
PyObject* dispatcher_serving(PyObject* wrapper) {
  if (wrapper == nullptr || !PyFunction_Check(wrapper)) return nullptr;
  PyObject* attributes = reinterpret_cast<PyFunctionObject*>(wrapper)->func_dict;
  if (attributes == nullptr || !PyDict_CheckExact(attributes)) return nullptr;
  PyObject* found = PyDict_GetItemWithError(attributes, names->dispatcher);
  if (found == nullptr) PyErr_Clear();
  if (found == nullptr || !PyObject_TypeCheck(found, reinterpret_cast<PyTypeObject*>(dispatcher_type))) return nullptr;
  PyObject* reference = dispatcher_of(found).wrapper;
  return reference != nullptr && *cpython::weakref_word(reference) == cpython::bits(wrapper) ? found : nullptr;
}

PyObject* module_gate(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!State::now.is_on || nargs != 3 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
    return Py_NewRef(go_on);
  }
  const Ref dispatcher(Py_XNewRef(dispatcher_serving(compiled_forward(args[0]))));
  if (!dispatcher) return Py_NewRef(go_on);
  PyObject* result = call(dispatcher.get(), args[1], args[2]);
  gone_long = result == go_on ? dispatcher.get() : nullptr;
  return result;
}

PyMethodDef module_gate_method{"module_gate", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(module_gate)),
                               METH_FASTCALL, "Hands a call of a module to the Dispatcher of its compiled forward."};

PyMemberDef kGateMembers[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Gate, call), READONLY, nullptr},
                              {nullptr, 0, 0, 0, nullptr}};

}  // namespace

PyObject* make_dispatcher_type() {
  static Names made;
  names = &made;
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
  dispatcher_type = PyType_FromSpec(&spec);
  return Py_XNewRef(dispatcher_type);
}

PyObject* make_gate_type() {
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("Hands a call to its Dispatcher, if that lives.")},
                         {Py_tp_new, cpython::slot(gate_new)},
                         {Py_tp_call, cpython::slot(PyVectorcall_Call)},
                         {Py_tp_dealloc, cpython::slot(gate_dealloc)},
                         {Py_tp_members, kGateMembers},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.Gate", sizeof(Gate), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  return PyType_FromSpec(&spec);
}

PyObject* make_module_gate() { return PyCFunction_New(&module_gate_method, nullptr); }

PyObject* long_way() {
  if (go_on == nullptr) go_on = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  return Py_XNewRef(go_on);
}

}  // namespace unified_guards
