// The CPU backend's kernels as the reference: packed matrices and caches in its layouts (cpu/kernels.h), with plain
// arrays on the outside, of the kind that kernels see too. `E` is float or uint16_t (bfloat16).
#pragma once

#include "../../cpu/kernels.h"
#include "cases.h"

namespace parvis::cpu {
extern const Kernels kernels_baseline;
extern const Sampler sampler_baseline;
}  // namespace parvis::cpu

namespace reference {

using cases::Array;
using parvis::cpu::kernels_baseline;

template <class E>
constexpr int kind = sizeof(E) == 4 ? 0 : 1;
template <class E>
constexpr int step = sizeof(E) == 4 ? 1 : 2;
inline int up(int n, int to) { return (n + to - 1) / to * to; }

inline void convert(float f, float& to) { to = f; }
inline void convert(float f, uint16_t& to) { to = cases::bf16(f); }
inline float value(float f) { return f; }
inline float value(uint16_t f) { return cases::widen(f); }
template <class E>
Array<E> elements(const Array<float>& v) {
  Array<E> out(v.size());
  for (size_t i = 0; i < v.size(); i++) convert(v[i], out[i]);
  return out;
}

// Row-major [outputs, inputs] -> panels.
template <class E>
Array<E> pack(const Array<E>& w, int outputs, int inputs) {
  const int groups = up(inputs, step<E>) / step<E>;
  Array<E> out(static_cast<size_t>(up(outputs, 32) * groups * step<E>));
  for (int o = 0; o < outputs; o++)
    for (int i = 0; i < inputs; i++)
      out[static_cast<size_t>(((o / 32 * groups + i / step<E>)*32 + o % 32) * step<E> + i % step<E>)] =
          w[static_cast<size_t>(o * inputs + i)];
  return out;
}

// x [rows, stride] elements times w [outputs, inputs] -> [rows, outputs rounded up to 32]
template <class E>
Array<float> product(const Array<E>& x, int stride, int rows, const Array<E>& w, int outputs, int inputs) {
  const Array<E> packed = pack(w, outputs, inputs);
  Array<float> y(static_cast<size_t>(rows * up(outputs, 32)));
  kernels_baseline.matmul[kind<E>](
      {x.data(), stride, rows, reinterpret_cast<const uint8_t*>(packed.data()), up(inputs, step<E>) / step<E>,
       parvis::cpu::Epilogue::store, nullptr, y.data(), nullptr, up(outputs, 32)},
      0, up(outputs, 32) / 32);
  return y;
}

template <class E>
Array<E> norm(const Array<float>& x, int stride, int rows, const Array<float>& weight, int dim, float eps) {
  Array<E> out(static_cast<size_t>(rows * stride));
  for (int r = 0; r < rows; r++)
    kernels_baseline.norm[kind<E>](
        {false, x.data() + r * stride, weight.data(), nullptr, out.data() + r * stride, dim, eps});
  return out;
}

// Key and value cache of one stream and head.
template <class E>
struct CacheOf {
  int slots, width, keyGroups;
  std::vector<E> keys, values;
  CacheOf(int slots, int width)
      : slots(up(slots, 32)), width(width), keyGroups(up(width, step<E>) / step<E>),
        keys(static_cast<size_t>(this->slots * keyGroups * step<E>)),
        values(static_cast<size_t>(this->slots * up(width, 32))) {}
  E& key(int slot, int d) {
    return keys[static_cast<size_t>((slot / 32 * keyGroups + d / step<E>)*32 * step<E> + slot % 32 * step<E> +
                                    d % step<E>)];
  }
  E& value(int slot, int d) {
    return values[static_cast<size_t>(d / 32 * slots * 32 + slot / step<E> * 32 * step<E> + slot % step<E> +
                                      d % 32 * step<E>)];
  }
  parvis::cpu::CacheHead head() {
    return {reinterpret_cast<uint8_t*>(keys.data()), reinterpret_cast<uint8_t*>(values.data()), slots};
  }
};

// Largest difference, relative to the largest number.
template <class A, class B>
double relative(const A& a, const B& b) {
  double most = 1e-30, difference = a.size() == b.size() ? 0 : 1e30;
  for (size_t i = 0; i < a.size() && i < b.size(); i++) {
    most = std::fmax(most, std::fabs(static_cast<double>(b[i])));
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    difference = d <= difference ? difference : d;  // NaN counts
    if (!(d == d)) return 1e30;
  }
  return difference / most;
}

}  // namespace reference
