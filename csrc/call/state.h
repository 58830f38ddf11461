// Whether a call may take the short way now: the state of thread and process that torch's wrapper around a compiled
// function looks at, read natively. Entry points: State::learn(), why_long().
//
// Each row is something for which torch's wrapper, its frame hook or what they call does more than a lookup. Where a
// row says no, the call goes through torch's wrapper, its arguments untouched.
#pragma once

#include "cpython/cpython.h"
#include "cpython/ref.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace unified_guards {

// Rows: name, what a user reads of it.
#define UG_LONG_WAYS(X)                                                                  \
  X(kNone, "")                                                                           \
  X(kOff, "the dispatcher is switched off")                                              \
  X(kDynamo, "called from code that Dynamo is compiling or running frame by frame")      \
  X(kTracing, "a compilation is going on in this thread")                                \
  X(kExporting, "torch.export is running")                                               \
  X(kFxTracing, "torch.fx is tracing")                                                   \
  X(kJitTracing, "torch.jit is tracing")                                                 \
  X(kFunctorch, "inside a functorch transform")                                          \
  X(kMode, "a mode of torch functions or of dispatch is active")                                                  \
  X(kStance, "torch.compiler.set_stance() is in effect")                                 \
  X(kBreaks, "torch._dynamo.error_on_graph_break() is in effect")                        \
  X(kHook, "a hook looks at every call of compiled code")                                \
  X(kProfiling, "somebody profiles or traces")                                           \
  X(kFullgraph, "called from a compiled function with fullgraph=True")                   \
  X(kChanged, "the compiled function has another code, closure or class than it had")    \
  X(kModuleHooks, "the module has hooks, or a forward of its own")                       \
  X(kArguments, "the arguments do not fit the signature")                                \
  X(kNothingCompiled, "nothing is compiled for this function yet")                       \
  X(kStrategy, "Dynamo skips this function, or runs only what is compiled")              \
  X(kPrecompiled, "entries were loaded from a package")                                  \
  X(kForeign, "an entry is checked by torch")                                            \
  X(kCode, "the code of the entry has to be run by Dynamo's frame hook")                 \
  X(kNew, "an entry was met for the first time")                                         \
  X(kMoved, "code of a guard has changed torch's entries")                               \
  X(kMiss, "no entry fits")

enum class Why : uint8_t {
#define UG_NAME(name, text) name,
  UG_LONG_WAYS(UG_NAME)
#undef UG_NAME
      kCount
};

inline constexpr size_t kWhys = static_cast<size_t>(Why::kCount);

// A variable of torch's that has one value as long as nothing special goes on.
struct Flag {
  Why why;           // of going the long way where it has another
  PyObject* holder;  // the dict of a module, or a threading.local
  PyObject* name;
  PyObject* expected;  // where there is none of that name, all is well too
  cpython::Slot slot = 0;
};

// What Python tells once (dynamo/compat.py): objects of torch's, owned for good.
struct State {
  bool is_on = false;
  bool moves_hits = true;            // torch asks the entry first that was hit last
  bool is_hooked = false;            // a guard-complete hook, or a debugger of bytecode
  PyObject* get_callback = nullptr;  // C functions of torch's
  PyObject* set_callback = nullptr;
  PyObject* set_frame_count = nullptr;  // null where torch does not count
  PyObject* undo_layers = nullptr;      // pops functorch's levels down to a depth
  PyObject* generations = nullptr;      // GenerationTracker: a class in torch 2.13, an object in 2.15
  bool is_counted_by_class = false;     // it is a class
  std::vector<Flag> flags;

  static State now;
};

// Takes a list of (why, holder, name, expected), and what is named above. False with an error set where something is of
// another kind.
bool learn_state(PyObject* flags, PyObject* get_callback, PyObject* set_callback, PyObject* set_frame_count,
                 PyObject* generations, PyObject* undo_layers);

// One more flag, as in the list above.
bool learn_flag(PyObject* flag);

// The reason of that name; false with an error set where there is none.
bool why_named(const char* name, Why& why);

// The first row that says no; kNone where the short way may be taken.
Why why_long();

// The same for a frame that Dynamo's frame hook runs: the hook is on.
Why why_long_in_frame();

// The same for a call of an AOT entry point, around which torch has no wrapper.
Why why_own_long();

// As torch's wrapper does on every call: CUDA graphs tell by it that a new step has begun. False with an error set.
bool count_generation();

// Has Dynamo's frame hook call `callback` in this thread; None switches it off. False with an error set.
bool set_callback(PyObject* callback);

// Dynamo's frame hook is off in its scope.
class HookOff {
 public:
  HookOff();
  HookOff(const HookOff&) = delete;
  ~HookOff();

  // The callback that there was; null with an error set where it cannot be had.
  PyObject* callback() const { return before_.get(); }

 private:
  Ref before_;
};

// Whether a transform of functorch's is open; and pops what compiled code has left open. No error may be set.
bool is_in_functorch();
void leave_functorch();

// How many compiled frames a function with fullgraph=True has run; negative outside of one. Gives the former number.
int exchange_frame_count(int count);

}  // namespace unified_guards
