// One run over a program's instructions, or over some of them.
#pragma once

#include "program.h"
#include "tensor.h"

#include <ATen/PythonTorchFunctionTLS.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace unified_guards {

// An instruction that a witness has evaluated on every check; a copy, so that those lie together.
struct LiveStep {
  Instruction instruction;
  uint32_t at;    // its place in the program
  uint32_t load;  // the accessor whose remembered value is its base; kNoLoad when that is in its register already
};
inline constexpr uint32_t kNoLoad = UINT32_MAX;

// Whether evaluating an instruction runs code of a user's, whatever its base is.
enum class UserCode {
  kNone,
  kOfStrangeObjects,  // only where the base is of a type that has a say in it
  kCalled,            // as a matter of course
};

UserCode user_code_in(const Instruction& i);

// Restores on the way out what it changed: references and torch-function state.
class Evaluation {
 public:
  Evaluation(Program& program, Scratch& scratch);
  Evaluation(const Evaluation&) = delete;
  ~Evaluation();

  // All instructions.
  bool run(PyObject* locals);

  // Before any other that may be of a group of UNIQUE: at most so many will be.
  void tell_apart(size_t most) { scratch_.unique.clear(most); }

  // Some of them; `found` holds by instruction what the others once found, and `apart` objects from which those of a
  // group of UNIQUE must differ. `hold`: keep what is loaded alive, because a step may run code of a user's.
  bool run_live(PyObject* locals, std::vector<LiveStep>& steps, PyObject* const* found, const SeenTable& apart,
                bool hold);

  // One guard whose evaluation runs no code of a user's.
  bool passes(Instruction& i, PyObject* base) {
    Hint nowhere;
    return check(i, base, nowhere);
  }

  // Moves what was gathered to a new list; null, with no error set, when there is no memory for one.
  PyObject* take_gathered();

  // Remembers which row it was; a guard that was merged into an accessor was the row after it.
  bool fail(size_t index, bool merged = false);

  DispatchState* dispatch() { return dispatch_ ? &*dispatch_ : nullptr; }

 private:
  bool step(Instruction& i, size_t index, PyObject* base, Hint& hint);
  PyObject* own(PyObject* object);
  void hold_path(uint16_t depth);
  PyObject* access(Instruction& i, PyObject* base, Hint& hint);
  PyObject* global_weakref(Instruction& i, PyObject* base);
  bool check(Instruction& i, PyObject* base, Hint& hint);
  void count_callback();
  bool predicate(PyObject* callable, PyObject* value);
  bool shape_int(PyObject* value, uint32_t index);
  bool read(const Instruction& i, PyObject* base);
  bool shapes_hold(const Instruction& i);
  bool fail_shape(uint64_t which);
  void turn_torch_function_off();

  Program& program_;
  Scratch& scratch_;
  std::optional<DispatchState> dispatch_;
  bool exact_ = true;  // every number that the shape code reads was read
  int64_t shape_failure_ = -1;
  bool torch_function_is_off_ = false;
  at::impl::TorchFunctionDisabledState torch_function_before_ = at::impl::TorchFunctionDisabledState::ENABLED;
};

}  // namespace unified_guards
