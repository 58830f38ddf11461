// See frame_gate.h.
#include "call/frame_gate.h"

#include "call/decide.h"
#include "call/dispatcher.h"
#include "call/dispatcher_type.h"
#include "call/run_entry.h"
#include "cpython/ref.h"

#include <cstddef>
#include <memory>
#include <optional>

namespace unified_guards {
namespace {

struct FrameGate {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject* dispatcher;  // owned; it knows the one entry
};

void take_inputs(Dispatcher& self, const Record& record, const BoundLocals& bound, Inputs& inputs) {
  const Frame frame(self, bound);
  if (frame.is_ready()) record.plan->take(record.checker->still_found(frame.dict()), inputs);
}

// The result, null with an error set, or nothing where the code has to go on as Dynamo wrote it.
std::optional<PyObject*> follow_plan(Dispatcher& self, PyObject* const* locals, size_t count) {
  if (why_long_in_frame() != Why::kNone || self.records.empty()) return std::nullopt;
  // A function that was made of the same code may have other globals.
  if (PyEval_GetGlobals() != self.target.function->func_globals) return std::nullopt;
  const std::shared_ptr<Record> record = self.records.front();
  BoundLocals bound;
  if (!self.signature.bind_frame(bound, locals, count)) return std::nullopt;
  Inputs inputs;
  take_inputs(self, *record, bound, inputs);
  self.shorts++;
  totals.frames++;
  return run_in_frame(self, *record, bound, inputs);
}

PyObject* frame_gate_call(PyObject* object, PyObject* const* args, size_t nargs, PyObject*) {
  const Ref dispatcher(Py_NewRef(reinterpret_cast<FrameGate*>(object)->dispatcher));
  const auto result = follow_plan(dispatcher_of(dispatcher.get()), args, PyVectorcall_NARGS(nargs));
  return result ? *result : Py_NewRef(long_way());
}

PyObject* frame_gate_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* dispatcher = nullptr;
  if (!PyArg_ParseTuple(args, "O:FrameGate", &dispatcher)) return nullptr;
  if (!is_dispatcher(dispatcher)) {
    PyErr_SetString(PyExc_TypeError, "a gate is made for a dispatcher");
    return nullptr;
  }
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  auto* gate = reinterpret_cast<FrameGate*>(object);
  gate->call = frame_gate_call;
  gate->dispatcher = Py_NewRef(dispatcher);
  return object;
}

int frame_gate_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(reinterpret_cast<FrameGate*>(object)->dispatcher);
  return 0;
}

void frame_gate_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  Py_CLEAR(reinterpret_cast<FrameGate*>(object)->dispatcher);
  type->tp_free(object);
  Py_DECREF(type);
}

PyMemberDef kFrameGateMembers[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(FrameGate, call), READONLY, nullptr},
                                   {"dispatcher", T_OBJECT, offsetof(FrameGate, dispatcher), READONLY, nullptr},
                                   {nullptr, 0, 0, 0, nullptr}};

}  // namespace

PyObject* make_frame_gate_type() {
  PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("Hands the frame of a cache entry to the entry's plan.")},
                         {Py_tp_new, cpython::slot(frame_gate_new)},
                         {Py_tp_call, cpython::slot(PyVectorcall_Call)},
                         {Py_tp_traverse, cpython::slot(frame_gate_traverse)},
                         {Py_tp_dealloc, cpython::slot(frame_gate_dealloc)},
                         {Py_tp_members, kFrameGateMembers},
                         {0, nullptr}};
  PyType_Spec spec{"unified_guards._C.FrameGate", sizeof(FrameGate), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  return PyType_FromSpec(&spec);
}

}  // namespace unified_guards
