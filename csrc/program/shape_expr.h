// Expressions over sizes, strides and scalars: straight-line code over a file of 64-bit registers, each of which holds
// an integer or a double (lower/shape_code.py knows which). No Python object is made.
//
// Integers are Python's as long as they fit in 64 bits. Where Python would raise, or compute in more bits, the code
// traps: it says kAsk, and whoever runs it asks an exact evaluator instead. Entry point: ShapeCode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace unified_guards {

union Number {
  int64_t i;
  double d;
};

// Every instruction: name, then what it does. `to`, `a` and `b` are registers where nothing else is said.
// A check that fails ends the code; its `to` is the number of the guard that it belongs to.
#define UG_SHAPE_OPS(X)                                           \
  X(CHECK_EQ)        /* integers a == b                        */ \
  X(CHECK_LE)        /* integers a <= b                        */ \
  X(CHECK_LT)        /* integers a < b                         */ \
  X(CHECK_NE)        /* integers a != b                        */ \
  X(CHECK_CLEAR)     /* integers a & b == 0                    */ \
  X(CHECK_DIVISIBLE) /* integers a % b == 0                    */ \
  X(CHECK)           /* integer a is not 0                     */ \
  X(MOVE)            /* a                                      */ \
  X(ADD)                                                          \
  X(SUB)                                                          \
  X(MUL)                                                          \
  X(FLOORDIV)                                                     \
  X(MOD)             /* the sign of b                          */ \
  X(POW)             /* traps on a negative exponent           */ \
  X(NEG)                                                          \
  X(ABS)                                                          \
  X(MIN)                                                          \
  X(MAX)                                                          \
  X(BITAND)                                                       \
  X(BITOR)                                                        \
  X(BITXOR)                                                       \
  X(INVERT)                                                       \
  X(LSHIFT)                                                       \
  X(RSHIFT)                                                       \
  X(EQ)                                                           \
  X(NE)                                                           \
  X(LT)                                                           \
  X(LE)                                                           \
  X(NOT)                                                          \
  X(AND)             /* truths                                 */ \
  X(OR)              /* truths                                 */ \
  X(TRUTH)           /* integer a is not 0                     */ \
  X(SELECT)          /* `to` is the condition: a, else b       */ \
  X(DENSE)           /* b sizes from a, then as many strides   */ \
  X(TO_FLOAT)        /* integer a, rounded                     */ \
  X(TO_FLOAT_EXACT)  /* integer a; traps when that would round */ \
  X(TRUEDIV)         /* integers, to a double                  */ \
  X(F_ADD)                                                        \
  X(F_SUB)                                                        \
  X(F_MUL)                                                        \
  X(F_TRUEDIV)                                                    \
  X(F_FLOORDIV)                                                   \
  X(F_MOD)                                                        \
  X(F_POW)                                                        \
  X(F_NEG)                                                        \
  X(F_ABS)                                                        \
  X(F_MIN)                                                        \
  X(F_MAX)                                                        \
  X(F_EQ)                                                         \
  X(F_NE)                                                         \
  X(F_LT)                                                         \
  X(F_LE)                                                         \
  X(F_TRUTH)                                                      \
  X(F_ISNAN)                                                      \
  X(F_FLOOR)         /* to an integer, as those below          */ \
  X(F_CEIL)                                                       \
  X(F_TRUNC)                                                      \
  X(F_ROUND)                                                      \
  X(F_ROUND_TO)      /* to b decimal digits, a double          */ \
  X(F_SQRT)                                                       \
  X(F_COS)                                                        \
  X(F_COSH)                                                       \
  X(F_ACOS)                                                       \
  X(F_SIN)                                                        \
  X(F_SINH)                                                       \
  X(F_ASIN)                                                       \
  X(F_TAN)                                                        \
  X(F_TANH)                                                       \
  X(F_ATAN)                                                       \
  X(F_LOG2)

enum class ShapeOp : uint16_t {
#define UG_OP(name) name,
  UG_SHAPE_OPS(UG_OP)
#undef UG_OP
      kEnd
};

inline constexpr bool is_check(ShapeOp op) { return op <= ShapeOp::CHECK; }

struct ShapeInstruction {
  ShapeOp op;
  uint16_t to, a, b;
};
static_assert(sizeof(ShapeInstruction) == 8 && std::is_trivially_copyable_v<ShapeInstruction>);

enum class ShapeVerdict { kHolds, kFails, kAsk };

class ShapeCode {
 public:
  // Throws std::invalid_argument on an instruction that is not legal: every register that is read has been written.
  ShapeCode(uint32_t leaves, std::vector<Number> constants, std::vector<ShapeInstruction> code);

  // The registers: those of the leaves, which the caller fills before each run; the constants; the rest.
  std::vector<Number> make_registers() const;

  // On kFails, `failed` is the number of a guard that does not hold.
  ShapeVerdict run(Number* registers, uint16_t& failed) const;

  uint32_t leaves() const { return leaves_; }
  size_t bytes() const;

 private:
  void check_legal(uint32_t known);

  uint32_t leaves_, registers_ = 0;
  std::vector<Number> constants_;
  std::vector<ShapeInstruction> code_;  // kEnd at last
};

}  // namespace unified_guards
