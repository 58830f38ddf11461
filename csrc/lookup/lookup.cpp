// See lookup.h. The type is made by hand and not by pybind11: the call has to be cheap, and the collector has to see
// what entries hold (a model may be a constant of a program that the model holds).
#include "lookup/lookup.h"

#include "check/checker.h"
#include "cpython/cpython.h"
#include "cpython/ref.h"
#include "program/rows.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace unified_guards {
namespace {

struct Names {
  PyObject* args = PyUnicode_InternFromString("args");
  PyObject* kwargs = PyUnicode_InternFromString("kwargs");
  PyObject* miss = PyUnicode_InternFromString("_miss");
};

Names* names = nullptr;  // made with the type

struct Entry {
  explicit Entry(Program program) : checker(std::move(program)) {}

  PyObject* key = nullptr;
  PyObject* compiled = nullptr;
  Checker checker;
  Rebuild rebuild;

  ~Entry() {
    Py_XDECREF(key);
    Py_XDECREF(compiled);
  }
};

// Whoever evaluates or calls an entry shares it, because user code may drop it from the list meanwhile.
using Entries = std::vector<std::shared_ptr<Entry>>;

struct Lookup {
  PyObject_HEAD
  Entries entries;   // the most recently used first
  uint64_t version;  // counts every change of `entries`
  uint64_t hits, misses;
};

Lookup& lookup_of(PyObject* object) { return *reinterpret_cast<Lookup*>(object); }

// How often a walk starts again because user code in a guard changed the entries.
constexpr int kMostWalks = 4;

// Tells the observer the verdict. Its no replaces a yes, but not the other way round: after a no nothing was gathered.
// False with an error set when the observer raises.
bool tell_observer(const Entry& entry, PyObject* frame, bool& verdict) {
  const Ref answer(entry.checker.tell_observer(frame, verdict));
  if (answer.get() == Py_False) verdict = false;
  return static_cast<bool>(answer);
}

void move_to_front(Lookup& self, size_t at) {
  if (at == 0) return;
  std::rotate(self.entries.begin(), self.entries.begin() + at, self.entries.begin() + at + 1);
  self.version++;
}

// Sets `found` to the first entry that passes, and `gathered`, unless that is null, to what it gathers. False with an
// error set where the observer raises.
bool walk(Lookup& self, PyObject* frame, Ref* gathered, std::shared_ptr<Entry>& found) {
  for (int walks = 0; walks < kMostWalks; walks++) {
    const uint64_t version = self.version;
    for (size_t at = 0; self.version == version && at < self.entries.size(); at++) {
      std::shared_ptr<Entry> entry = self.entries[at];
      bool hit = entry->checker.check(frame, gathered != nullptr ? gathered->out() : nullptr);
      if (entry->checker.is_observed() && !tell_observer(*entry, frame, hit)) return false;
      if (hit && self.version == version) {
        move_to_front(self, at);
        found = std::move(entry);
        return true;
      }
      if (gathered != nullptr) gathered->reset();
    }
    if (self.version == version) return true;
  }
  return true;
}

// As above, on the frame of a call.
bool find(PyObject* object, PyObject* args, PyObject* kwargs, Ref* gathered, std::shared_ptr<Entry>& found) {
  const Ref held(Py_NewRef(object));  // a guard may run code of a user's that drops it
  Ref frame(PyDict_New());
  return frame && PyDict_SetItem(frame.get(), names->args, args) == 0 &&
         PyDict_SetItem(frame.get(), names->kwargs, kwargs) == 0 &&
         walk(lookup_of(object), frame.get(), gathered, found);
}

// Calls the compiled function with the list of leaves. Nothing else here owns the leaves, so the function may empty the
// list to free them.
PyObject* call_entry(const Entry& entry, Ref& gathered) {
  if (Py_EnterRecursiveCall(" while calling a compiled function")) return nullptr;
  Ref flat(PyObject_CallOneArg(entry.compiled, gathered.get()));
  Py_LeaveRecursiveCall();
  gathered.reset();
  return flat ? entry.rebuild.run(flat.get()) : nullptr;
}

PyObject* lookup_call(PyObject* object, PyObject* args, PyObject* kwargs) {
  const Ref held(Py_NewRef(object));
  Lookup& self = lookup_of(object);
  Ref named(kwargs != nullptr ? Py_NewRef(kwargs) : PyDict_New());
  Ref gathered;
  std::shared_ptr<Entry> entry;
  if (!named || !find(object, args, named.get(), &gathered, entry)) return nullptr;
  if (entry == nullptr) {
    self.misses++;
    return PyObject_CallMethodObjArgs(object, names->miss, args, named.get(), nullptr);
  }
  self.hits++;
  named.reset();
  return call_entry(*entry, gathered);
}

// ---- entries -----------------------------------------------------------------------------------------------------

Entries::iterator position(Lookup& self, PyObject* key) {
  return std::find_if(self.entries.begin(), self.entries.end(), [&](const auto& entry) { return entry->key == key; });
}

// The entry of `key`; null with a KeyError set when there is none.
Entry* entry_of(PyObject* object, PyObject* key) {
  Lookup& self = lookup_of(object);
  const auto found = position(self, key);
  if (found != self.entries.end()) return found->get();
  PyErr_SetObject(PyExc_KeyError, key);
  return nullptr;
}

// Null with an error set when the rows are not legal.
std::optional<Program> parsed(PyObject* rows) {
  try {
    return program_of(rows);
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  }
  return std::nullopt;
}

PyObject* lookup_add(PyObject* object, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"key", "rows", "compiled", "rebuild", "observer", "share", nullptr};
  PyObject *key = nullptr, *rows = nullptr, *compiled = nullptr, *rebuild = nullptr, *observer = Py_None;
  double share = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|Od:_add", const_cast<char**>(keywords), &key, &rows, &compiled,
                                   &rebuild, &observer, &share)) {
    return nullptr;
  }
  std::optional<Program> program = parsed(rows);
  if (!program) return nullptr;
  auto entry = std::make_shared<Entry>(std::move(*program));
  entry->key = Py_NewRef(key);
  entry->compiled = Py_NewRef(compiled);
  if (observer != Py_None) entry->checker.observer = Py_NewRef(observer);
  entry->checker.share.set(share);
  if (!entry->rebuild.set(rebuild)) return nullptr;
  if (entry->rebuild.needs() > 0) {
    PyErr_SetString(PyExc_ValueError, "a lookup gives nothing beside the flat outputs");
    return nullptr;
  }
  Lookup& self = lookup_of(object);
  if (position(self, key) != self.entries.end()) {
    PyErr_SetString(PyExc_ValueError, "there is an entry with this key");
    return nullptr;
  }
  self.entries.insert(self.entries.begin(), std::move(entry));
  self.version++;
  Py_RETURN_NONE;
}

PyObject* lookup_ask_first(PyObject* object, PyObject* arguments) {
  PyObject *key = nullptr, *rows = nullptr;
  long long first_row = 0;
  if (!PyArg_ParseTuple(arguments, "OOL:_ask_first", &key, &rows, &first_row)) return nullptr;
  const std::optional<Program> guard = parsed(rows);
  if (!guard) return nullptr;
  Entry* entry = entry_of(object, key);
  if (entry == nullptr) return nullptr;
  try {
    entry->checker.ask_first(std::make_unique<Discriminator>(*guard, first_row));
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* lookup_drop(PyObject* object, PyObject* key) {
  Lookup& self = lookup_of(object);
  const auto at = position(self, key);
  if (at == self.entries.end()) Py_RETURN_FALSE;
  const std::shared_ptr<Entry> dropped = std::move(*at);  // dies last: that may run user code
  self.entries.erase(at);
  self.version++;
  Py_RETURN_TRUE;
}

int lookup_clear(PyObject* object) {
  Lookup& self = lookup_of(object);
  const Entries dropped = std::exchange(self.entries, {});
  self.version++;
  return 0;
}

PyObject* lookup_clear_method(PyObject* object, PyObject*) {
  lookup_clear(object);
  Py_RETURN_NONE;
}

PyObject* lookup_keys(PyObject* object, PyObject*) {
  const Entries& entries = lookup_of(object).entries;
  PyObject* keys = PyList_New(static_cast<Py_ssize_t>(entries.size()));
  for (size_t i = 0; keys != nullptr && i < entries.size(); i++) {
    PyList_SET_ITEM(keys, static_cast<Py_ssize_t>(i), Py_NewRef(entries[i]->key));
  }
  return keys;
}

PyObject* lookup_find(PyObject* object, PyObject* arguments) {
  PyObject *args = nullptr, *kwargs = nullptr;
  if (!PyArg_ParseTuple(arguments, "O!O!:_find", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) return nullptr;
  std::shared_ptr<Entry> entry;
  if (!find(object, args, kwargs, nullptr, entry)) return nullptr;
  return Py_NewRef(entry != nullptr ? entry->key : Py_None);
}

PyObject* lookup_counts(PyObject* object, PyObject* key) {
  const Entry* entry = entry_of(object, key);
  if (entry == nullptr) return nullptr;
  const Counts counts = entry->checker.counts();
  return Py_BuildValue("KKKK", static_cast<unsigned long long>(counts.checks()),
                       static_cast<unsigned long long>(counts.hits), static_cast<unsigned long long>(counts.misses),
                       static_cast<unsigned long long>(counts.python_callbacks));
}

PyObject* lookup_nbytes(PyObject* object, PyObject* key) {
  const Entry* entry = entry_of(object, key);
  return entry != nullptr ? PyLong_FromSize_t(entry->checker.bytes() + entry->rebuild.bytes()) : nullptr;
}

PyObject* lookup_length(PyObject* object, PyObject* key) {
  const Entry* entry = entry_of(object, key);
  return entry != nullptr ? PyLong_FromSize_t(entry->checker.length()) : nullptr;
}

PyObject* lookup_last_failure(PyObject* object, PyObject* key) {
  const Entry* entry = entry_of(object, key);
  if (entry == nullptr) return nullptr;
  const int64_t at = entry->checker.last_failure();
  return at < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(at);
}

PyObject* lookup_hits(PyObject* object, void*) { return PyLong_FromUnsignedLongLong(lookup_of(object).hits); }

PyObject* lookup_misses(PyObject* object, void*) { return PyLong_FromUnsignedLongLong(lookup_of(object).misses); }

// ---- the type ----------------------------------------------------------------------------------------------------

PyObject* lookup_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* object = type->tp_alloc(type, 0);
  if (object != nullptr) new (&lookup_of(object).entries) Entries();
  return object;
}

int lookup_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  for (const auto& entry : lookup_of(object).entries) {
    Py_VISIT(entry->key);
    Py_VISIT(entry->compiled);
    if (const int stop = entry->checker.traverse(visit, arg)) return stop;
    if (const int stop = entry->rebuild.traverse(visit, arg)) return stop;
  }
  return 0;
}

void lookup_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  lookup_clear(object);
  lookup_of(object).entries.~Entries();
  type->tp_free(object);
  Py_DECREF(type);
}

PyMethodDef kMethods[] = {
    {"_add", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(lookup_add)), METH_VARARGS | METH_KEYWORDS,
     "_add(key, rows, compiled, rebuild, observer=None, share=1): puts an entry in front."},
    {"_ask_first", lookup_ask_first, METH_VARARGS,
     "_ask_first(key, rows, first_row): a guard that an entry asks first; its rows are numbered from first_row."},
    {"_drop", lookup_drop, METH_O, "Whether there was an entry of this key; it is gone."},
    {"_clear", lookup_clear_method, METH_NOARGS, "Drops every entry."},
    {"_keys", lookup_keys, METH_NOARGS, "The keys of all entries, the most recently used first."},
    {"_find", lookup_find, METH_VARARGS, "_find(args, kwargs): the key of the entry that a call would use, or None."},
    {"_counts", lookup_counts, METH_O, "(checks, hits, misses, Python callbacks) of an entry."},
    {"_nbytes", lookup_nbytes, METH_O, "The memory that an entry takes."},
    {"_length", lookup_length, METH_O, "How many instructions an entry has."},
    {"_last_failure", lookup_last_failure, METH_O, "The row of an entry that failed last, or None."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef kGetters[] = {{"_hits", lookup_hits, nullptr, "Calls that used an entry.", nullptr},
                          {"_misses", lookup_misses, nullptr, "Calls that no entry fitted.", nullptr},
                          {nullptr, nullptr, nullptr, nullptr, nullptr}};

constexpr const char* kDoc =
    "A callable that keeps entries and calls the first whose guards hold; else self._miss(args, kwargs).";

}  // namespace

PyObject* make_lookup_type() {
  static Names made;
  if (made.args == nullptr || made.kwargs == nullptr || made.miss == nullptr) return nullptr;
  names = &made;
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>(kDoc)},
                         {Py_tp_new, cpython::slot(lookup_new)},
                         {Py_tp_call, cpython::slot(lookup_call)},
                         {Py_tp_traverse, cpython::slot(lookup_traverse)},
                         {Py_tp_clear, cpython::slot(lookup_clear)},
                         {Py_tp_dealloc, cpython::slot(lookup_dealloc)},
                         {Py_tp_methods, kMethods},
                         {Py_tp_getset, kGetters},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.Lookup", sizeof(Lookup), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, slots};
  return PyType_FromSpec(&spec);
}

}  // namespace unified_guards
