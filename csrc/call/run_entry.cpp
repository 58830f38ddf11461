// See run_entry.h.
#include "call/run_entry.h"

#include "cpython/errors.h"
#include "cpython/ref.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace unified_guards {
namespace {

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

// Dynamo's config as the wrapper of torch's has it while compiled code runs: what is compiled then reads it.
class Patched {
 public:
  explicit Patched(PyObject* patches) : reverts_(PyList_New(0)) {
    is_done_ = static_cast<bool>(reverts_);
    for (Py_ssize_t at = 0; is_done_ && at < PyTuple_GET_SIZE(patches); at++) {
      const Ref revert(PyObject_CallNoArgs(PyTuple_GET_ITEM(patches, at)));
      is_done_ = revert && PyList_Append(reverts_.get(), revert.get()) == 0;
    }
  }
  Patched(const Patched&) = delete;
  ~Patched() {
    const KeptError kept;
    for (Py_ssize_t at = 0; reverts_ && at < PyList_GET_SIZE(reverts_.get()); at++) {
      const Ref done(PyObject_CallNoArgs(PyList_GET_ITEM(reverts_.get(), at)));
      if (!done) PyErr_Clear();
    }
  }

  bool is_done() const { return is_done_; }

 private:
  Ref reverts_;
  bool is_done_;
};

// Runs code that may go on in frames that are to be compiled. Its own frame is not: dynamo/dispatch.py has it skipped.
// `handed` is what a plan has handed over to it; null where the code runs from its beginning.
PyObject* run_watched(const Dispatcher& self, PyObject* function, const BoundLocals& bound, PyObject* handed) {
  const Patched patched(self.patches);
  if (!patched.is_done() || !set_callback(self.callback)) return nullptr;
  PyObject* result =
      handed == nullptr ? self.signature.call(function, bound) : self.signature.call_flat(function, bound, handed);
  const KeptError kept;
  if (!set_callback(Py_None)) PyErr_Clear();
  return result;
}

// The exception that left the compiled code, as torch's wrapper would raise it.
PyObject* rescue(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_rescue");
  PyObject* error = cpython::raised_exception();
  const Ref answer(PyObject_CallMethodOneArg(object, name, error));
  if (answer) {
    PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(error))), error, PyException_GetTraceback(error));
  } else {
    Py_DECREF(error);  // another form of it was raised
  }
  return nullptr;
}

// As the plan says, and then as the code that is left, where the frame that calls does not run that itself.
PyObject* run_plan(const Dispatcher& self, const Record& record, const BoundLocals& bound, Inputs& inputs) {
  PyObject* result = record.plan->run(bound, inputs);
  if (result == nullptr && !self.serves_frame()) {
    cpython::add_to_traceback(reinterpret_cast<PyCodeObject*>(self.target.code), self.target.function->func_globals);
  }
  if (result == nullptr || record.function == nullptr) return result;
  const Ref handed(result);
  return run_watched(self, record.function, bound, handed.get());
}

// As the plan says, and as Dynamo's code says; the graph runs once. Where code is left to run after the graph, only
// what comes before it is compared.
PyObject* run_compared(const Dispatcher& self, const Record& record, const BoundLocals& bound, Inputs& inputs) {
  const Ref gathered(record.plan->gathered(bound, inputs));
  const Ref call(gathered ? PyObject_CallOneArg(record.comparison, gathered.get()) : nullptr);
  const Ref function(call ? PyObject_CallMethod(record.comparison, "function", "O", call.get()) : nullptr);
  if (!function) return nullptr;
  const Ref result(self.signature.call(function.get(), bound));
  if (record.plan->has_rest()) {
    const Ref error(result ? Py_NewRef(Py_None) : cpython::raised_exception());
    const Ref given(PyObject_CallMethod(call.get(), "stopped", "O", error.get()));
    if (!given) return nullptr;
    record.plan->give(given.get(), inputs);
    return run_plan(self, record, bound, inputs);
  }
  if (!result) return nullptr;
  const Ref way(PyObject_GetAttrString(call.get(), "builds"));
  if (!way) return nullptr;
  if (way.get() == Py_None) return Py_NewRef(result.get());
  const auto builds = make_plan(self, way.get());
  Inputs none;
  const Ref built(builds != nullptr ? builds->run(bound, none) : nullptr);
  return built ? PyObject_CallMethod(call.get(), "end", "OO", result.get(), built.get()) : nullptr;
}

// Dynamo's frame hook is off.
PyObject* run_record(const Dispatcher& self, Record& record, const BoundLocals& bound, Inputs& inputs) {
  if (record.plan == nullptr) return run_watched(self, record.function, bound, nullptr);
  if (record.comparison == nullptr || record.hits++ % record.every != 0) {
    return run_plan(self, record, bound, inputs);
  }
  return run_compared(self, record, bound, inputs);
}

}  // namespace

PyObject* run_entry(PyObject* dispatcher, Record& record, const BoundLocals& bound, Inputs& inputs) {
  const Dispatcher& self = dispatcher_of(dispatcher);
  // Torch may drop the entry meanwhile. The globals that Dynamo has made for its code go with the code.
  const Ref code(Py_NewRef(record.code));
  const Surroundings surroundings(self.is_fullgraph);
  PyObject* result = run_record(self, record, bound, inputs);
  return result != nullptr ? result : rescue(dispatcher);
}

PyObject* run_in_frame(const Dispatcher& self, Record& record, const BoundLocals& bound, Inputs& inputs) {
  if (!record.plan->gather(bound, inputs)) return nullptr;  // with the hook on: a read may run code of a user's
  const HookOff off;
  return off.callback() != nullptr ? run_record(self, record, bound, inputs) : nullptr;
}

}  // namespace unified_guards
