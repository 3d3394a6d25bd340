// Conversions: between integers of any width, between them and floating point, to bfloat16, and of address spaces.
#include <cmath>
#include <limits>
#include <utility>

#include "program.h"

namespace ptx {
namespace {

enum class Rounding { nearest, zero, down, up };
template <Rounding rounding, class F>
F whole(F v) {
  switch (rounding) {
    case Rounding::nearest: return std::nearbyint(v);
    case Rounding::zero: return std::trunc(v);
    case Rounding::down: return std::floor(v);
    default: return std::ceil(v);
  }
}

template <class To, class From>
const Instruction* resize(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = widened(static_cast<To>(get<From>(r, i->a)));
  return i + 1;
}
// Cut to what the integer can hold; of a NaN 0, or where either has 64 bits the lowest (with a sign) or the middle of
// all.
template <class To, class From, Rounding rounding>
const Instruction* toInteger(const Instruction* i, Slot* r, Thread&) {
  using Most = std::numeric_limits<To>;
  const From v = whole<rounding>(get<From>(r, i->a));
  To out;
  if (v != v)
    out = sizeof(From) == 8 || sizeof(To) == 8 ? static_cast<To>(std::make_unsigned_t<To>{1} << (sizeof(To) * 8 - 1))
                                               : To{0};
  else if (v >= std::ldexp(From{1}, Most::digits)) out = Most::max();
  else if (v < static_cast<From>(Most::min())) out = Most::min();
  else out = static_cast<To>(v);
  r[i->d] = widened(out);
  return i + 1;
}
template <class To, class From>
const Instruction* toFloat(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, static_cast<To>(get<From>(r, i->a)));
  return i + 1;
}
template <class F, Rounding rounding>
const Instruction* toWhole(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, whole<rounding>(get<F>(r, i->a)));
  return i + 1;
}
// Into [0, 1]; a NaN becomes 0, as does -0.
template <class F>
const Instruction* saturate(const Instruction* i, Slot* r, Thread&) {
  const F v = get<F>(r, i->a);
  put(r, i->d, v > 0 ? (v < 1 ? v : F{1}) : F{0});
  return i + 1;
}

// The upper half of a float, rounded to the even one where two are as near.
uint32_t bfloat16(float v) {
  if (v != v) return 0x7fff;
  const uint32_t bits = std::bit_cast<uint32_t>(v), cut = bits & 0xffff, kept = bits >> 16;
  return kept + (cut > 0x8000 || (cut == 0x8000 && (kept & 1)) ? 1 : 0);
}
const Instruction* toBfloat16Pair(const Instruction* i, Slot* r, Thread&) {  // a above b
  put(r, i->d, bfloat16(get<float>(r, i->a)) << 16 | bfloat16(get<float>(r, i->b)));
  return i + 1;
}
const Instruction* toBfloat16(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, bfloat16(get<float>(r, i->a)));
  return i + 1;
}
const Instruction* fromBfloat16(const Instruction* i, Slot* r, Thread&) {
  put(r, i->d, std::bit_cast<float>(get<uint32_t>(r, i->a) << 16));
  return i + 1;
}

// ---- address spaces -----------------------------------------------------------------------------------------

template <uint64_t window>
const Instruction* fromWindow(const Instruction* i, Slot* r, Thread&) {
  r[i->d] = window + r[i->a];
  return i + 1;
}
template <uint64_t window>
const Instruction* toWindow(const Instruction* i, Slot* r, Thread& t) {
  if (r[i->a] >> 60 != window >> 60) fail(i, t, "the generic address is not in the space that it is taken for");
  r[i->d] = r[i->a] - window;
  return i + 1;
}

template <class From>
void addFrom(Forms& f, const std::string& from) {
  const auto integer = [&]<class To>(To, const std::string& to) { f.add("cvt." + to + from, resize<To, From>, "da"); };
  integer(uint8_t{}, "u8"), integer(int8_t{}, "s8"), integer(uint16_t{}, "u16"), integer(int16_t{}, "s16");
  integer(uint32_t{}, "u32"), integer(int32_t{}, "s32"), integer(uint64_t{}, "u64"), integer(int64_t{}, "s64");
  f.add("cvt.rn.f32" + from, toFloat<float, From>, "da");
  f.add("cvt.rn.f64" + from, toFloat<double, From>, "da");
}
template <class F>
void addFromFloat(Forms& f, const std::string& from) {
  const auto each = [&]<Rounding rounding>(const std::string& name) {
    const auto integer = [&]<class To>(To, const std::string& to) {
      f.add("cvt." + name + to + from, toInteger<To, F, rounding>, "da");
    };
    integer(uint8_t{}, ".u8"), integer(int8_t{}, ".s8"), integer(uint16_t{}, ".u16"), integer(int16_t{}, ".s16");
    integer(uint32_t{}, ".u32"), integer(int32_t{}, ".s32"), integer(uint64_t{}, ".u64"), integer(int64_t{}, ".s64");
    f.add("cvt." + name + from + from, toWhole<F, rounding>, "da");
  };
  each.template operator()<Rounding::nearest>("rni");
  each.template operator()<Rounding::zero>("rzi");
  each.template operator()<Rounding::down>("rmi");
  each.template operator()<Rounding::up>("rpi");
  f.add("cvt.sat" + from + from, saturate<F>, "da");
}

}  // namespace

void addConversions(Forms& f) {
  addFrom<uint8_t>(f, ".u8"), addFrom<int8_t>(f, ".s8"), addFrom<uint16_t>(f, ".u16"), addFrom<int16_t>(f, ".s16");
  addFrom<uint32_t>(f, ".u32"), addFrom<int32_t>(f, ".s32"), addFrom<uint64_t>(f, ".u64"), addFrom<int64_t>(f, ".s64");
  addFromFloat<float>(f, ".f32");
  addFromFloat<double>(f, ".f64");
  f.add("cvt.f64.f32", toFloat<double, float>, "da");
  f.add("cvt.rn.f32.f64", toFloat<float, double>, "da");
  f.add("cvt.rn.bf16x2.f32", toBfloat16Pair, "dab");
  f.add("cvt.rn.bf16.f32", toBfloat16, "da");
  f.add("cvt.f32.bf16", fromBfloat16, "da");
  // Global and local memory is where the generic address says.
  for (const std::string space : {"global", "local"})
    for (const std::string to : {".to.", "."}) f.add("cvta" + to + space + ".u64", fromWindow<0>, "da");
  f.add("cvta.shared.u64", fromWindow<sharedWindow>, "da");
  f.add("cvta.to.shared.u64", toWindow<sharedWindow>, "da");
  f.add("cvta.param.u64", fromWindow<parameterWindow>, "da");
  f.add("cvta.to.param.u64", toWindow<parameterWindow>, "da");
}

}  // namespace ptx
