// See shape_expr.h. Each case mirrors what CPython computes for exact ints and floats (Objects/longobject.c,
// Objects/floatobject.c, Modules/mathmodule.c).
#include "program/shape_expr.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace unified_guards {
namespace {

using Limits = std::numeric_limits<int64_t>;
// The largest integer up to which every integer is a double.
constexpr int64_t kExact = int64_t{1} << 53;

bool is_exact(int64_t value) { return -kExact <= value && value <= kExact; }

// Whether a division can be done in 32 bits, which is several times faster. Most are: sizes are small.
bool is_small(int64_t a, int64_t b) { return (static_cast<uint64_t>(a | b) >> 32) == 0; }

bool can_divide(int64_t a, int64_t b) { return b != 0 && !(a == Limits::min() && b == -1); }

int64_t modulo(int64_t a, int64_t b) {
  if (is_small(a, b)) return static_cast<uint32_t>(a) % static_cast<uint32_t>(b);
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

int64_t floor_quotient(int64_t a, int64_t b) {
  if (is_small(a, b)) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  const int64_t quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

bool power(int64_t base, int64_t exponent, int64_t& out) {
  if (exponent < 0) return false;
  int64_t result = 1;
  for (;;) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return false;
    exponent >>= 1;
    if (exponent == 0) break;
    if (__builtin_mul_overflow(base, base, &base)) return false;
  }
  out = result;
  return true;
}

bool shift_left(int64_t value, int64_t by, int64_t& out) {
  if (by < 0 || (by > 62 && value != 0)) return false;
  return value == 0 ? (out = 0, true) : !__builtin_mul_overflow(value, int64_t{1} << by, &out);
}

bool shift_right(int64_t value, int64_t by, int64_t& out) {
  if (by < 0) return false;
  out = value >> std::min<int64_t>(by, 63);
  return true;
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (b < 0) != (rest < 0) ? rest + b : rest;
}

double float_floor_quotient(double a, double b) {
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1.0 : whole;
}

// False, which is a trap, where Python has rules of its own (numbers that are not finite), raises, or gives a complex
// number.
bool float_power(double base, double exponent, double& out) {
  if (!std::isfinite(base) || !std::isfinite(exponent)) return false;
  if (base < 0 && exponent != std::floor(exponent)) return false;
  out = std::pow(base, exponent);
  return std::isnormal(out) || (base == 0 && exponent > 0);
}

bool to_integer(double value, int64_t& out) {
  if (!(value >= -0x1p63 && value < 0x1p63)) return false;
  out = static_cast<int64_t>(value);
  return true;
}

double round_half_even(double value) {
  const double rounded = std::round(value);
  return std::fabs(value - rounded) == 0.5 ? 2.0 * std::round(value / 2.0) : rounded;
}

// Rounds by way of a decimal text, as Python does: both conversions round correctly.
bool round_to(double value, int64_t digits, double& out) {
  out = value;
  if (!std::isfinite(value)) return true;
  if (digits < 0 || digits > 300) return false;
  char text[700];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, static_cast<int>(digits));
  return end.ec == std::errc{} && std::from_chars(text, end.ptr, out).ec == std::errc{};
}

// False where a function of Python's math module would raise: the result is NaN or infinite, and the argument is not.
bool math_result(double argument, double result, double& out) {
  out = result;
  return !(std::isnan(result) && !std::isnan(argument)) && !(std::isinf(result) && std::isfinite(argument));
}

// As torch's _eval_is_non_overlapping_and_dense; traps on an overflow. Sorts the operands in place.
bool is_dense(Number* sizes, int64_t rank, int64_t& out) {
  Number* strides = sizes + rank;
  out = 1;
  if (rank == 1) {
    out = strides[0].i == 1 || sizes[0].i < 2;
    return true;
  }
  for (int64_t i = 1; i < rank; i++) {
    for (int64_t j = i; j > 0 && strides[j].i < strides[j - 1].i; j--) {
      std::swap(strides[j], strides[j - 1]);
      std::swap(sizes[j], sizes[j - 1]);
    }
  }
  int64_t expected = 1;
  for (int64_t i = 0; i < rank; i++) {
    if (sizes[i].i == 1) continue;
    if (strides[i].i != expected) {
      out = 0;
      return true;
    }
    if (__builtin_mul_overflow(expected, sizes[i].i, &expected)) return false;
  }
  return true;
}

}  // namespace

ShapeCode::ShapeCode(uint32_t leaves, std::vector<Number> constants, std::vector<ShapeInstruction> code)
    : leaves_(leaves), constants_(std::move(constants)), code_(std::move(code)) {
  check_legal(leaves_ + static_cast<uint32_t>(constants_.size()));
  code_.push_back({ShapeOp::kEnd, 0, 0, 0});
}

void ShapeCode::check_legal(uint32_t known) {
  std::vector<bool> written(known, true);
  const auto need = [&](uint32_t at) {
    if (at >= written.size() || !written[at])
      throw std::invalid_argument("a shape expression reads what nothing wrote");
  };
  for (const ShapeInstruction& i : code_) {
    if (i.op >= ShapeOp::kEnd) throw std::invalid_argument("no such instruction in a shape expression");
    if (i.op == ShapeOp::DENSE) {
      for (uint32_t operand = 0; operand < 2u * i.b; operand++) need(i.a + operand);
    } else {
      need(i.a);
      need(i.b);
    }
    if (i.op == ShapeOp::SELECT) need(i.to);
    if (is_check(i.op)) continue;
    if (i.to < known) throw std::invalid_argument("a shape expression writes to what it is given");
    if (i.to >= written.size()) written.resize(i.to + 1u);
    written[i.to] = true;
  }
  registers_ = static_cast<uint32_t>(written.size());
}

std::vector<Number> ShapeCode::make_registers() const {
  std::vector<Number> registers(registers_, Number{0});
  std::copy(constants_.begin(), constants_.end(), registers.begin() + leaves_);
  return registers;
}

size_t ShapeCode::bytes() const {
  return sizeof *this + constants_.capacity() * sizeof(Number) + code_.capacity() * sizeof(ShapeInstruction) +
         registers_ * sizeof(Number);
}

// Instructions of one kind stand together: each case runs all that follow, so that a loop of a few processor
// instructions takes the place of a jump for each.
ShapeVerdict ShapeCode::run(Number* r, uint16_t& failed) const {
#define UG_RUN(name, ...)                         \
  case ShapeOp::name:                             \
    do {                                          \
      __VA_ARGS__;                                \
    } while ((++i)->op == ShapeOp::name);         \
    continue
#define UG_CHECK(name, holds)                     \
  UG_RUN(name, const Number a = r[i->a], b = r[i->b]; (void)b; if (!(holds)) [[unlikely]] { \
    failed = i->to;                               \
    return ShapeVerdict::kFails;                  \
  })
// `possible` is false where the code has to give up; it comes with what is computed.
#define UG_TRY(name, possible)                    \
  UG_RUN(name, const Number a = r[i->a], b = r[i->b]; (void)b; Number& to = r[i->to]; if (!(possible)) [[unlikely]] \
         return ShapeVerdict::kAsk)
#define UG_DO(name, ...) UG_TRY(name, ((__VA_ARGS__), true))
#define UG_MATH(name, function) UG_TRY(name, math_result(a.d, function(a.d), to.d))

  const ShapeInstruction* i = code_.data();
  for (;;) {
    switch (i->op) {
      UG_CHECK(CHECK_EQ, a.i == b.i);
      UG_CHECK(CHECK_LE, a.i <= b.i);
      UG_CHECK(CHECK_LT, a.i < b.i);
      UG_CHECK(CHECK_NE, a.i != b.i);
      UG_CHECK(CHECK_CLEAR, (a.i & b.i) == 0);
      UG_RUN(
          CHECK_DIVISIBLE, const Number a = r[i->a], b = r[i->b]; if (!can_divide(a.i, b.i)) return ShapeVerdict::kAsk;
          if (modulo(a.i, b.i) != 0) {
            failed = i->to;
            return ShapeVerdict::kFails;
          });
      UG_CHECK(CHECK, a.i != 0);
      UG_DO(MOVE, to = a);
      UG_TRY(ADD, !__builtin_add_overflow(a.i, b.i, &to.i));
      UG_TRY(SUB, !__builtin_sub_overflow(a.i, b.i, &to.i));
      UG_TRY(MUL, !__builtin_mul_overflow(a.i, b.i, &to.i));
      UG_TRY(FLOORDIV, can_divide(a.i, b.i) && (to.i = floor_quotient(a.i, b.i), true));
      UG_TRY(MOD, can_divide(a.i, b.i) && (to.i = modulo(a.i, b.i), true));
      UG_TRY(POW, power(a.i, b.i, to.i));
      UG_TRY(NEG, !__builtin_sub_overflow(int64_t{0}, a.i, &to.i));
      UG_TRY(ABS, a.i != Limits::min() && (to.i = a.i < 0 ? -a.i : a.i, true));
      UG_DO(MIN, to.i = std::min(a.i, b.i));
      UG_DO(MAX, to.i = std::max(a.i, b.i));
      UG_DO(BITAND, to.i = a.i & b.i);
      UG_DO(BITOR, to.i = a.i | b.i);
      UG_DO(BITXOR, to.i = a.i ^ b.i);
      UG_DO(INVERT, to.i = ~a.i);
      UG_TRY(LSHIFT, shift_left(a.i, b.i, to.i));
      UG_TRY(RSHIFT, shift_right(a.i, b.i, to.i));
      UG_DO(EQ, to.i = a.i == b.i);
      UG_DO(NE, to.i = a.i != b.i);
      UG_DO(LT, to.i = a.i < b.i);
      UG_DO(LE, to.i = a.i <= b.i);
      UG_DO(NOT, to.i = a.i == 0);
      UG_DO(AND, to.i = a.i & b.i);
      UG_DO(OR, to.i = a.i | b.i);
      UG_DO(TRUTH, to.i = a.i != 0);
      UG_DO(SELECT, to = to.i != 0 ? a : b);
      UG_TRY(DENSE, is_dense(r + i->a, i->b, to.i));
      UG_DO(TO_FLOAT, to.d = static_cast<double>(a.i));
      UG_TRY(TO_FLOAT_EXACT, is_exact(a.i) && (to.d = static_cast<double>(a.i), true));
      UG_TRY(TRUEDIV, b.i != 0 && is_exact(a.i) && is_exact(b.i) &&
                          (to.d = static_cast<double>(a.i) / static_cast<double>(b.i), true));
      UG_DO(F_ADD, to.d = a.d + b.d);
      UG_DO(F_SUB, to.d = a.d - b.d);
      UG_DO(F_MUL, to.d = a.d * b.d);
      UG_TRY(F_TRUEDIV, b.d != 0 && (to.d = a.d / b.d, true));
      UG_TRY(F_FLOORDIV, b.d != 0 && (to.d = float_floor_quotient(a.d, b.d), true));
      UG_TRY(F_MOD, b.d != 0 && (to.d = float_modulo(a.d, b.d), true));
      UG_TRY(F_POW, float_power(a.d, b.d, to.d));
      UG_DO(F_NEG, to.d = -a.d);
      UG_DO(F_ABS, to.d = std::fabs(a.d));
      UG_DO(F_MIN, to.d = b.d < a.d ? b.d : a.d);
      UG_DO(F_MAX, to.d = b.d > a.d ? b.d : a.d);
      UG_DO(F_EQ, to.i = a.d == b.d);
      UG_DO(F_NE, to.i = a.d != b.d);
      UG_DO(F_LT, to.i = a.d < b.d);
      UG_DO(F_LE, to.i = a.d <= b.d);
      UG_DO(F_TRUTH, to.i = a.d != 0);
      UG_DO(F_ISNAN, to.i = std::isnan(a.d));
      UG_TRY(F_FLOOR, to_integer(std::floor(a.d), to.i));
      UG_TRY(F_CEIL, to_integer(std::ceil(a.d), to.i));
      UG_TRY(F_TRUNC, to_integer(std::trunc(a.d), to.i));
      UG_TRY(F_ROUND, to_integer(round_half_even(a.d), to.i));
      UG_TRY(F_ROUND_TO, round_to(a.d, b.i, to.d));
      UG_MATH(F_SQRT, std::sqrt);
      UG_MATH(F_COS, std::cos);
      UG_MATH(F_COSH, std::cosh);
      UG_MATH(F_ACOS, std::acos);
      UG_MATH(F_SIN, std::sin);
      UG_MATH(F_SINH, std::sinh);
      UG_MATH(F_ASIN, std::asin);
      UG_MATH(F_TAN, std::tan);
      UG_MATH(F_TANH, std::tanh);
      UG_MATH(F_ATAN, std::atan);
      UG_MATH(F_LOG2, std::log2);
      case ShapeOp::kEnd: return ShapeVerdict::kHolds;
    }
  }
#undef UG_RUN
#undef UG_CHECK
#undef UG_TRY
#undef UG_DO
#undef UG_MATH
}

}  // namespace unified_guards
