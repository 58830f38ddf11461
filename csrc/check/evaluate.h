// The exact tier: one run over a program's instructions, or over some of them.
//
// An instruction that cannot be answered without code that may be a user's announces it: before_user_code(). Such code
// may free what is read next, so the path to it is owned from there on. It may also change what an earlier instruction
// has passed. So the instructions that ran no such code are evaluated again, until one whole pass has run none:
// settle(). Only then is it a hit. For each instruction, code of a user's runs once.
#pragma once

#include "check/scratch.h"
#include "check/tensor.h"
#include "cpython/ref.h"
#include "program/program.h"

#include <ATen/PythonTorchFunctionTLS.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace unified_guards {

// A live instruction: facts cannot answer it, so the witness evaluates it on every check. It is a copy of the program's
// instruction, so that all live ones lie together in memory.
struct LiveStep {
  Instruction instruction;
  uint32_t at;    // its place in the program
  uint32_t load;  // the accessor whose remembered value is its base; kNoLoad when that is in its register already
};
inline constexpr uint32_t kNoLoad = UINT32_MAX;

// Restores on the way out what it changed: references and torch-function state.
class Evaluation {
 public:
  Evaluation(Program& program, Scratch& scratch, Journal& journal)
      : program_(program), scratch_(scratch), journal_(journal) {
    if (program_.needs_dispatch) dispatch_.emplace();
  }
  Evaluation(const Evaluation&) = delete;
  ~Evaluation() {
    if (torch_function_is_off_) put_torch_function_back();
    if (!scratch_.owned.empty()) drop_references();
    scratch_.answers.clear();
  }

  // Evaluates all instructions, and settles.
  bool run(PyObject* locals);

  // Call first: clears the table of objects seen and reserves room for `most`.
  void clear_seen(size_t most) { scratch_.unique.clear(most); }

  // Evaluates the live instructions. found[n] is what instruction n, which is not live, found when its facts were
  // recorded; `seen` holds the remembered objects from which those of live UNIQUE instructions must differ. The caller
  // has to call settle().
  bool run_live(PyObject* locals, std::vector<LiveStep>& steps, PyObject* const* found, const SeenTable& seen);

  // Whether what has passed still holds after code that may be a user's has run. `again` evaluates it once more, and
  // fails where an instruction would have to run such code. Where none has run, the answer is yes and `again` is not
  // called.
  template <typename Again>
  bool settle(Again again) {
    if (scratch_.answers.empty()) return true;
    for (int round = 0; round < kMostRounds; round++) {
      begin_settling();
      const bool holds = again();
      settling_ = false;
      if (!holds) return false;
      if (!drop_unshared()) return true;
    }
    return false;
  }

  // The locals as they were before code of a user's ran. Such code may change the dict of locals, but not the frame.
  PyObject* unchanged(PyObject* locals) const { return locals_copy_ ? locals_copy_.get() : locals; }

  // Evaluates one guard without code of a user's: the guard fails where it would have to run any.
  bool passes(Instruction& i, PyObject* base) {
    Hint nowhere;
    const bool was_settling = std::exchange(settling_, true);
    const bool holds = check(i, base, nowhere);
    settling_ = was_settling;
    return !std::exchange(runs_user_code_, false) && holds;
  }

  // The registers, of which the first holds the locals.
  PyObject** registers() { return scratch_.registers.data(); }

  // Notes the row of instruction `index`, or of the guard that was merged into it, as the one that failed.
  bool fail(size_t index, bool merged = false);

  DispatchState* dispatch() { return dispatch_ ? &*dispatch_ : nullptr; }

 private:
  // Each round may drop objects with finalizers, and a finalizer may make other objects that have one.
  static constexpr int kMostRounds = 8;

  bool run_once(PyObject* locals);
  bool step(Instruction& i, size_t index, PyObject* base, Hint& hint);
  PyObject* own(PyObject* object);
  void drop_references();

  // Call before anything that may run code of a user's for instruction `i`: takes ownership of what is read afterwards.
  // False when no such code may run, while settling or because the table of operations says so: the instruction fails.
  bool before_user_code(const Instruction& i);
  void own_loaded();
  bool note_answer(size_t index, PyObject* value);
  void begin_settling();
  bool was_answered(size_t index);
  bool repeat_answer(const Instruction& i, size_t index);
  bool drop_unshared();

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
  bool overlap(const Instruction& i);
  bool shape_int(PyObject* value, uint32_t index);
  bool read(const Instruction& i, PyObject* base);
  bool shapes_hold(const Instruction& i);
  bool fail_shape(uint64_t which);
  void turn_torch_function_off();
  void put_torch_function_back();

  Program& program_;
  Scratch& scratch_;
  Journal& journal_;
  std::optional<DispatchState> dispatch_;
  struct Loads {
    const std::vector<LiveStep>* steps = nullptr;
    PyObject* const* found = nullptr;
  };
  Ref locals_copy_;
  Loads loads_;                  // of run_live(): owned once code of a user's may run
  bool runs_user_code_ = false;  // the instruction that is being evaluated may have run such code
  bool settling_ = false;        // no such code may run
  size_t next_answer_ = 0;       // while settling: in scratch_.answers
  uint32_t gone_until_ = 0;      // while settling: where the instructions below a value that is gone end
  bool exact_ = true;            // every number that the shape code reads was read
  int64_t shape_failure_ = -1;   // the row of the shape guard that failed
  bool torch_function_is_off_ = false;
  at::impl::TorchFunctionDisabledState torch_function_before_ = at::impl::TorchFunctionDisabledState::ENABLED;
};

}  // namespace unified_guards
