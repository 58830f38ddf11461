// See watch.h.
#include "cpython/watch.h"

#include <memory>
#include <unordered_map>
#include <vector>

namespace unified_guards {

#ifdef UG_DICT_TAGS

bool dicts_are_versioned() { return true; }

cpython::Word dict_version_word(PyObject* dict) { return cpython::dict_tag_word(dict); }

#else

namespace {

// A watch ends with the first event. A check that still needs the dict evaluates again, and watches again. So from
// Python 3.13 on, a dict that changes a thousand times between two checks costs one event, and a dict that no check
// needs any more costs nothing. Python 3.12 does not let a watcher end its own watch: events of dicts that no check
// needs go on.
class Watched {
 public:
  uint64_t* counter_of(PyObject* dict) {
    const auto found = counters_.find(dict);
    if (found != counters_.end()) return found->second;
    if (PyDict_Watch(watcher_, dict) < 0) {
      PyErr_Clear();
      return nullptr;
    }
    uint64_t* counter = take();
    counters_.emplace(dict, counter);
    return counter;
  }

  void moved(PyObject* dict) {
    const auto found = counters_.find(dict);
    if (found == counters_.end()) return;
    ++*found->second;
    // A counter only ever counts up, so a fact with an old count is not misled when the counter gets another dict.
    free_.push_back(found->second);
    counters_.erase(found);
  }

  bool start();

  int watcher() const { return watcher_; }

 private:
  static constexpr size_t kBlock = 512;

  uint64_t* take() {
    if (free_.empty()) {
      blocks_.push_back(std::make_unique<uint64_t[]>(kBlock));
      for (size_t i = kBlock; i-- > 0;) free_.push_back(&blocks_.back()[i]);
    }
    uint64_t* counter = free_.back();
    free_.pop_back();
    return counter;
  }

  int watcher_ = -1;
  std::unordered_map<PyObject*, uint64_t*> counters_;
  std::vector<std::unique_ptr<uint64_t[]> > blocks_;
  std::vector<uint64_t*> free_;
};

Watched& watched() {
  static Watched* all = new Watched();  // outlives every dict
  return *all;
}

int on_event(PyDict_WatchEvent event, PyObject* dict, PyObject*, PyObject*) {
  watched().moved(dict);
  if (event != PyDict_EVENT_DEALLOCATED && PyDict_Unwatch(watched().watcher(), dict) < 0) PyErr_Clear();
  return 0;
}

// Changes a dict in every way, also by instructions that the interpreter has specialised. Each `change(i)` has to bring
// an event.
constexpr const char* kProbe = R"(
class Instance: pass
made = Instance()
made.a, made.b = 0, 1
one = made.__dict__
other = Instance()
other.a, other.b = 0, 1
two = other.__dict__
three = {'a': 0}
hinted = Instance()
hinted.__dict__ = four = {'a': 0}
number = 0
def by_attribute(i): made.a = i
def by_new_attribute(i): setattr(other, 'c%d' % i, i)
def by_item(i): three['a'] = i
def by_update(i): three.update(a=-1 - i)
def by_deletion(i):
    three['z'] = i
    del three['z']
def by_hinted_attribute(i): hinted.a = i
def by_global(i):
    global number
    number = i
changes = [(one, by_attribute), (two, by_new_attribute), (three, by_item), (three, by_update), (three, by_deletion),
           (four, by_hinted_attribute), (globals(), by_global)]
)";

bool is_told(Watched& all, PyObject* dict, PyObject* change) {
  for (long i = 0; i < 200; i++) {
    const uint64_t* counter = all.counter_of(dict);
    if (counter == nullptr) return false;
    const uint64_t before = *counter;
    PyObject* result = PyObject_CallFunction(change, "l", i + 1);
    Py_XDECREF(result);
    if (result == nullptr || *counter == before) {
      PyErr_Clear();
      return false;
    }
  }
  return true;
}

bool Watched::start() {
  watcher_ = PyDict_AddWatcher(on_event);
  if (watcher_ < 0) {
    PyErr_Clear();
    return false;
  }
  PyObject* scope = cpython::scope_of(kProbe);
  bool told = scope != nullptr;
  PyObject* changes = told ? PyDict_GetItemString(scope, "changes") : nullptr;
  for (Py_ssize_t i = 0; told && i < PyList_GET_SIZE(changes); i++) {
    PyObject* change = PyList_GET_ITEM(changes, i);
    told = is_told(*this, PyTuple_GET_ITEM(change, 0), PyTuple_GET_ITEM(change, 1));
  }
  Py_XDECREF(scope);
  if (!told && PyDict_ClearWatcher(watcher_) < 0) PyErr_Clear();
  return told;
}

}  // namespace

bool dicts_are_versioned() {
  // Finding out runs Python code, during which another thread or a finalizer may ask the same: these get a no.
  static int versioned = -1;
  if (versioned < 0) {
    versioned = 0;
    versioned = watched().start();
  }
  return versioned != 0;
}

cpython::Word dict_version_word(PyObject* dict) { return dicts_are_versioned() ? watched().counter_of(dict) : nullptr; }

#endif

}  // namespace unified_guards
