// What computes on one thread's registers: arithmetic, comparisons, selections, bits, branches. Integers are computed
// on unsigned words, so that they wrap; a division by zero, which devices answer somehow, is an error here. Single
// precision has one NaN. Approximate functions give the exact value, rounded: a device may be a unit or two in the last
// place off.
#include <cmath>

#include "program.h"

namespace ptx {
namespace {

// ---- shapes of instructions ---------------------------------------------------------------------------------

template <class T, auto f>
const Instruction* unary(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, f(get<T>(r, i->a)));
  return i + 1;
}
template <class T, auto f>
const Instruction* binary(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, f(get<T>(r, i->a), get<T>(r, i->b)));
  return i + 1;
}
template <class T, auto f>
const Instruction* ternary(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, f(get<T>(r, i->a), get<T>(r, i->b), get<T>(r, i->c)));
  return i + 1;
}
// A shift: the count has 32 bits whatever is shifted.
template <class T, auto f>
const Instruction* shift(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, static_cast<T>(f(get<T>(r, i->a), get<uint32_t>(r, i->b))));
  return i + 1;
}
template <class T, bool remainder>
const Instruction* divide(const Instruction* i, Slot* r, Thread& t) {
  const T a = get<T>(r, i->a), b = get<T>(r, i->b);
  if (b == 0) fail(i, t, "division by zero");
  if (std::is_signed_v<T> && b == static_cast<T>(-1))
    put(r, i->d, remainder ? T{0} : static_cast<T>(0 - static_cast<Word<T>>(a)));
  else put(r, i->d, static_cast<T>(remainder ? a % b : a / b));
  return i + 1;
}
// The product of twice the width.
template <class Narrow, class Wide>
const Instruction* multiplyWide(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, static_cast<Wide>(static_cast<Wide>(get<Narrow>(r, i->a)) * static_cast<Wide>(get<Narrow>(r, i->b))));
  return i + 1;
}
template <class Narrow, class Wide>
const Instruction* multiplyAddWide(const Instruction* i, Slot* r, Thread&) {
  using U = std::make_unsigned_t<Wide>;
  const Wide product = static_cast<Wide>(get<Narrow>(r, i->a)) * static_cast<Wide>(get<Narrow>(r, i->b));
  put(r, i->d, static_cast<U>(static_cast<U>(product) + get<U>(r, i->c)));
  return i + 1;
}
template <class T, auto f>
const Instruction* compare(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = f(get<T>(r, i->a), get<T>(r, i->b)) ? 1 : 0;
  return i + 1;
}
template <class T>
const Instruction* select(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = get<T>(r, holds(r, i->c) ? i->a : i->b);
  return i + 1;
}
template <class T>
const Instruction* move(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = get<T>(r, i->a);
  return i + 1;
}
template <auto f>
const Instruction* predicate(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = f(r[i->a], r[i->b]) & 1;
  return i + 1;
}

// ---- single values ------------------------------------------------------------------------------------------

template <class U>
U reversed(U v) {
  U out = 0;
  for (size_t k = 0; k < sizeof(U) * 8; k++) out |= static_cast<U>((v >> k & 1) << (sizeof(U) * 8 - 1 - k));
  return out;
}
// The place of the highest set bit, or how far it is from the top.
template <class U, bool fromTop>
const Instruction* findBit(const Instruction* i, Slot* r, Thread&) {
  const U v = get<U>(r, i->a);
  const uint32_t zeros = static_cast<uint32_t>(std::countl_zero(v));
  put<uint32_t>(r, i->d, v == 0 ? 0xffffffffu : fromTop ? zeros : static_cast<uint32_t>(sizeof(U) * 8 - 1) - zeros);
  return i + 1;
}
template <class U>
const Instruction* countBits(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, static_cast<uint32_t>(std::popcount(get<U>(r, i->a))));
  return i + 1;
}
template <class U>
const Instruction* countZeros(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, static_cast<uint32_t>(std::countl_zero(get<U>(r, i->a))));
  return i + 1;
}
// d = b with the lowest `length` bits of a at `position`.
template <class U>
const Instruction* insertBits(const Instruction* i, Slot* r, Thread&) {
  constexpr uint32_t width = sizeof(U) * 8;
  const U from = get<U>(r, i->a), into = get<U>(r, i->b);
  const uint32_t position = get<uint32_t>(r, i->c) & 0xff, length = get<uint32_t>(r, i->more[0]) & 0xff;
  U out = into;
  for (uint32_t k = 0; k < length && position + k < width; k++) {
    const U bit = U{1} << (position + k);
    out = (from >> k & 1) ? out | bit : out & ~bit;
  }
  put(r, i->d, out);
  return i + 1;
}
// Each nibble of c picks one of the eight bytes of {b, a}, or spreads that byte's sign.
const Instruction* permuteBytes(const Instruction* i, Slot* r, Thread&) {
  const uint64_t bytes = get<uint32_t>(r, i->a) | static_cast<uint64_t>(get<uint32_t>(r, i->b)) << 32;
  uint32_t out = 0;
  for (uint32_t k = 0; k < 4; k++) {
    const uint32_t pick = get<uint32_t>(r, i->c) >> 4 * k & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (pick & 7)) & 0xff;
    if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
    out |= byte << 8 * k;
  }
  put(r, i->d, out);
  return i + 1;
}
// The upper (left) or lower word of {b, a}, shifted.
template <bool left, bool wrap>
const Instruction* funnel(const Instruction* i, Slot* r, Thread&) {
  const uint64_t both = get<uint32_t>(r, i->a) | static_cast<uint64_t>(get<uint32_t>(r, i->b)) << 32;
  const uint32_t count = get<uint32_t>(r, i->c), n = wrap ? count & 31 : std::min(count, 32u);
  put(r, i->d, static_cast<uint32_t>(left ? (both << n) >> 32 : both >> n));
  return i + 1;
}
// Bit by bit the entry of a table of eight.
const Instruction* lookUpBits(const Instruction* i, Slot* r, Thread&) {
  const uint32_t a = get<uint32_t>(r, i->a), b = get<uint32_t>(r, i->b), c = get<uint32_t>(r, i->c),
                 table = get<uint32_t>(r, i->more[0]);
  uint32_t out = 0;
  for (uint32_t k = 0; k < 8; k++)
    if (table >> k & 1) out |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  put(r, i->d, out);
  return i + 1;
}

// The number that is not a NaN; of zeros, the positive one is larger.
template <class F>
F larger(F a, F b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? (std::signbit(a) ? b : a) : a > b ? a : b;
}
template <class F>
F smaller(F a, F b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? (std::signbit(a) ? a : b) : a < b ? a : b;
}
float flushed(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }
// Rounded down: to nearest first, then compared with the exact sum, which two doubles hold.
float fmaDown(float a, float b, float c) {
  const float nearest = std::fma(a, b, c);
  if (!std::isfinite(nearest)) return nearest;
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c),
               sum = product + addend;
  const double part = sum - product, rest = (product - (sum - part)) + (addend - part);
  const double above = (static_cast<double>(nearest) - sum) - rest;
  if (nearest == 0 && above == 0)
    return product == 0 && addend == 0 && std::signbit(product) == std::signbit(addend) ? nearest : -0.0f;
  return above > 0 ? std::nextafter(nearest, -HUGE_VALF) : nearest;
}
// The upper half of a double and of its reciprocal; the lower halves are not looked at, and zero.
double coarseReciprocal(double v) {
  const auto upper = [](double d) { return std::bit_cast<double>(std::bit_cast<uint64_t>(d) & 0xffffffff00000000u); };
  const auto flush = [](double d) { return std::fpclassify(d) == FP_SUBNORMAL ? std::copysign(0.0, d) : d; };
  return upper(flush(1.0 / flush(upper(v))));
}

// ---- tables -------------------------------------------------------------------------------------------------

// U and S: words of the same width without and with a sign; its name, such as "32".
template <class U, class S>
void addIntegers(Forms& f, const std::string& w) {
  for (const std::string sign : {".u", ".s"}) {
    f.add("add" + sign + w, binary<U, [](U a, U b) { return static_cast<U>(a + b); }>, "dab");
    f.add("sub" + sign + w, binary<U, [](U a, U b) { return static_cast<U>(a - b); }>, "dab");
    f.add("mul.lo" + sign + w, binary<U, [](U a, U b) { return static_cast<U>(uint64_t{a} * b); }>, "dab");
    f.add("mad.lo" + sign + w, ternary<U, [](U a, U b, U c) { return static_cast<U>(uint64_t{a} * b + c); }>, "dabc");
  }
  f.add("div.u" + w, divide<U, false>, "dab");
  f.add("div.s" + w, divide<S, false>, "dab");
  f.add("rem.u" + w, divide<U, true>, "dab");
  f.add("rem.s" + w, divide<S, true>, "dab");
  f.add("min.u" + w, binary<U, [](U a, U b) { return a < b ? a : b; }>, "dab");
  f.add("min.s" + w, binary<S, [](S a, S b) { return a < b ? a : b; }>, "dab");
  f.add("max.u" + w, binary<U, [](U a, U b) { return (a > b) ? a : b; }>, "dab");
  f.add("max.s" + w, binary<S, [](S a, S b) { return (a > b) ? a : b; }>, "dab");
  f.add("neg.s" + w, unary<U, [](U a) { return static_cast<U>(0 - a); }>, "da");
  f.add("abs.s" + w, unary<U, [](U a) { return static_cast<S>(a) < 0 ? static_cast<U>(0 - a) : a; }>, "da");
  f.add("and.b" + w, binary<U, [](U a, U b) { return static_cast<U>(a & b); }>, "dab");
  f.add("or.b" + w, binary<U, [](U a, U b) { return static_cast<U>(a | b); }>, "dab");
  f.add("xor.b" + w, binary<U, [](U a, U b) { return static_cast<U>(a ^ b); }>, "dab");
  f.add("not.b" + w, unary<U, [](U a) { return static_cast<U>(~a); }>, "da");
  // Counts beyond the width count as the width.
  constexpr uint32_t width = sizeof(U) * 8;
  f.add("shl.b" + w, shift<U, [](U a, uint32_t n) { return n >= width ? U{0} : static_cast<U>(a << n); }>, "dab");
  for (const std::string sign : {".u", ".b"})
    f.add("shr" + sign + w, shift<U, [](U a, uint32_t n) { return n >= width ? U{0} : static_cast<U>(a >> n); }>,
          "dab");
  f.add("shr.s" + w, shift<S, [](S a, uint32_t n) { return static_cast<S>(a >> std::min(n, width - 1)); }>, "dab");
  for (const std::string sign : {".u", ".s", ".b"}) {
    f.add("setp.eq" + sign + w, compare<U, [](U a, U b) { return a == b; }>, "dab");
    f.add("setp.ne" + sign + w, compare<U, [](U a, U b) { return a != b; }>, "dab");
    f.add("selp" + sign + w, select<U>, "dabc");
    f.add("mov" + sign + w, move<U>, "da");
  }
  const auto order = [&]<class T>(T, const std::string& sign, std::array<const char*, 4> names) {
    f.add("setp." + (names[0] + sign) + w, compare<T, [](T a, T b) { return a < b; }>, "dab");
    f.add("setp." + (names[1] + sign) + w, compare<T, [](T a, T b) { return a <= b; }>, "dab");
    f.add("setp." + (names[2] + sign) + w, compare<T, [](T a, T b) { return (a > b); }>, "dab");
    f.add("setp." + (names[3] + sign) + w, compare<T, [](T a, T b) { return a >= b; }>, "dab");
  };
  order(S{}, ".s", {"lt", "le", "gt", "ge"});
  order(U{}, ".u", {"lt", "le", "gt", "ge"});
  order(U{}, ".u", {"lo", "ls", "hi", "hs"});
}

template <class F>
void addFloats(Forms& f, const std::string& type) {
  f.add("add.rn" + type, binary<F, [](F a, F b) { return a + b; }>, "dab");
  f.add("sub.rn" + type, binary<F, [](F a, F b) { return a - b; }>, "dab");
  f.add("mul.rn" + type, binary<F, [](F a, F b) { return a * b; }>, "dab");
  f.add("div.rn" + type, binary<F, [](F a, F b) { return a / b; }>, "dab");
  f.add("fma.rn" + type, ternary<F, [](F a, F b, F c) { return std::fma(a, b, c); }>, "dabc");
  f.add("sqrt.rn" + type, unary<F, [](F a) { return std::sqrt(a); }>, "da");
  f.add("rcp.rn" + type, unary<F, [](F a) { return 1 / a; }>, "da");
  f.add("min" + type, binary<F, [](F a, F b) { return smaller(a, b); }>, "dab");
  f.add("max" + type, binary<F, [](F a, F b) { return larger(a, b); }>, "dab");
  // Of the sign bit alone, also where it is a NaN's.
  constexpr Word<F> sign = Word<F>{1} << (sizeof(F) * 8 - 1);
  f.add("neg" + type, unary<Word<F>, [](Word<F> a) { return static_cast<Word<F>>(a ^ sign); }>, "da");
  f.add("abs" + type, unary<Word<F>, [](Word<F> a) { return static_cast<Word<F>>(a & ~sign); }>, "da");
  f.add("copysign" + type,
        binary<Word<F>, [](Word<F> a, Word<F> b) { return static_cast<Word<F>>((a & sign) | (b & ~sign)); }>, "dab");
  f.add("mov" + type, move<Word<F>>, "da");
  f.add("selp" + type, select<Word<F>>, "dabc");
  const auto both = [&]<auto ordered>(const std::string& name) {  // the second name holds for a NaN as well
    f.add("setp." + name + type, compare<F, ordered>, "dab");
    f.add("setp." + name + "u" + type, compare<F, [](F a, F b) { return a != a || b != b || ordered(a, b); }>, "dab");
  };
  both.template operator()<[](F a, F b) { return a == b; }>("eq");
  both.template operator()<[](F a, F b) { return a < b || (a > b); }>("ne");
  both.template operator()<[](F a, F b) { return a < b; }>("lt");
  both.template operator()<[](F a, F b) { return a <= b; }>("le");
  both.template operator()<[](F a, F b) { return (a > b); }>("gt");
  both.template operator()<[](F a, F b) { return a >= b; }>("ge");
  f.add("setp.num" + type, compare<F, [](F a, F b) { return a == a && b == b; }>, "dab");
  f.add("setp.nan" + type, compare<F, [](F a, F b) { return a != a || b != b; }>, "dab");
}

const Instruction* nothing(const Instruction* i, Slot*, Thread&) { return i + 1; }
const Instruction* end(const Instruction*, Slot*, Thread&) { return nullptr; }
// 64 bits out of two registers, and the other way round; the first one is the lower half.
const Instruction* pack(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = get<uint32_t>(r, i->more[0]) | static_cast<Slot>(get<uint32_t>(r, i->more[1])) << 32;
  return i + 1;
}
const Instruction* unpack(const Instruction* i, Slot* r, Thread&) {
  const uint64_t whole = r[i->a];
  put(r, i->more[0], static_cast<uint32_t>(whole));
  put(r, i->more[1], static_cast<uint32_t>(whole >> 32));
  return i + 1;
}

}  // namespace

const Instruction* guard(const Instruction* i, Slot* r, Thread&) { return holds(r, i->a) ? i + 1 : i + 2; }
const Instruction* guardNot(const Instruction* i, Slot* r, Thread&) { return holds(r, i->a) ? i + 2 : i + 1; }
const Instruction* branch(const Instruction* i, Slot*, Thread&) { return i->target; }
const Instruction* branchIf(const Instruction* i, Slot* r, Thread&) { return holds(r, i->a) ? i->target : i + 1; }
const Instruction* branchIfNot(const Instruction* i, Slot* r, Thread&) { return holds(r, i->a) ? i + 1 : i->target; }

void addArithmetic(Forms& f) {
  addIntegers<uint16_t, int16_t>(f, "16");
  addIntegers<uint32_t, int32_t>(f, "32");
  addIntegers<uint64_t, int64_t>(f, "64");
  f.add("mul.wide.u16", multiplyWide<uint16_t, uint32_t>, "dab");
  f.add("mul.wide.s16", multiplyWide<int16_t, int32_t>, "dab");
  f.add("mul.wide.u32", multiplyWide<uint32_t, uint64_t>, "dab");
  f.add("mul.wide.s32", multiplyWide<int32_t, int64_t>, "dab");
  f.add("mad.wide.u16", multiplyAddWide<uint16_t, uint32_t>, "dabc");
  f.add("mad.wide.s16", multiplyAddWide<int16_t, int32_t>, "dabc");
  f.add("mad.wide.u32", multiplyAddWide<uint32_t, uint64_t>, "dabc");
  f.add("mad.wide.s32", multiplyAddWide<int32_t, int64_t>, "dabc");
  f.add("mul.hi.u32",
        binary<uint32_t, [](uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }>, "dab");
  f.add("mul.hi.s32", binary<int32_t, [](int32_t a, int32_t b) { return static_cast<int32_t>(int64_t{a} * b >> 32); }>,
        "dab");
  f.add("mul.hi.u64",
        binary<uint64_t, [](uint64_t a,
                            uint64_t b) { return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64); }>,
        "dab");
  f.add("mul.hi.s64",
        binary<int64_t, [](int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<__int128>(a) * b >> 64); }>,
        "dab");
  f.add("brev.b32", unary<uint32_t, reversed<uint32_t>>, "da");
  f.add("brev.b64", unary<uint64_t, reversed<uint64_t>>, "da");
  f.add("bfind.u32", findBit<uint32_t, false>, "da");
  f.add("bfind.shiftamt.u32", findBit<uint32_t, true>, "da");
  f.add("bfind.u64", findBit<uint64_t, false>, "da");
  f.add("bfind.shiftamt.u64", findBit<uint64_t, true>, "da");
  f.add("popc.b32", countBits<uint32_t>, "da");
  f.add("popc.b64", countBits<uint64_t>, "da");
  f.add("clz.b32", countZeros<uint32_t>, "da");
  f.add("clz.b64", countZeros<uint64_t>, "da");
  f.add("bfi.b32", insertBits<uint32_t>, "dabcx");
  f.add("bfi.b64", insertBits<uint64_t>, "dabcx");
  f.add("prmt.b32", permuteBytes, "dabc");
  f.add("shf.l.wrap.b32", funnel<true, true>, "dabc");
  f.add("shf.l.clamp.b32", funnel<true, false>, "dabc");
  f.add("shf.r.wrap.b32", funnel<false, true>, "dabc");
  f.add("shf.r.clamp.b32", funnel<false, false>, "dabc");
  f.add("lop3.b32", lookUpBits, "dabcx");
  addFloats<float>(f, ".f32");
  addFloats<double>(f, ".f64");
  f.add("fma.rm.f32", ternary<float, fmaDown>, "dabc");
  f.add("ex2.approx.f32", unary<float, [](float a) { return static_cast<float>(std::exp2(static_cast<double>(a))); }>,
        "da");
  f.add("ex2.approx.ftz.f32",
        unary<float, [](float a) { return flushed(static_cast<float>(std::exp2(static_cast<double>(flushed(a))))); }>,
        "da");
  f.add("rcp.approx.f32", unary<float, [](float a) { return 1 / a; }>, "da");
  f.add("rcp.approx.ftz.f32", unary<float, [](float a) { return flushed(1 / flushed(a)); }>, "da");
  f.add("rcp.approx.ftz.f64", unary<double, coarseReciprocal>, "da");
  f.add("and.pred", predicate<[](Slot a, Slot b) { return a & b; }>, "dab");
  f.add("or.pred", predicate<[](Slot a, Slot b) { return a | b; }>, "dab");
  f.add("xor.pred", predicate<[](Slot a, Slot b) { return a ^ b; }>, "dab");
  f.add("not.pred", predicate<[](Slot a, Slot) { return ~a; }>, "da");
  f.add("mov.pred", predicate<[](Slot a, Slot) { return a; }>, "da");
  f.add("ret", end, "");
  f.add("exit", end, "");
  for (const char* name : {"membar.gl", "membar.cta", "membar.sys", "fence.acq_rel.gpu", "fence.sc.gpu"})
    f.add(name, nothing, "");
  f.add("pack.b64", pack, "dv");  // decode.cc: mov.b64 with braces
  f.add("unpack.b64", unpack, "va");
}

}  // namespace ptx
