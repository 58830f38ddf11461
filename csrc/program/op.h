// The table of operations: what an instruction can be, and all that other stages have to know of it.
//
// To add an operation: a row here, a case in check/evaluate.cpp, and, where facts can answer it, a case in
// witness/accessor_facts.cpp or witness/guard_facts.cpp. Python reads the table as `_C.OP_TABLE`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unified_guards {

// What `arg` of an instruction is.
enum class Arg : uint8_t {
  kNothing,
  kHint,         // where the entry of a dict was last found; or the version of the class that was last asked
  kIndex,        // of an item, or a dimension; 2^32 - 1 is never there
  kLength,       // a number of items
  kTruth,        // what is expected: 0 or 1
  kTensor,       // which TensorSpec of the program
  kGroup,        // within which no object, or no storage, comes twice
  kWrittenSlot,  // of the saved objects
  kReadSlot,     // of the saved objects: an earlier instruction wrote it
  kInt,          // which integer of a compiled shape guard
  kFloat,        // which double of a compiled shape guard
  kRegister,     // of the shape code
  kShapes,       // whether the shape code alone decides (0), or only together with `object` (1)
};

// Whether evaluating an operation may run code of a user's.
enum class UserCode : uint8_t {
  kNever,
  kByObject,  // on some objects; the evaluator looks at the object first
  kMostly,    // it calls something as a matter of course
  kCallback,  // it calls a Python function, which is counted
};

// What facts have to say of the object that an operation reads (see witness/facts.h). Flags.
enum Need : uint8_t {
  kNeedsNothing = 0,
  kNeedsType = 1,     // its exact type
  kNeedsVersion = 2,  // its entries, as a dict
  kNeedsAttrs = 4,    // its attributes, by getattr
  kNeedsItems = 8,    // its length or items, as a list or a set
};

// When an operation may be evaluated.
enum class Order : uint8_t {
  kAny,      // also before all others, as a discriminator (check/discriminator.h)
  kInPlace,  // after those before it
  kOnce,     // and not twice in one evaluation: it writes
};

// Rows: name, arg, user code, need, order, what `object` and `number` are. "New": the accessor gives a new reference,
// which is dropped at the end of the check.
#define UG_ACCESSORS(X)                                                                                                \
  X(DICT_ITEM, kHint, kByObject, kNeedsVersion, kAny, "object: key")                                                   \
  X(CONSTANT, kNothing, kNever, kNeedsNothing, kAny, "object: the value, whatever the base")                           \
  X(GLOBAL_WEAKREF, kHint, kByObject, kNeedsVersion, kInPlace, "object: name of a weakref in the base dict; new")      \
  X(WEAKREF_CALL, kNothing, kNever, kNeedsType, kInPlace, "new")                                                       \
  X(ITEM, kHint, kByObject, kNeedsVersion | kNeedsItems, kAny, "object: key; new unless the base is a plain dict")     \
  X(LIST_ITEM, kIndex, kNever, kNeedsItems, kAny, "")                                                                  \
  X(TUPLE_ITEM, kIndex, kNever, kNeedsItems, kAny, "")                                                                 \
  X(SET_ITEM, kIndex, kMostly, kNeedsNothing, kInPlace, "new; arg counts in iteration order")                          \
  X(ATTR, kHint, kByObject, kNeedsAttrs, kAny, "object: name; new unless in the instance's dict")                      \
  X(GENERIC_ATTR, kHint, kMostly, kNeedsNothing, kInPlace, "object: name; new")                                        \
  X(GENERIC_DICT, kNothing, kNever, kNeedsType, kAny, "new when the dict had to be made")                           \
  X(TYPE, kNothing, kNever, kNeedsType, kInPlace, "")                                                                  \
  X(TYPE_DICT, kNothing, kNever, kNeedsType, kInPlace, "new from Python 3.12")                                         \
  X(TYPE_MRO, kNothing, kNever, kNeedsType, kInPlace, "")                                                              \
  X(FUNC_DEFAULTS, kNothing, kNever, kNeedsType, kInPlace, "")                                                         \
  X(FUNC_KWDEFAULTS, kNothing, kNever, kNeedsType, kInPlace, "")                                                       \
  X(FUNC_CODE, kNothing, kNever, kNeedsType, kInPlace, "")                                                             \
  X(FUNC_CLOSURE, kNothing, kNever, kNeedsType, kInPlace, "")                                                          \
  X(TUPLE_ITER_ITEM, kIndex, kNever, kNeedsNothing, kInPlace, "arg counts from where the iterator stands")             \
  X(GRAD, kNothing, kNever, kNeedsType, kInPlace, "new")                                                               \
  X(TENSOR_SIZE, kIndex, kByObject, kNeedsNothing, kInPlace, "new")                                                    \
  X(TENSOR_STRIDE, kIndex, kByObject, kNeedsNothing, kInPlace, "new")                                                  \
  X(TENSOR_OFFSET, kNothing, kByObject, kNeedsNothing, kInPlace, "new")                                                \
  X(CALL0, kNothing, kMostly, kNeedsNothing, kInPlace, "new")                                                          \
  X(CALL1, kNothing, kCallback, kNeedsNothing, kInPlace, "object: callable of the base; new")                          \
  X(DICT_KEY_AT, kIndex, kNever, kNeedsVersion, kInPlace, "")                                                          \
  X(DICT_VALUE_AT, kIndex, kNever, kNeedsVersion, kInPlace, "")

#define UG_GUARDS(X)                                                                                                   \
  X(TYPE_IS, kNothing, kNever, kNeedsType, kAny, "number: address of the exact type")                                  \
  X(IS, kNothing, kNever, kNeedsNothing, kAny, "number: address")                                                      \
  X(IS_NOT, kNothing, kNever, kNeedsNothing, kAny, "number: address")                                                  \
  X(IS_TARGET, kNothing, kNever, kNeedsNothing, kInPlace, "object: a weak reference")                                  \
  X(EQUALS, kNothing, kByObject, kNeedsNothing, kAny, "object: value")                                                 \
  X(DEEP_EQUALS, kNothing, kByObject, kNeedsNothing, kInPlace, "object: value; the same types all the way down")       \
  X(SAME_BITS, kNothing, kNever, kNeedsNothing, kInPlace, "object: float or complex")                                  \
  X(LENGTH, kLength, kByObject, kNeedsItems, kAny, "")                                                                 \
  X(LENGTH_OR_SET, kLength, kByObject, kNeedsItems, kAny, "sets are measured without overrides")                       \
  X(DICT_LENGTH, kLength, kNever, kNeedsVersion, kAny, "")                                                             \
  X(TUPLE_ITER_LEN, kLength, kNever, kNeedsNothing, kInPlace, "number: address of the type; arg: items left")          \
  X(RANGE_ITER, kNothing, kNever, kNeedsNothing, kInPlace, "object: (start, stop, step); number: type address")        \
  X(MAPPING_KEYS, kNothing, kMostly, kNeedsVersion, kInPlace, "object: list of keys")                                  \
  X(KEYS, kNothing, kByObject, kNeedsVersion, kInPlace, "object: tuple of all keys of an exact dict, in order")        \
  X(DICT_CONTAINS, kTruth, kByObject, kNeedsVersion, kAny, "object: key")                                              \
  X(SET_CONTAINS, kTruth, kByObject, kNeedsNothing, kInPlace, "object: item")                                          \
  X(NO_ATTR, kNothing, kMostly, kNeedsAttrs, kInPlace, "object: name")                                                 \
  X(FLOAT_NAN, kNothing, kNever, kNeedsNothing, kInPlace, "")                                                          \
  X(COMPLEX_NAN, kNothing, kNever, kNeedsNothing, kInPlace, "")                                                        \
  X(DUAL_LEVEL, kNothing, kNever, kNeedsNothing, kInPlace, "object: (dict of forward_ad, name, level)")                \
  X(INFERENCE_MODE, kTruth, kNever, kNeedsNothing, kInPlace, "")                                                       \
  X(DEFAULT_DEVICE, kNothing, kNever, kNeedsNothing, kInPlace, "object: (dict of torch.utils._device, name, device)")  \
  X(GLOBAL_STATE, kNothing, kNever, kNeedsNothing, kInPlace, "object: StateGuard; number: its address")                \
  X(TORCH_CALL, kNothing, kNever, kNeedsNothing, kInPlace, "object: C function of torch, no arguments, truth")         \
  X(MODE_STACK, kNothing, kNever, kNeedsNothing, kInPlace, "object: tuple of the modes' exact types")                  \
  X(SAVED_HOOKS, kTruth, kByObject, kNeedsNothing, kInPlace, "object: callable; arg: 1 if no hooks are expected")      \
  X(DICT_VERSION, kNothing, kNever, kNeedsVersion, kInPlace, "object: dict_version; number: version")                  \
  X(DISPATCH_KEYS, kNothing, kByObject, kNeedsNothing, kInPlace, "object: \"raw_repr\"; number: key set after apply")  \
  X(SCRIPT_TYPE, kNothing, kByObject, kNeedsNothing, kInPlace, "object: (class, \"real_obj\"); number: type address")  \
  X(DIM_MARKING, kHint, kByObject, kNeedsNothing, kInPlace, "object: (flag, expected, absent, dependent, [flag])")     \
  X(DYNAMIC_INDICES, kNothing, kByObject, kNeedsNothing, kInPlace, "object: (name, set)")                              \
  X(TENSOR, kTensor, kByObject, kNeedsNothing, kAny, "")                                                               \
  X(PREDICATE, kNothing, kCallback, kNeedsNothing, kInPlace, "object: callable of the value, truth")                   \
  X(TORCH_LEAF, kNothing, kCallback, kNeedsNothing, kInPlace, "object: a leaf guard of torch")                         \
  X(UNIQUE, kGroup, kNever, kNeedsNothing, kOnce, "")                                                                  \
  X(UNIQUE_STORAGE, kGroup, kNever, kNeedsNothing, kOnce, "")                                                          \
  X(SAVE, kWrittenSlot, kNever, kNeedsNothing, kOnce, "")                                                              \
  X(SAME_AS, kReadSlot, kNever, kNeedsNothing, kInPlace, "")                                                           \
  X(SHARES_STORAGE, kReadSlot, kNever, kNeedsNothing, kInPlace, "")                                                    \
  X(OVERLAP, kLength, kByObject, kNeedsNothing, kInPlace, "object: (function, slots); arg: how many overlap")          \
  X(SHAPE_INT, kInt, kNever, kNeedsNothing, kInPlace, "")                                                              \
  X(SHAPE_FLOAT, kFloat, kNever, kNeedsNothing, kInPlace, "")                                                          \
  X(SHAPE_CALL, kNothing, kNever, kNeedsNothing, kInPlace, "number: address of int8_t(int64_t*, double*)")             \
  /* Into the registers of the shape code. object: a class beside torch.Tensor that computes no size of its own */     \
  X(READ_SIZE, kRegister, kNever, kNeedsNothing, kAny, "number: dimension")                                            \
  X(READ_STRIDE, kRegister, kNever, kNeedsNothing, kAny, "number: dimension")                                          \
  X(READ_OFFSET, kRegister, kNever, kNeedsNothing, kAny, "")                                                           \
  X(READ_INT, kRegister, kNever, kNeedsNothing, kAny, "")                                                              \
  X(READ_FLOAT, kRegister, kNever, kNeedsNothing, kAny, "")                                                            \
  X(SHAPES, kShapes, kByObject, kNeedsNothing, kAny, "object: exact function of the frame; number: row of its first guard") \
  X(TORCH_FUNCTION_OFF, kNothing, kNever, kNeedsNothing, kOnce, "from here on no __torch_function__ runs")

enum class Op : uint8_t {
#define UG_OP(name, ...) name,
  UG_ACCESSORS(UG_OP) UG_GUARDS(UG_OP)
#undef UG_OP
      kCount
};

inline constexpr size_t kOps = static_cast<size_t>(Op::kCount);

inline constexpr bool is_accessor(Op op) { return op <= Op::DICT_VALUE_AT; }
inline constexpr bool is_read(Op op) { return Op::READ_SIZE <= op && op <= Op::READ_FLOAT; }

struct OpTraits {
  const char* name;
  Arg arg;
  UserCode user_code;
  uint8_t needs;  // Needs, or-ed
  Order order;
  const char* operands;
};

inline constexpr OpTraits kOpTraits[kOps] = {
#define UG_OP(name, arg, user_code, needs, order, operands) \
  {#name, Arg::arg, UserCode::user_code, needs, Order::order, operands},
    UG_ACCESSORS(UG_OP) UG_GUARDS(UG_OP)
#undef UG_OP
};

inline constexpr const OpTraits& traits_of(Op op) { return kOpTraits[static_cast<size_t>(op)]; }

}  // namespace unified_guards
