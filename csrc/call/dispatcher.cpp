// See dispatcher.h.
#include "call/dispatcher.h"

#include "call/decide.h"
#include "call/missed.h"
#include "call/run_entry.h"
#include "check/outlive.h"
#include "cpython/ref.h"

#include <utility>

namespace unified_guards {

Totals totals;

PyObject* long_way() {
  static PyObject* const made = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  return made;
}

std::unique_ptr<Plan> make_plan(const Dispatcher& self, PyObject* way) {
  Plan::Graph graph{};
  PyObject *reads = nullptr, *inputs = nullptr, *steps = nullptr;
  Py_ssize_t unpacked = -1, kept = 0;
  if (!PyArg_ParseTuple(way, "OOnO!OOOnn", &graph.owner, &graph.attribute, &graph.outputs, &PyTuple_Type,
                        &graph.left_out, &reads, &inputs, &steps, &unpacked, &kept)) {
    return nullptr;
  }
  if (graph.attribute == Py_None) graph.attribute = nullptr;
  auto plan = std::make_unique<Plan>(self.target.function->func_globals, graph);
  const bool is_legal = plan->set(reads, inputs, steps, unpacked, self.signature.size(), static_cast<size_t>(kept));
  return is_legal ? std::move(plan) : nullptr;
}

namespace {

// Whether torch asks the entries itself, where a call goes its way for this reason.
bool does_torch_ask(Why why) {
  return why == Why::kDynamo || why == Why::kProfiling || why == Why::kFullgraph || why == Why::kForeign ||
         why == Why::kCode || why == Why::kNew || why == Why::kMoved;
}

PyObject* go_long(Dispatcher& self, Why why, Managers asked = {}) {
  self.longs[static_cast<size_t>(why)]++;
  if (self.is_own) return Py_NewRef(long_way());
  totals.longs[static_cast<size_t>(why)]++;
  missed.forget();
  if (does_torch_ask(why)) asked = managers_of(self.target.code, self.region);
  if (does_torch_ask(why) || why == Why::kMiss || why == Why::kNothingCompiled) {
    missed.note(self.target.code, self.region, std::move(asked));
  }
  return Py_NewRef(long_way());
}

// Has Python read torch's entries anew. False, with no error set, where that fails.
bool prepare(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_prepare");
  const Ref answer(PyObject_CallMethodNoArgs(object, name));
  if (!answer) PyErr_Clear();
  return answer.get() == Py_True;
}

// How often entries are read anew for one call: other threads may add some meanwhile.
constexpr int kMostTimes = 8;

// The entry that fits what was bound, or why there is none.
Decision decide_on(PyObject* object, const BoundLocals& bound, Inputs& inputs) {
  Dispatcher& self = dispatcher_of(object);
  const Frame frame(self, bound);
  if (!frame.is_ready()) return {Why::kArguments, nullptr};
  Decision decision = decide(self, frame.dict(), inputs);
  for (int times = 0; decision.why == Why::kNew && times < kMostTimes && prepare(object); times++) {
    decision = decide(self, frame.dict(), inputs);
  }
  return decision;
}

}  // namespace

PyObject* dispatch(PyObject* object, PyObject* args, PyObject* kwargs) {
  Dispatcher& self = dispatcher_of(object);
  if (Running::some_are_kept) Running::free_what_is_over();
  just_missed.clear();
  const Why why = self.is_own ? why_own_long() : why_long();
  if (why != Why::kNone) return go_long(self, why);
  if (const Why why = self.target.changed(); why != Why::kNone) return go_long(self, why);
  BoundLocals bound;
  if (!self.signature.bind(bound, self.target.function, self.target.receiver, args, kwargs)) {
    return go_long(self, Why::kArguments);
  }
  const int frame_count = self.is_own ? -1 : exchange_frame_count(-1);
  if (frame_count >= 0) {
    exchange_frame_count(frame_count);
    return go_long(self, Why::kFullgraph);
  }
  const Owned owned(bound);
  Inputs inputs;
  Decision decision = decide_on(object, bound, inputs);
  if (decision.raised) return nullptr;
  if (decision.why != Why::kMiss) just_missed.clear();
  if (decision.why != Why::kNone) return go_long(self, decision.why, std::move(decision.asked));
  if (!self.is_own && !count_generation()) return nullptr;
  self.shorts++;
  if (!self.is_own) totals.shorts++;
  return run_entry(object, *decision.record, bound, inputs);
}

PyObject* find_entry(PyObject* object, PyObject* args, PyObject* kwargs) {
  Dispatcher& self = dispatcher_of(object);
  BoundLocals bound;
  if (!self.signature.bind(bound, self.target.function, self.target.receiver, args, kwargs)) Py_RETURN_NONE;
  const Owned owned(bound);
  Inputs inputs;
  just_missed.clear();
  const Decision decision = decide_on(object, bound, inputs);
  just_missed.clear();
  if (decision.raised) return nullptr;
  return Py_NewRef(decision.why == Why::kNone ? decision.record->manager : Py_None);
}

}  // namespace unified_guards
