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

// As the plan says, and as Dynamo's code says; the graph runs once.
PyObject* run_compared(const Dispatcher& self, const Record& record, const BoundLocals& bound) {
  const Ref inputs(record.gathers->run(bound));
  const Ref call(inputs ? PyObject_CallOneArg(record.comparison, inputs.get()) : nullptr);
  const Ref function(call ? PyObject_CallMethod(record.comparison, "function", "O", call.get()) : nullptr);
  const Ref result(function ? self.signature.call(function.get(), bound) : nullptr);
  const Ref way(result ? PyObject_GetAttrString(call.get(), "builds") : nullptr);
  if (!way) return nullptr;
  if (way.get() == Py_None) return Py_NewRef(result.get());
  const auto builds = make_plan(self, way.get());
  const Ref built(builds != nullptr ? builds->run(bound) : nullptr);
  return built ? PyObject_CallMethod(call.get(), "end", "OO", result.get(), built.get()) : nullptr;
}

PyObject* run_record(const Dispatcher& self, Record& record, const BoundLocals& bound) {
  if (record.plan == nullptr) return run_watched(self, record.function, bound);
  if (record.comparison == nullptr || record.hits++ % record.every != 0) return record.plan->run(bound);
  return run_compared(self, record, bound);
}

}  // namespace

PyObject* run_entry(PyObject* dispatcher, Record& record, const BoundLocals& bound) {
  const Dispatcher& self = dispatcher_of(dispatcher);
  const Surroundings surroundings(self.is_fullgraph);
  PyObject* result = run_record(self, record, bound);
  if (result != nullptr) return result;
  if (record.plan != nullptr) {
    cpython::add_to_traceback(reinterpret_cast<PyCodeObject*>(self.target.code), self.target.function->func_globals);
  }
  return rescue(dispatcher);
}

}  // namespace unified_guards
