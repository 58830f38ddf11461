// The self-test that decides whether the layouts in cpython.h are believed.
#include "cpython/cpython.h"

#include <frameobject.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace unified_guards::cpython {

bool run(const char* code, PyObject* scope) {
  PyObject* result = PyRun_String(code, Py_file_input, scope, scope);
  if (result == nullptr) PyErr_Clear();
  Py_XDECREF(result);
  return result != nullptr;
}

PyObject* scope_of(const char* code) {
  PyObject* scope = PyDict_New();
  PyDict_SetItemString(scope, "__builtins__", PyEval_GetBuiltins());
  if (!run(code, scope)) Py_CLEAR(scope);
  return scope;
}

namespace {

// The getter of `__dict__` that the interpreter gives to a class written in Python.
getter usual_dict_getter = PyObject_GenericGetDict;

void find_usual_dict_getter() {
  PyObject* scope = scope_of("class Usual: pass");
  PyObject* usual = scope != nullptr ? PyDict_GetItemString(scope, "Usual") : nullptr;
  PyObject* found = usual != nullptr ? of_type(reinterpret_cast<PyTypeObject*>(usual), "__dict__") : nullptr;
  if (found != nullptr && Py_TYPE(found) == &PyGetSetDescr_Type) {
    usual_dict_getter = reinterpret_cast<PyGetSetDescrObject*>(found)->d_getset->get;
  }
  Py_XDECREF(scope);
}

// Whether entry_at finds every key of a dict, with the value that the public API gives.
bool dict_layout_holds(PyObject* dict) {
  Py_ssize_t cursor = 0, found = 0;
  PyObject *key = nullptr, *value = nullptr;
  const Slot used = entries_used(dict);
  if (used > 1000) return false;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    for (Slot i = 0; i < used; i++) {
      Item item = entry_at(dict, i);
      if (item.key == key && item.value == value) found++;
    }
  }
  return found == PyDict_GET_SIZE(dict);
}

constexpr const char* kProbe = R"(
class Plain: pass
def make(n):
    made = Plain()
    for i in range(n):
        setattr(made, 'a%d' % i, i)
    return made
first, second = make(3), make(20)
made, missing = make(2), Plain()
made.__dict__
deleted = {str(i): i for i in range(9)}
del deleted['4']
dicts = [{}, {'a': 1}, {1: 2, 'b': 3}, deleted, {str(i): i for i in range(300)}, first.__dict__, second.__dict__]
)";

bool holds(PyObject* scope) {
  PyObject* dicts = PyDict_GetItemString(scope, "dicts");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(dicts); i++) {
    if (!dict_layout_holds(PyList_GET_ITEM(dicts, i))) return false;
  }
  PyObject* made = PyDict_GetItemString(scope, "made");
  PyObject* dict = PyObject_GenericGetDict(made, nullptr);
  InstanceDict instance = instance_dict(made);
  bool same = instance.state == DictState::kReady && instance.dict == dict;
  Py_XDECREF(dict);
  return same && instance_dict(PyDict_GetItemString(scope, "missing")).state != DictState::kReady;
}

// Whether the version of a type is another one after `code`.
bool version_moves(PyObject* type, const char* code, PyObject* scope) {
  const Word word = type_version_word(reinterpret_cast<PyTypeObject*>(type));
  if (word == nullptr) return false;
  const uint64_t before = *word;
  return run(code, scope) && *word != before;
}

// Whether an object without attributes is known to be one, and the words move with its first attribute.
bool bareness_holds(PyObject* object, const char* code, PyObject* scope) {
  if (instance_dict(object).state != DictState::kNone) return true;
  const Word dict = dict_word(object), values = values_word(object);
  if (dict == nullptr || *dict != 0 || !is_bare(object)) return false;
  const uint64_t before = values != nullptr ? *values : 0;
  return run(code, scope) && !is_bare(object) && (*dict != 0 || (values != nullptr && *values != before));
}

bool words_hold(PyObject* scope) {
  if (!run("class Base: pass\nclass Derived(Base): pass\nplain = make(2)\n", scope)) return false;
  PyObject* derived = PyDict_GetItemString(scope, "Derived");
  if (!version_moves(derived, "Derived.a = 1", scope) || !version_moves(derived, "Base.b = 1", scope)) return false;
  if (!run("from collections import deque\nclass Queue(deque): pass\nqueue, bare = Queue(), Plain()", scope))
    return false;
  if (!bareness_holds(PyDict_GetItemString(scope, "queue"), "queue.a = 1", scope) ||
      !bareness_holds(PyDict_GetItemString(scope, "bare"), "bare.a1 = 1", scope)) {
    return false;
  }
  PyObject* plain = PyDict_GetItemString(scope, "plain");
  if (instance_dict(plain).state != DictState::kNotMade) return true;
  PyObject* name = PyUnicode_InternFromString("a1");
  const InlineSlot found = inline_slot(plain, name);
  Py_DECREF(name);
  if (found.slot == nullptr) return false;
  const uint64_t holder = *found.holder;
  return run("one = object()\nplain.a1 = one", scope) && *found.slot == bits(PyDict_GetItemString(scope, "one")) &&
         run("plain.__dict__", scope) && (*found.holder != holder || *found.slot != 0);
}

// ---- tables of dicts ----

// Dicts with tables of every kind and size, some of them with deleted entries, and objects to put into them.
constexpr const char* kTableProbe = R"(
from sys import intern
class Shared:
    def __init__(self, n):
        self.a = self.b = self.c = 0
        for i in range(n):
            setattr(self, 'd%d' % i, i)
full, some, few = Shared(9), Shared(5), Shared(0)
del some.b
def make(n):
    return {intern('e%d' % i): i for i in range(n)}
deleted = make(90)
for i in range(0, 90, 3):
    del deleted['e%d' % i]
tables = [{}, {'a': 0}, make(5), deleted, make(250), full.__dict__, some.__dict__, few.__dict__]
names = ['a', 'b', 'd4', 'e3', 'e30'] + [intern('f%d' % i) for i in range(60)]
one, other = object(), object()
)";

// Searches dicts for names while these come, change and go.
class TableTest {
 public:
  TableTest(PyObject* one, PyObject* other) : one_(one), other_(other) {}

  // Whether what the search for a name reads moves with whatever happens to the name.
  bool search_moves(PyObject* dict, PyObject* name) {
    PyObject* before = PyDict_GetItemWithError(dict, name);
    return search_holds(dict, name) && PyDict_SetItem(dict, name, one_) == 0 && moved() && search_holds(dict, name) &&
           PyDict_SetItem(dict, name, other_) == 0 && moved() && search_holds(dict, name) &&
           PyDict_DelItem(dict, name) == 0 && moved() && (before == nullptr || PyDict_SetItem(dict, name, one_) == 0);
  }
  // Whether most searches came to an end; by chance some do not.
  bool found_most() const { return unknown_ * 4 < searches_; }

 private:
  // Whether a search finds what the public API finds. Notes what it reads, in the order of facts.
  bool search_holds(PyObject* dict, PyObject* name) {
    noted_.clear();
    const DictTable table = dict_table(dict);
    if (table.shape == nullptr) return false;
    const Search found = search(dict, name);
    searches_++;
    if (found.result == Search::Result::kUnknown) return ++unknown_ > 0;
    note(table.keys);
    if (table.values != nullptr) note(table.values);
    note(table.shape);
    const bool is_there = found.result == Search::Result::kFound;
    for (size_t at = 0; !is_there && at < found.count; at++) note(found.words[at]);
    if (is_there) note(found.entry.key);
    if (is_there) note(found.entry.value);
    return bits(PyDict_GetItemWithError(dict, name)) == (is_there ? *found.entry.value : 0);
  }
  void note(Word word) { noted_.emplace_back(word, *word); }
  bool moved() const {
    return noted_.empty() ||
           std::any_of(noted_.begin(), noted_.end(), [](const auto& each) { return *each.first != each.second; });
  }

  PyObject *one_, *other_;
  size_t searches_ = 0, unknown_ = 0;
  std::vector<std::pair<Word, uint64_t>> noted_;
};

bool tables_hold() {
  PyObject* scope = scope_of(kTableProbe);
  if (scope == nullptr) return false;
  TableTest test(PyDict_GetItemString(scope, "one"), PyDict_GetItemString(scope, "other"));
  PyObject *tables = PyDict_GetItemString(scope, "tables"), *names = PyDict_GetItemString(scope, "names");
  bool hold = true;
  for (Py_ssize_t table = 0; table < PyList_GET_SIZE(tables); table++) {
    for (Py_ssize_t name = 0; hold && name < PyList_GET_SIZE(names); name++) {
      hold = test.search_moves(PyList_GET_ITEM(tables, table), PyList_GET_ITEM(names, name));
    }
  }
  Py_DECREF(scope);
  if (PyErr_Occurred()) PyErr_Clear();
  return hold && test.found_most();
}

// ---- what sys.monitoring looks at ----

#if PY_VERSION_HEX >= 0x030E0000
// Asks for the returns of a function that never runs, by a tool that nobody uses.
constexpr const char* kMonitorsProbe = R"(
from sys import monitoring
def probed(): pass
code = probed.__code__
tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)
monitoring.use_tool_id(tool, 'unified_guards')
monitoring.set_local_events(tool, code, monitoring.events.PY_RETURN)
)";
constexpr const char* kEndOfMonitorsProbe = R"(
monitoring.set_local_events(tool, code, 0)
monitoring.free_tool_id(tool)
)";

// Whether of all events the one that was asked for has the tool's bit, and no other event has any.
bool is_asked_for(const Monitors* monitors, long tool) {
  for (size_t event = 0; monitors != nullptr && event < Monitors::kEvents; event++) {
    const int expected = event == PY_MONITORING_EVENT_PY_RETURN ? 1 << tool : 0;
    if (monitors->asked_here[event] != expected || (monitors->active[event] & expected) != expected) return false;
  }
  return monitors != nullptr;
}

bool monitors_hold() {
  PyObject* scope = scope_of(kMonitorsProbe);
  if (scope == nullptr) return false;
  const long tool = PyLong_AsLong(PyDict_GetItemString(scope, "tool"));
  const bool hold = is_asked_for(monitors_of(PyDict_GetItemString(scope, "code")), tool);
  const bool is_ended = run(kEndOfMonitorsProbe, scope);
  Py_DECREF(scope);
  return hold && is_ended;
}
#else
bool monitors_hold() { return true; }
#endif

// ---- what code objects carry ----

#if PY_VERSION_HEX >= 0x030C0000
Py_ssize_t request_extra_index(freefunc free) { return PyUnstable_Eval_RequestCodeExtraIndex(free); }
int set_extra(PyObject* code, Py_ssize_t index, void* extra) { return PyUnstable_Code_SetExtra(code, index, extra); }
#else
Py_ssize_t request_extra_index(freefunc free) { return _PyEval_RequestCodeExtraIndex(free); }
int set_extra(PyObject* code, Py_ssize_t index, void* extra) { return _PyCode_SetExtra(code, index, extra); }
#endif

int freed_first = 0, freed_then = 0;
void free_first(void*) { freed_first++; }
void free_then(void*) { freed_then++; }

// An index of our own. When it is asked for, it is the last of all indices.
Py_ssize_t own_extra_index() {
  static const Py_ssize_t index = request_extra_index(free_first);
  return index;
}

// Where the interpreter keeps the function at our index. The interpreter's state has an array of these functions, right
// behind its length: the state is searched for ours.
freefunc* find_own_slot(Py_ssize_t index) {
#if PY_VERSION_HEX < 0x03100000
  auto* slot = reinterpret_cast<freefunc*>(PyInterpreterState_Get());
  constexpr size_t kMostWords = 1 << 20;
  for (size_t word = 0; word < kMostWords && *slot != free_first; word++) slot++;
  return *slot == free_first && reinterpret_cast<Py_ssize_t*>(slot)[-index - 1] == index + 1 ? slot : nullptr;
#else
  (void)index;
  return nullptr;
#endif
}

// Whether the interpreter calls what is written to the slot.
bool slot_holds(freefunc* slot, Py_ssize_t index) {
  PyObject* code = reinterpret_cast<PyObject*>(PyCode_NewEmpty("", "", 1));
  const int before = freed_then;
  *slot = free_then;
  const bool done = code != nullptr && set_extra(code, index, slot) == 0 && set_extra(code, index, nullptr) == 0;
  *slot = free_first;
  Py_XDECREF(code);
  if (PyErr_Occurred()) PyErr_Clear();
  return done && freed_then > before;
}

freefunc* own_extra_slot() {
  const Py_ssize_t index = own_extra_index();
  if (index < 0) return nullptr;
  freefunc* slot = find_own_slot(index);
  return slot != nullptr && slot_holds(slot, index) ? slot : nullptr;
}

}  // namespace

Py_ssize_t only_extra_of(PyObject* code) {
  Py_ssize_t found = -1;
  for (Py_ssize_t index = 0; index < own_extra_index(); index++) {
    if (extra_of(code, index) == nullptr) continue;
    if (found >= 0) return -1;
    found = index;
  }
  return found;
}

freefunc* extra_free_slot(Py_ssize_t index) {
  static freefunc* const own = own_extra_slot();
  if (own == nullptr || index < 0 || index >= own_extra_index()) return nullptr;
  return own - own_extra_index() + index;
}

bool shows_instance_dict(PyObject* object) {
  PyObject* found = of_type(Py_TYPE(object), "__dict__");
  if (found == nullptr || Py_TYPE(found) != &PyGetSetDescr_Type) return false;
  const getter get = reinterpret_cast<PyGetSetDescrObject*>(found)->d_getset->get;
  return (get == usual_dict_getter || get == PyObject_GenericGetDict) &&
         PyObject_TypeCheck(object, PyDescr_TYPE(found));
}

void self_test() {
  find_usual_dict_getter();
#if UG_DICT_LAYOUT
  if (PyObject* scope = scope_of(kProbe)) {
    layouts_known = true;  // the helpers that are tested read it
    layouts_known = holds(scope);
    words_known = layouts_known;
    words_known = layouts_known && words_hold(scope);
    tables_known = words_known;
    tables_known = words_known && tables_hold();
    Py_DECREF(scope);
  }
  monitors_known = monitors_hold();
#endif
}

void add_to_traceback(PyCodeObject* code, PyObject* globals) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  const char* file = PyUnicode_AsUTF8(code->co_filename);
  const char* name = PyUnicode_AsUTF8(code->co_name);
  PyCodeObject* empty = file && name ? PyCode_NewEmpty(file, name, code->co_firstlineno) : nullptr;
  PyFrameObject* frame = empty != nullptr ? PyFrame_New(PyThreadState_Get(), empty, globals, nullptr) : nullptr;
  if (frame == nullptr) PyErr_Clear();
  PyErr_Restore(type, value, traceback);
  if (frame != nullptr) PyTraceBack_Here(frame);
  Py_XDECREF(reinterpret_cast<PyObject*>(frame));
  Py_XDECREF(reinterpret_cast<PyObject*>(empty));
}

}  // namespace unified_guards::cpython
