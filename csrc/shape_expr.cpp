// See shape_expr.h. Each case mirrors what CPython computes for exact ints and floats (Objects/longobject.c,
// Objects/floatobject.c, Modules/mathmodule.c).
#include "shape_expr.h"

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

// Most divisions are of small sizes: the processor does those several times faster in 32 bits.
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

// Traps where Python has rules of its own (what is not finite), raises, or gives a complex number.
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

// Through the decimal text, which both conversions round correctly, as Python's do.
bool round_to(double value, int64_t digits, double& out) {
  out = value;
  if (!std::isfinite(value)) return true;
  if (digits < 0 || digits > 300) return false;
  char text[700];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, static_cast<int>(digits));
  return end.ec == std::errc{} && std::from_chars(text, end.ptr, out).ec == std::errc{};
}

// A function of the math module raises where its result is no number, or is infinite, and its argument is not.
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
  registers_ = leaves_ + static_cast<uint32_t>(constants_.size());
  check_legal(registers_);
}

void ShapeCode::check_legal(uint32_t known) {
  std::vector<bool> written(known, true);
  const auto need = [&](uint32_t at) {
    if (at >= written.size() || !written[at])
      throw std::invalid_argument("a shape expression reads what nothing wrote");
  };
  for (const ShapeInstruction& i : code_) {
    if (i.op >= ShapeOp::kCount) throw std::invalid_argument("no such instruction in a shape expression");
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

ShapeVerdict ShapeCode::run(Number* r, uint16_t& failed) const {
#define UG_CHECK(holds)              \
  if (holds) [[likely]] continue;    \
  failed = i.to;                     \
  return ShapeVerdict::kFails
#define UG_TRAP(trapped) \
  if (trapped) [[unlikely]] return ShapeVerdict::kAsk
#define UG_MATH(name, function)                                            \
  case ShapeOp::name: UG_TRAP(!math_result(a.d, function(a.d), to.d)); continue

  for (const ShapeInstruction& i : code_) {
    const Number a = r[i.a], b = r[i.b];
    Number& to = r[i.to];
    switch (i.op) {
      case ShapeOp::CHECK_EQ: UG_CHECK(a.i == b.i);
      case ShapeOp::CHECK_LE: UG_CHECK(a.i <= b.i);
      case ShapeOp::CHECK_LT: UG_CHECK(a.i < b.i);
      case ShapeOp::CHECK_NE: UG_CHECK(a.i != b.i);
      case ShapeOp::CHECK_DIVISIBLE: UG_TRAP(!can_divide(a.i, b.i)); UG_CHECK(modulo(a.i, b.i) == 0);
      case ShapeOp::CHECK: UG_CHECK(a.i != 0);
      case ShapeOp::MOVE: to = a; continue;
      case ShapeOp::ADD: UG_TRAP(__builtin_add_overflow(a.i, b.i, &to.i)); continue;
      case ShapeOp::SUB: UG_TRAP(__builtin_sub_overflow(a.i, b.i, &to.i)); continue;
      case ShapeOp::MUL: UG_TRAP(__builtin_mul_overflow(a.i, b.i, &to.i)); continue;
      case ShapeOp::FLOORDIV:
        UG_TRAP(!can_divide(a.i, b.i));
        to.i = floor_quotient(a.i, b.i);
        continue;
      case ShapeOp::MOD:
        UG_TRAP(!can_divide(a.i, b.i));
        to.i = modulo(a.i, b.i);
        continue;
      case ShapeOp::POW: UG_TRAP(!power(a.i, b.i, to.i)); continue;
      case ShapeOp::NEG: UG_TRAP(__builtin_sub_overflow(int64_t{0}, a.i, &to.i)); continue;
      case ShapeOp::ABS:
        UG_TRAP(a.i == Limits::min());
        to.i = a.i < 0 ? -a.i : a.i;
        continue;
      case ShapeOp::MIN: to.i = std::min(a.i, b.i); continue;
      case ShapeOp::MAX: to.i = std::max(a.i, b.i); continue;
      case ShapeOp::BITAND: to.i = a.i & b.i; continue;
      case ShapeOp::BITOR: to.i = a.i | b.i; continue;
      case ShapeOp::BITXOR: to.i = a.i ^ b.i; continue;
      case ShapeOp::INVERT: to.i = ~a.i; continue;
      case ShapeOp::LSHIFT: UG_TRAP(!shift_left(a.i, b.i, to.i)); continue;
      case ShapeOp::RSHIFT: UG_TRAP(!shift_right(a.i, b.i, to.i)); continue;
      case ShapeOp::EQ: to.i = a.i == b.i; continue;
      case ShapeOp::NE: to.i = a.i != b.i; continue;
      case ShapeOp::LT: to.i = a.i < b.i; continue;
      case ShapeOp::LE: to.i = a.i <= b.i; continue;
      case ShapeOp::NOT: to.i = a.i == 0; continue;
      case ShapeOp::AND: to.i = a.i & b.i; continue;
      case ShapeOp::OR: to.i = a.i | b.i; continue;
      case ShapeOp::TRUTH: to.i = a.i != 0; continue;
      case ShapeOp::SELECT: to = to.i != 0 ? a : b; continue;
      case ShapeOp::DENSE: UG_TRAP(!is_dense(r + i.a, i.b, to.i)); continue;
      case ShapeOp::TO_FLOAT: to.d = static_cast<double>(a.i); continue;
      case ShapeOp::TO_FLOAT_EXACT:
        UG_TRAP(!is_exact(a.i));
        to.d = static_cast<double>(a.i);
        continue;
      case ShapeOp::TRUEDIV:
        UG_TRAP(b.i == 0 || !is_exact(a.i) || !is_exact(b.i));
        to.d = static_cast<double>(a.i) / static_cast<double>(b.i);
        continue;
      case ShapeOp::F_ADD: to.d = a.d + b.d; continue;
      case ShapeOp::F_SUB: to.d = a.d - b.d; continue;
      case ShapeOp::F_MUL: to.d = a.d * b.d; continue;
      case ShapeOp::F_TRUEDIV:
        UG_TRAP(b.d == 0);
        to.d = a.d / b.d;
        continue;
      case ShapeOp::F_FLOORDIV:
        UG_TRAP(b.d == 0);
        to.d = float_floor_quotient(a.d, b.d);
        continue;
      case ShapeOp::F_MOD:
        UG_TRAP(b.d == 0);
        to.d = float_modulo(a.d, b.d);
        continue;
      case ShapeOp::F_POW: UG_TRAP(!float_power(a.d, b.d, to.d)); continue;
      case ShapeOp::F_NEG: to.d = -a.d; continue;
      case ShapeOp::F_ABS: to.d = std::fabs(a.d); continue;
      case ShapeOp::F_MIN: to.d = b.d < a.d ? b.d : a.d; continue;
      case ShapeOp::F_MAX: to.d = b.d > a.d ? b.d : a.d; continue;
      case ShapeOp::F_EQ: to.i = a.d == b.d; continue;
      case ShapeOp::F_NE: to.i = a.d != b.d; continue;
      case ShapeOp::F_LT: to.i = a.d < b.d; continue;
      case ShapeOp::F_LE: to.i = a.d <= b.d; continue;
      case ShapeOp::F_TRUTH: to.i = a.d != 0; continue;
      case ShapeOp::F_ISNAN: to.i = std::isnan(a.d); continue;
      case ShapeOp::F_FLOOR: UG_TRAP(!to_integer(std::floor(a.d), to.i)); continue;
      case ShapeOp::F_CEIL: UG_TRAP(!to_integer(std::ceil(a.d), to.i)); continue;
      case ShapeOp::F_TRUNC: UG_TRAP(!to_integer(std::trunc(a.d), to.i)); continue;
      case ShapeOp::F_ROUND: UG_TRAP(!to_integer(round_half_even(a.d), to.i)); continue;
      case ShapeOp::F_ROUND_TO:
        UG_TRAP(!round_to(a.d, b.i, to.d));
        continue;
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
      case ShapeOp::kCount: return ShapeVerdict::kAsk;
    }
  }
  return ShapeVerdict::kHolds;
#undef UG_CHECK
#undef UG_TRAP
#undef UG_MATH
}

}  // namespace unified_guards
