// See state.h.
#include "call/state.h"

#include "cpython/cpython.h"
#include "cpython/errors.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/PythonDispatcherTLS.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <cstring>
#include <utility>

namespace unified_guards {

State State::now;

namespace {

PyObject* interned(PyObject** kept, const char* text) {
  if (*kept == nullptr) *kept = PyUnicode_InternFromString(text);
  return *kept;
}

// A C function without keyword arguments, called without a tuple: a new reference.
PyObject* call_directly(PyObject* function, PyObject* argument) {
  return PyCFunction_GET_FUNCTION(function)(PyCFunction_GET_SELF(function), argument);
}

// The dict of this thread's part of a threading.local; null with an error set. The thread owns it as long as it lives.
PyObject* names_of_thread(PyObject* local) {
  static PyObject* dict_name = nullptr;
  const Ref found(PyObject_GetAttr(local, interned(&dict_name, "__dict__")));
  return found && PyDict_CheckExact(found.get()) ? found.get() : nullptr;
}

// The dicts of all flags, for one thread after the other: asking a threading.local costs as much as a lookup.
PyObject* const* dicts_of_flags(const std::vector<Flag>& flags) {
  struct Known {
    uint64_t thread = 0;
    std::vector<PyObject*> dicts;
  };
  thread_local Known known;
  const uint64_t thread = PyThreadState_GetID(PyThreadState_Get());
  if (known.thread == thread && known.dicts.size() == flags.size()) return known.dicts.data();
  known.thread = 0;
  known.dicts.clear();
  for (const Flag& flag : flags) {
    PyObject* dict = PyDict_CheckExact(flag.holder) ? flag.holder : names_of_thread(flag.holder);
    if (dict == nullptr) {
      PyErr_Clear();
      return nullptr;
    }
    known.dicts.push_back(dict);
  }
  known.thread = thread;
  return known.dicts.data();
}

// Stances are compared by value: set_stance("default") makes a new one.
bool is_the_same(Flag& flag, PyObject* found) {
  if (flag.why != Why::kStance || Py_TYPE(found) != Py_TYPE(flag.expected)) return false;
  const int same = PyObject_RichCompareBool(found, flag.expected, Py_EQ);
  if (same < 0) PyErr_Clear();
  if (same <= 0) return false;
  Py_SETREF(flag.expected, Py_NewRef(found));
  return true;
}

// The first flag that is not as expected. Graph breaks are no business of an AOT entry point.
Why first_flag(std::vector<Flag>& flags, bool is_own) {
  PyObject* const* dicts = dicts_of_flags(flags);
  if (dicts == nullptr) return Why::kOff;
  for (size_t at = 0; at < flags.size(); at++) {
    Flag& flag = flags[at];
    const cpython::Found found = cpython::find_purely(dicts[at], flag.name, flag.slot);
    if (found.certain && (found.value == nullptr || found.value == flag.expected)) continue;
    if (is_own && flag.why == Why::kBreaks) continue;
    if (!found.certain || !is_the_same(flag, found.value)) return flag.why;
  }
  return Why::kNone;
}

bool is_profiled() {
  const PyThreadState* thread = PyThreadState_Get();
  if (thread->c_profilefunc != nullptr || thread->c_tracefunc != nullptr || cpython::is_monitored()) return true;
  return at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION).has_value();
}

bool is_in_dispatch_mode() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set() || c10::impl::PythonDispatcherTLS::get_state() != nullptr;
}

bool is_in_mode() { return at::impl::PythonTorchFunctionTLS::stack_len() > 0 || is_in_dispatch_mode(); }

bool callback_is_none() {
  const Ref callback(call_directly(State::now.get_callback, nullptr));
  return callback.get() == Py_None;
}

// Whether somebody traces this call, or transforms it.
Why why_traced(bool is_own) {
  if (const Why why = first_flag(State::now.flags, is_own); why != Why::kNone) return why;
  if (torch::jit::tracer::isTracing()) return Why::kJitTracing;
  return is_in_functorch() ? Why::kFunctorch : Why::kNone;
}

bool is_c_function(PyObject* object, int flags) {
  return object != nullptr && PyCFunction_CheckExact(object) && PyCFunction_GET_FLAGS(object) == flags;
}

}  // namespace

namespace {

bool add_flag(std::vector<Flag>& flags, PyObject* found) {
  const char* why = nullptr;
  Flag flag{};
  if (!PyArg_ParseTuple(found, "sOUO", &why, &flag.holder, &flag.name, &flag.expected)) return false;
  if (!why_named(why, flag.why)) return false;
  for (PyObject* object : {flag.holder, flag.name, flag.expected}) Py_INCREF(object);
  PyUnicode_InternInPlace(&flag.name);
  flags.push_back(flag);
  return true;
}

}  // namespace

bool learn_state(PyObject* flags, PyObject* get_callback, PyObject* set_callback, PyObject* set_frame_count,
                 PyObject* generations, PyObject* undo_layers) {
  if (!is_c_function(get_callback, METH_NOARGS) || !is_c_function(set_callback, METH_O) ||
      !(set_frame_count == Py_None || is_c_function(set_frame_count, METH_O))) {
    PyErr_SetString(PyExc_TypeError, "torch's functions are of another kind than this was written for");
    return false;
  }
  State next;
  for (Py_ssize_t at = 0; at < PyList_GET_SIZE(flags); at++) {
    if (!add_flag(next.flags, PyList_GET_ITEM(flags, at))) return false;
  }
  next.is_on = State::now.is_on;
  next.moves_hits = State::now.moves_hits;
  next.is_hooked = State::now.is_hooked;
  next.get_callback = Py_NewRef(get_callback);
  next.set_callback = Py_NewRef(set_callback);
  next.generations = Py_NewRef(generations);
  next.is_counted_by_class = Py_TYPE(generations) == &PyType_Type &&
                             (reinterpret_cast<PyTypeObject*>(generations)->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0;
  next.undo_layers = Py_NewRef(undo_layers);
  if (set_frame_count != Py_None) next.set_frame_count = Py_NewRef(set_frame_count);
  State::now = std::move(next);
  return true;
}

bool learn_flag(PyObject* flag) { return add_flag(State::now.flags, flag); }

bool why_named(const char* name, Why& why) {
  static constexpr const char* kNames[] = {
#define UG_NAME(name, text) #name,
      UG_LONG_WAYS(UG_NAME)
#undef UG_NAME
  };
  for (size_t at = 0; at < kWhys; at++) {
    if (std::strcmp(kNames[at], name) != 0) continue;
    why = static_cast<Why>(at);
    return true;
  }
  PyErr_Format(PyExc_ValueError, "there is no reason %s", name);
  return false;
}

Why why_long() {
  if (!State::now.is_on) return Why::kOff;
  return callback_is_none() ? why_long_in_frame() : Why::kDynamo;
}

Why why_long_in_frame() {
  State& state = State::now;
  if (!state.is_on) return Why::kOff;
  if (const Why why = why_traced(/*is_own=*/false); why != Why::kNone) return why;
  if (is_in_mode()) return Why::kMode;
  if (state.is_hooked) return Why::kHook;
  if (is_profiled()) return Why::kProfiling;
  return Why::kNone;
}

Why why_own_long() {
  if (const Why why = why_traced(/*is_own=*/true); why != Why::kNone) return why;
  return is_in_dispatch_mode() ? Why::kMode : Why::kNone;  // modes of torch functions are guarded
}

bool count_generation() {
  static PyObject* const one = PyLong_FromLong(1);
  static PyObject* name = nullptr;
  PyObject* tracker = State::now.generations;
  if (!State::now.is_counted_by_class) {
    const Ref before(PyObject_GetAttr(tracker, interned(&name, "generation")));
    const Ref after(before ? PyNumber_Add(before.get(), one) : nullptr);
    return after && PyObject_SetAttr(tracker, name, after.get()) == 0;
  }
  auto* type = reinterpret_cast<PyTypeObject*>(tracker);
  PyObject* before = cpython::own_attribute(type, interned(&name, "generation"));
  const Ref after(before != nullptr ? PyNumber_Add(before, one) : nullptr);
  return after && cpython::set_own_attribute(type, name, after.get());
}

bool set_callback(PyObject* callback) {
  const Ref before(call_directly(State::now.set_callback, callback));
  return static_cast<bool>(before);
}

HookOff::HookOff() : before_(call_directly(State::now.set_callback, Py_None)) {}

HookOff::~HookOff() {
  if (!before_ || before_.get() == Py_None) return;
  const KeptError kept;
  if (!set_callback(before_.get())) PyErr_Clear();
}

// The key is included as long as the stack of transforms is not empty.
bool is_in_functorch() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

void leave_functorch() {
  const Ref done(PyObject_CallFunction(State::now.undo_layers, "i", 0));
  if (!done) PyErr_Clear();
}

int exchange_frame_count(int count) {
  if (State::now.set_frame_count == nullptr) return -1;
  const Ref number(PyLong_FromLong(count));
  const Ref before(call_directly(State::now.set_frame_count, number.get()));
  return before ? static_cast<int>(PyLong_AsLong(before.get())) : 0;
}

}  // namespace unified_guards
