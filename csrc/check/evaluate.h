// One run over a program's instructions, or over some of them.
//
// An instruction that cannot be answered without code that may be a user's asks for it: ask(). Such code may free what
// is read next, so the path is held from there on; and it may change what an earlier instruction has passed. So once
// all have passed, those that asked nothing are evaluated again, as often as it takes for the last thing that happens
// to be a run without any such code: settle() in settle.cpp. A hit is what holds then. What was asked is asked once.
#pragma once

#include "check/tensor.h"
#include "cpython/ref.h"
#include "program/program.h"

#include <ATen/PythonTorchFunctionTLS.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace unified_guards {

// An instruction that a witness has evaluated on every check; a copy, so that those lie together.
struct LiveStep {
  Instruction instruction;
  uint32_t at;    // its place in the program
  uint32_t load;  // the accessor whose remembered value is its base; kNoLoad when that is in its register already
};
inline constexpr uint32_t kNoLoad = UINT32_MAX;

// Restores on the way out what it changed: references and torch-function state.
class Evaluation {
 public:
  Evaluation(Program& program, Scratch& scratch);
  Evaluation(const Evaluation&) = delete;
  ~Evaluation();

  // All instructions, and then what settle() says.
  bool run(PyObject* locals);

  // Call first: clears the table of objects seen and reserves room for `most`.
  void clear_seen(size_t most) { scratch_.unique.clear(most); }

  // Some of them; `found` holds by instruction what the others once found, and `apart` objects from which those of a
  // group of UNIQUE must differ. settle() is left to the caller.
  bool run_live(PyObject* locals, std::vector<LiveStep>& steps, PyObject* const* found, const SeenTable& apart);

  // Whether what has passed still holds after code that may be a user's has run: `again` evaluates it once more, and
  // fails where an instruction would have to ask. True without calling it when nothing was asked.
  template <typename Again>
  bool settle(Again again) {
    if (scratch_.asked.empty()) return true;
    for (int round = 0; round < kMostRounds; round++) {
      begin_settling();
      const bool holds = again();
      settling_ = false;
      if (!holds) return false;
      if (!drop_mortals()) return true;
    }
    return false;
  }

  // The locals before anything was asked: code of a user's may reach the dict of them, the frame itself it cannot
  // change.
  PyObject* as_they_were(PyObject* locals) const { return locals_before_ ? locals_before_.get() : locals; }

  // One guard, answered without asking: it fails where it would have to.
  bool passes(Instruction& i, PyObject* base) {
    Hint nowhere;
    const bool was_settling = std::exchange(settling_, true);
    const bool holds = check(i, base, nowhere);
    settling_ = was_settling;
    return !std::exchange(asking_, false) && holds;
  }

  // Moves what was gathered to a new list; null, with no error set, when there is no memory for one.
  PyObject* take_gathered();

  // Remembers which row it was; a guard that was merged into an accessor was the row after it.
  bool fail(size_t index, bool merged = false);

  DispatchState* dispatch() { return dispatch_ ? &*dispatch_ : nullptr; }

 private:
  // What dies when it is dropped may have a finalizer that makes something else that dies.
  static constexpr int kMostRounds = 8;

  bool run_once(PyObject* locals);
  bool step(Instruction& i, size_t index, PyObject* base, Hint& hint);
  PyObject* own(PyObject* object);

  // Before anything that may run code of a user's, for instruction `i`: holds what is read afterwards. False while
  // settling, when no such code may run: the instruction fails.
  bool ask(const Instruction& i);
  void hold_loads();
  bool note_asked(size_t index, PyObject* value);
  void begin_settling();
  bool was_asked(size_t index);
  bool repeat_answer(const Instruction& i, size_t index);
  bool drop_mortals();

  PyObject* dict_item(Instruction& i, PyObject* dict);
  PyObject* item(Instruction& i, PyObject* base);
  PyObject* attribute(Instruction& i, PyObject* base, PyObject* (*get)(PyObject*, PyObject*));
  PyObject* access(Instruction& i, PyObject* base, Hint& hint);
  PyObject* global_weakref(Instruction& i, PyObject* base);
  bool check(Instruction& i, PyObject* base, Hint& hint);
  void count_callback();
  bool predicate(const Instruction& i, PyObject* value);
  bool dict_contains(Instruction& i, PyObject* base);
  bool set_contains(const Instruction& i, PyObject* base);
  Ref attribute_or_null(const Instruction& i, PyObject* object, PyObject* name);
  bool is_subset(const Instruction& i, PyObject* marked, PyObject* expected);
  bool dependent_marking_matches(const Instruction& i, PyObject* object, PyObject* name, PyObject* value_and_gate);
  bool marking_matches(Instruction& i, PyObject* object);
  bool dim_marking_matches(Instruction& i, PyObject* object);
  bool dynamic_indices_match(const Instruction& i, PyObject* object);
  bool gather(uint32_t index, PyObject* value);
  bool overlap(const Instruction& i);
  bool shape_int(PyObject* value, uint32_t index);
  bool read(const Instruction& i, PyObject* base);
  bool shapes_hold(const Instruction& i);
  bool fail_shape(uint64_t which);
  void turn_torch_function_off();
  void put_torch_function_back();

  Program& program_;
  Scratch& scratch_;
  std::optional<DispatchState> dispatch_;
  struct Loads {
    const std::vector<LiveStep>* steps = nullptr;
    PyObject* const* found = nullptr;
  };
  Ref locals_before_;
  Loads loads_;            // of run_live(): held once code of a user's may run
  bool asking_ = false;    // the instruction being evaluated has asked
  bool settling_ = false;  // nothing may be asked
  size_t next_asked_ = 0;  // while settling: in scratch_.asked
  uint32_t dead_end_ = 0;  // while settling: what lies below a value that is gone ends here
  bool exact_ = true;      // every number that the shape code reads was read
  int64_t shape_failure_ = -1;
  bool torch_function_is_off_ = false;
  at::impl::TorchFunctionDisabledState torch_function_before_ = at::impl::TorchFunctionDisabledState::ENABLED;
};

}  // namespace unified_guards
