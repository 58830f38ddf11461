// Whether a call may take the short way now: the state of thread and process that torch's wrapper around a compiled
// function looks at, read natively. Entry points: State::learn(), why_long().
//
// Each row is something for which torch's wrapper, its frame hook or what they call does more than a lookup. Where a
// row says no, the call goes through torch's wrapper, its arguments untouched.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstdint>

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
  X(kMode, "a dispatch mode is active")                                                  \
  X(kStance, "torch.compiler.set_stance() is in effect")                                 \
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
  X(kMiss, "no entry fits")

enum class Why : uint8_t {
#define UG_NAME(name, text) name,
  UG_LONG_WAYS(UG_NAME)
#undef UG_NAME
      kCount
};

inline constexpr size_t kWhys = static_cast<size_t>(Why::kCount);

// What Python tells once (dynamo/dispatch.py): objects of torch's, borrowed from modules that are never unloaded.
struct State {
  bool is_on = false;
  bool is_hooked = false;              // a guard-complete hook, or a debugger of bytecode
  PyObject* get_callback = nullptr;    // C functions of torch's
  PyObject* set_frame_count = nullptr;
  PyObject* tracing_local = nullptr;   // the threading.local of TracingContext
  PyObject* compiler_names = nullptr;  // dicts of modules
  PyObject* fx_names = nullptr;
  PyObject* eval_frame_names = nullptr;
  PyObject* stance = nullptr;  // owned: the default one, which does nothing
  PyObject* generations = nullptr;  // the class GenerationTracker

  static State now;
};

// Takes a dict of what is named above; false with an error set where something is missing or of another kind.
bool learn_state(PyObject* found);

// The first row that says no; kNone where the short way may be taken.
Why why_long();

// As torch's wrapper does on every call: CUDA graphs tell by it that a new step has begun. False with an error set.
bool count_generation();

// How many compiled frames a function with fullgraph=True has run; negative outside of one. Gives the former number.
int exchange_frame_count(int count);

}  // namespace unified_guards
