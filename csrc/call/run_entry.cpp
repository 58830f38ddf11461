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

}  // namespace

PyObject* run_entry(PyObject* dispatcher, const Record& record, const BoundLocals& bound) {
  const Dispatcher& self = dispatcher_of(dispatcher);
  const Surroundings surroundings(self.is_fullgraph);
  PyObject* result = record.plan != nullptr ? record.plan->run(bound) : run_watched(self, record.function, bound);
  if (result != nullptr) return result;
  if (record.plan != nullptr) {
    cpython::add_to_traceback(reinterpret_cast<PyCodeObject*>(self.target.code), self.target.function->func_globals);
  }
  return rescue(dispatcher);
}

}  // namespace unified_guards
