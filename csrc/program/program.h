// A lowered GuardSet: a flat list of fixed-size instructions over a stack of registers, and its constants.
//
// Register 0 holds the dict of the frame's locals; an accessor at depth n reads register n and writes register n + 1.
// Parents come before children, so no instruction reads through a pointer that an earlier one has not vouched for.
#pragma once

#include "cpython/cpython.h"
#include "program/hints.h"
#include "program/seen.h"
#include "program/shape_expr.h"

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

namespace unified_guards {

// Every instruction: name, then what `arg`, `object` and `number` mean to it.
// Accessors; "new" marks those whose result is a new reference, dropped at the end of the check.
#define UG_ACCESSORS(X)                                                       \
  X(DICT_ITEM)        /* object: key                                       */ \
  X(CONSTANT)         /* object: the value, whatever the base              */ \
  X(GLOBAL_WEAKREF)   /* object: name of a weakref in the base dict; new   */ \
  X(WEAKREF_CALL)     /* new                                               */ \
  X(ITEM)             /* object: key; new unless the base is a plain dict  */ \
  X(LIST_ITEM)        /* arg: index                                        */ \
  X(TUPLE_ITEM)       /* arg: index                                        */ \
  X(SET_ITEM)         /* arg: position in iteration order; new             */ \
  X(ATTR)             /* object: name; new unless in the instance's dict   */ \
  X(GENERIC_ATTR)     /* object: name; new                                 */ \
  X(GENERIC_DICT)     /* new when the dict had to be made                  */ \
  X(TYPE)             /*                                                   */ \
  X(TYPE_DICT)        /* new from Python 3.12                              */ \
  X(TYPE_MRO)         /*                                                   */ \
  X(FUNC_DEFAULTS)    /*                                                   */ \
  X(FUNC_KWDEFAULTS)  /*                                                   */ \
  X(FUNC_CODE)        /*                                                   */ \
  X(FUNC_CLOSURE)     /*                                                   */ \
  X(TUPLE_ITER_ITEM)  /* arg: offset from where the iterator stands        */ \
  X(GRAD)             /* new                                               */ \
  X(TENSOR_SIZE)      /* arg: dimension; new                               */ \
  X(TENSOR_STRIDE)    /* arg: dimension; new                               */ \
  X(TENSOR_OFFSET)    /* new                                               */ \
  X(CALL0)            /* new                                               */ \
  X(CALL1)            /* object: callable of the base; new; Python code    */ \
  X(DICT_KEY_AT)      /* arg: position                                     */ \
  X(DICT_VALUE_AT)    /* arg: position                                     */

#define UG_GUARDS(X)                                                             \
  X(TYPE_IS)           /* number: address of the exact type                   */ \
  X(IS)                /* number: address                                     */ \
  X(IS_NOT)            /* number: address                                     */ \
  X(IS_TARGET)         /* object: a weak reference                            */ \
  X(EQUALS)            /* object: value                                       */ \
  X(DEEP_EQUALS)       /* object: value; the same types all the way down      */ \
  X(SAME_BITS)         /* object: float or complex                            */ \
  X(LENGTH)            /* arg: length                                         */ \
  X(LENGTH_OR_SET)     /* arg: length; sets are measured without overrides    */ \
  X(DICT_LENGTH)       /* arg: length                                         */ \
  X(TUPLE_ITER_LEN)    /* arg: items left; number: address of the type        */ \
  X(RANGE_ITER)        /* object: (start, stop, step); number: type address   */ \
  X(MAPPING_KEYS)      /* object: list of keys                                */ \
  X(KEYS)              /* object: tuple of all keys of an exact dict, in order */ \
  X(DICT_CONTAINS)     /* arg: expected 0 or 1; object: key                   */ \
  X(SET_CONTAINS)      /* arg: expected 0 or 1; object: item                  */ \
  X(NO_ATTR)           /* object: name                                        */ \
  X(FLOAT_NAN)         /*                                                     */ \
  X(COMPLEX_NAN)       /*                                                     */ \
  X(DUAL_LEVEL)        /* object: (dict of forward_ad, name, level)           */ \
  X(INFERENCE_MODE)    /* arg: expected 0 or 1                                */ \
  X(DEFAULT_DEVICE)    /* object: (dict of torch.utils._device, name, device) */ \
  X(GLOBAL_STATE)      /* object: StateGuard; number: its address             */ \
  X(TORCH_CALL)        /* object: C function of torch, no arguments, truth    */ \
  X(MODE_STACK)        /* object: tuple of the modes' exact types             */ \
  X(SAVED_HOOKS)       /* arg: 1 if no hooks are expected; object: callable   */ \
  X(DICT_VERSION)      /* object: dict_version; number: version               */ \
  X(DISPATCH_KEYS)     /* object: "raw_repr"; number: key set after apply     */ \
  X(SCRIPT_TYPE)       /* object: (class, "real_obj"); number: type address   */ \
  X(DIM_MARKING)       /* object: (flag, expected, absent, dependent)         */ \
  X(DYNAMIC_INDICES)   /* object: (name, set)                                 */ \
  X(TENSOR)            /* arg: index of a TensorSpec                          */ \
  X(PREDICATE)         /* object: callable of the value, truth; Python code   */ \
  X(TORCH_LEAF)        /* object: a leaf guard of torch                       */ \
  X(UNIQUE)            /* arg: group, within which no object comes twice      */ \
  X(UNIQUE_STORAGE)    /* arg: group, within which no storage comes twice     */ \
  X(SAVE)              /* arg: slot                                           */ \
  X(SAME_AS)           /* arg: slot written by SAVE                           */ \
  X(SHARES_STORAGE)    /* arg: slot written by SAVE                           */ \
  X(OVERLAP)           /* arg: how many overlap; object: (function, slots)    */ \
  X(SHAPE_INT)         /* arg: index of the int                               */ \
  X(SHAPE_FLOAT)       /* arg: index of the float                             */ \
  X(SHAPE_CALL)        /* number: address of int8_t(int64_t*, double*)        */ \
  /* Into the shape code's registers. object: a class beside torch.Tensor itself that computes no size of its own */ \
  X(READ_SIZE)         /* arg: register; number: dimension                    */ \
  X(READ_STRIDE)       /* arg: register; number: dimension                    */ \
  X(READ_OFFSET)       /* arg: register                                       */ \
  X(READ_INT)          /* arg: register                                       */ \
  X(READ_FLOAT)        /* arg: register                                       */ \
  X(SHAPES)            /* arg: the shape code alone decides (0), or (1) holds only together with `object`: exact */ \
                       /* function of the frame, truth; Python code. number: what follows its row in `meaning`   */ \
  X(GATHER)            /* arg: index in the list that a check that passes hands out; holds always */ \
  X(TORCH_FUNCTION_OFF) /* from here on no __torch_function__ runs            */

enum class Op : uint8_t {
#define UG_OP(name) name,
  UG_ACCESSORS(UG_OP) UG_GUARDS(UG_OP)
#undef UG_OP
      kCount
};

inline constexpr bool is_accessor(Op op) { return op <= Op::DICT_VALUE_AT; }
inline constexpr bool is_read(Op op) { return Op::READ_SIZE <= op && op <= Op::READ_FLOAT; }

// One instruction; trivially copyable; `object` is borrowed from Program::constants.
struct Instruction {
  Op op;
  // An accessor may also hold the first guard on its result: kTypeIs or kIs of `number`.
  uint8_t also;
  uint16_t base;     // register that is read
  uint32_t arg;      // see the lists above; where keys are looked up, the slot where the entry was last found
  PyObject* object;  // see the lists above
  uint64_t number;   // see the lists above, and `also`
};
static_assert(sizeof(Instruction) == 24 && std::is_trivially_copyable_v<Instruction>);

enum Also : uint8_t { kNothing, kTypeIs, kIs };

// Whether what an accessor found passes the guard that was merged into it.
inline bool also_passes(const Instruction& i, PyObject* value) {
  if (i.also == kNothing) return true;
  const void* found = i.also == kTypeIs ? static_cast<void*>(Py_TYPE(value)) : static_cast<void*>(value);
  return reinterpret_cast<uint64_t>(found) == i.number;
}

// What a tensor must be. Sizes and strides follow in the program's pool of dimensions, sizes first;
// kAnyDim stands for a dimension that is not guarded.
struct TensorSpec {
  PyTypeObject* type;
  uint64_t keys;  // after DispatchState::apply
  uint32_t dims;  // offset into the pool
  uint16_t rank;
  int8_t dtype;
  int8_t device_index;
  bool requires_grad;
  bool device_is_current;  // torch 2.15: the index must be the accelerator's current one instead

  bool operator==(const TensorSpec&) const = default;
};

inline constexpr int64_t kAnyDim = INT64_MIN;

// How often programs were asked, and what they answered.
struct Counts {
  uint64_t hits = 0, misses = 0, python_callbacks = 0;

  uint64_t checks() const { return hits + misses; }
};

// An instruction that asked (see Evaluation::ask), and what its accessor was given; null when that is gone.
struct Asked {
  uint32_t at;
  PyObject* value;
};

// What an evaluation writes. Kept with the program so that a hit allocates nothing.
struct Scratch {
  std::vector<PyObject*> registers;
  std::vector<uint16_t> paths;   // of each register: from which one on the path to it was read in this evaluation
  std::vector<PyObject*> owned;  // new references, dropped at the end
  std::vector<Asked> asked;      // in the order of the program
  std::vector<PyObject*> saved;
  std::vector<PyObject*> gathered;  // new references, handed out or dropped at the end
  SeenTable unique;
  std::vector<int64_t> ints;
  std::vector<double> floats;
  std::vector<Number> numbers;  // the registers of the shape code
};

// What of a value the instructions directly below it read.
enum Need : uint8_t {
  kNeedsType = 1,     // its exact type
  kNeedsVersion = 2,  // its entries, as a dict
  kNeedsAttrs = 4,    // its attributes, by getattr
  kNeedsItems = 8,    // its length or items, as a list or a set
};

// Where an instruction stands in its program.
struct Place {
  uint32_t parent = 0;  // the accessor that made its base; its own index when that is the frame
  uint32_t end = 0;     // of an accessor: one past the last instruction below it
  uint8_t needs = 0;    // of an accessor: Needs, or-ed
  uint8_t moves = 0;    // of an anchor: how often it was another object

  // Whether that was too often for facts to begin there (see Deriver::is_anchor).
  bool is_barred() const { return moves >= kMostMoves; }

  static constexpr uint8_t kMostMoves = 3;
};

struct ProgramSize {
  uint32_t registers = 1, owned = 0, saved = 0, gathered = 0, unique = 0, ints = 0, floats = 0, read = 0;
};

class Witnesses;

// Whoever evaluates holds the GIL. Evaluation may run user code (a property, __eq__), which may evaluate the same
// program again: the inner evaluation then gets a scratch of its own.
class Program {
 public:
  Program();
  Program(const Program&) = delete;
  ~Program();

  // Appends an instruction; `object` is None where the op has none. Throws std::invalid_argument on a code that is not
  // legal.
  void add(Op op, uint16_t base, uint32_t arg, PyObject* object, uint64_t number);
  uint32_t add_tensor(TensorSpec spec, const std::vector<int64_t>& dims);
  // What the READ_* instructions read for, and a SHAPES instruction runs. Throws std::invalid_argument on a second one.
  void set_shapes(ShapeCode code);

  // Merges an accessor with the guard that follows it, and sizes the scratch. Called once, after the last add().
  // Throws std::invalid_argument when the list of what is gathered would have holes.
  void finish();

  // True when every instruction passes on this dict of locals. Never throws, never leaves a Python error set.
  // `gathered` is given a new list of what was gathered, when it is asked for and the check passes. `exactly`: without
  // the witnesses.
  bool evaluate(PyObject* locals, PyObject** gathered = nullptr, bool exactly = false);

  // From now on, facts that a passing check remembers spare the next one most of its work (see witness.h).
  void keep_witnesses();
  const Witnesses* witnesses() const { return witnesses_.get(); }

  // Shows the collector every object that the code holds.
  int traverse(visitproc visit, void* arg) const;

  // Which add(), counted from 0, made the instruction that failed last; -1 when none did. A guard of the shape code has
  // a number of its own, that of its SHAPES instruction and up.
  int64_t last_failure() const { return last_failure_; }
  const std::vector<Instruction>& code() const { return code_; }
  size_t bytes() const;

  Counts counts;

 private:
  friend class Deriver;
  friend class Evaluation;
  friend class Profile;
  friend class Telling;
  friend class Witness;
  friend class Witnesses;
  Scratch make_scratch() const;
  const void* root(PyObject* locals);
  void merge();
  void check_gathered() const;
  void find_root();
  void find_places();

  std::vector<Instruction> code_;
  std::vector<uint32_t> origins_;     // of each instruction: which add() made it
  std::vector<Place> places_;         // of each instruction
  std::vector<PyObject*> constants_;  // owned
  std::vector<TensorSpec> tensors_;
  std::vector<int64_t> dims_;
  std::optional<ShapeCode> shapes_;
  ProgramSize size_;
  Hints hints_;
  PyObject* root_name_ = nullptr;  // the object with the most instructions below it, borrowed from the constants
  cpython::Slot root_slot_ = 0;
  Scratch scratch_;
  std::unique_ptr<Witnesses> witnesses_;
  bool busy_ = false;
  bool needs_dispatch_ = false;
  int64_t last_failure_ = -1;
};

// The counts of all programs there have been, together.
extern Counts total_counts;

}  // namespace unified_guards
