// See state.h.
#include "call/state.h"

#include "cpython/cpython.h"
#include "cpython/ref.h"

#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/PythonDispatcherTLS.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/jit/frontend/tracer.h>

namespace unified_guards {

State State::now;

namespace {

struct Names {
  PyObject* tracing_context = PyUnicode_InternFromString("tracing_context");
  PyObject* is_exporting = PyUnicode_InternFromString("_is_exporting_flag");
  PyObject* is_fx_tracing = PyUnicode_InternFromString("_is_fx_tracing_flag");
  PyObject* stance = PyUnicode_InternFromString("_stance");
  PyObject* generation = PyUnicode_InternFromString("generation");
  PyObject* dict = PyUnicode_InternFromString("__dict__");
};

const Names& names() {
  static const Names made;
  return made;
}

// A C function without keyword arguments, called without a tuple: a new reference.
PyObject* call_directly(PyObject* function, PyObject* argument) {
  return PyCFunction_GET_FUNCTION(function)(PyCFunction_GET_SELF(function), argument);
}

// A global of a module of torch's; null where there is none.
PyObject* global(PyObject* module_names, PyObject* name, cpython::Slot& slot) {
  return cpython::find_purely(module_names, name, slot).value;
}

bool callback_is_none() {
  const Ref callback(call_directly(State::now.get_callback, nullptr));
  return callback.get() == Py_None;
}

// The dict of a thread's part of the threading.local. The thread owns it as long as it lives.
PyObject* tracing_names() {
  struct Known {
    uint64_t thread = 0;
    PyObject* names = nullptr;
  };
  thread_local Known known;
  const uint64_t thread = PyThreadState_GetID(PyThreadState_Get());
  if (known.thread == thread) return known.names;
  const Ref found(PyObject_GetAttr(State::now.tracing_local, names().dict));
  if (!found || !PyDict_CheckExact(found.get())) {
    PyErr_Clear();
    return nullptr;
  }
  known = {thread, found.get()};
  return known.names;
}

bool is_tracing() {
  PyObject* local = tracing_names();
  if (local == nullptr) return true;
  PyObject* context = PyDict_GetItemWithError(local, names().tracing_context);
  if (context == nullptr && PyErr_Occurred()) PyErr_Clear();
  return context != nullptr && context != Py_None;
}

bool is_profiled() {
  const PyThreadState* thread = PyThreadState_Get();
  if (thread->c_profilefunc != nullptr || thread->c_tracefunc != nullptr) return true;
  return at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION).has_value();
}

// The key is included as long as the stack of transforms is not empty.
bool is_in_functorch() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

bool is_in_mode() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set() || c10::impl::PythonDispatcherTLS::get_state() != nullptr;
}

bool is_c_function(PyObject* object, int flags) {
  return object != nullptr && PyCFunction_CheckExact(object) && PyCFunction_GET_FLAGS(object) == flags;
}

}  // namespace

bool learn_state(PyObject* found) {
  State next = State::now;
  const auto take = [&](const char* name) { return PyDict_GetItemString(found, name); };
  next.get_callback = take("get_callback");
  next.set_frame_count = take("set_frame_count");
  next.tracing_local = take("tracing_local");
  next.compiler_names = take("compiler_names");
  next.fx_names = take("fx_names");
  next.eval_frame_names = take("eval_frame_names");
  next.stance = take("stance");
  next.generations = take("generations");
  const bool known = is_c_function(next.get_callback, METH_NOARGS) && is_c_function(next.set_frame_count, METH_O) &&
                     next.tracing_local != nullptr && next.compiler_names != nullptr && next.fx_names != nullptr &&
                     next.eval_frame_names != nullptr && next.stance != nullptr && next.generations != nullptr &&
                     PyDict_CheckExact(next.compiler_names) && PyDict_CheckExact(next.fx_names) &&
                     PyDict_CheckExact(next.eval_frame_names);
  if (!known) {
    PyErr_SetString(PyExc_RuntimeError, "this torch does not have what its wrapper of compiled functions looks at");
    return false;
  }
  Py_INCREF(found);  // owns all that is in it, for good
  State::now = next;
  return true;
}

Why why_long() {
  static cpython::Slot exporting = 0, fx = 0, stance = 0;
  State& state = State::now;
  if (!state.is_on) return Why::kOff;
  if (!callback_is_none()) return Why::kDynamo;
  if (is_tracing()) return Why::kTracing;
  if (global(state.compiler_names, names().is_exporting, exporting) != Py_False) return Why::kExporting;
  if (global(state.fx_names, names().is_fx_tracing, fx) != Py_False) return Why::kFxTracing;
  if (torch::jit::tracer::isTracing()) return Why::kJitTracing;
  if (is_in_functorch()) return Why::kFunctorch;
  if (is_in_mode()) return Why::kMode;
  if (global(state.eval_frame_names, names().stance, stance) != state.stance) return Why::kStance;
  if (state.is_hooked) return Why::kHook;
  if (is_profiled()) return Why::kProfiling;
  return Why::kNone;
}

bool count_generation() {
  PyObject* tracker = State::now.generations;
  static PyObject* const one = PyLong_FromLong(1);
  const Ref before(PyObject_GetAttr(tracker, names().generation));
  if (!before) return false;
  const Ref after(PyNumber_Add(before.get(), one));
  return after && PyObject_SetAttr(tracker, names().generation, after.get()) == 0;
}

int exchange_frame_count(int count) {
  const Ref number(PyLong_FromLong(count));
  const Ref before(call_directly(State::now.set_frame_count, number.get()));
  return before ? static_cast<int>(PyLong_AsLong(before.get())) : 0;
}

}  // namespace unified_guards
