// Projections: rows of activations times packed weights, with the epilogue fused.
#pragma once

#include "../kernels.h"
#include "tile.h"

namespace {

using namespace parvis::cpu;

// The error function, absolute error below 2e-7: x P(x^2) up to 1, behind it 1 - e^(-x^2) Q(1 / (1 + x / 2)). Both
// polynomials are Chebyshev fits.
INLINE vf errorFunction(vf x) {
  const vf a = x < vf{} ? -x : x, u = x * x;
  vf p = fill(-9.673591e-06f);
  p = p * u + fill(1.1268254e-04f);
  p = p * u + fill(-8.4843964e-04f);
  p = p * u + fill(5.2210535e-03f);
  p = p * u + fill(-2.6865438e-02f);
  p = p * u + fill(1.1283783e-01f);
  p = p * u + fill(-3.7612638e-01f);
  p = p * u + fill(1.1283792f);
  const vf z = min(fill(6.0f), a), t = fill(1.0f) / (fill(1.0f) + fill(0.5f) * z);
  vf q = fill(-8.547879e-02f);
  q = q * t + fill(3.9797956e-01f);
  q = q * t + fill(-6.9700676e-01f);
  q = q * t + fill(4.9691185e-01f);
  q = q * t + fill(-1.6807896e-01f);
  q = q * t + fill(2.6132202e-01f);
  q = q * t + fill(2.2753145e-01f);
  q = q * t + fill(2.84932e-01f);
  q = q * t + fill(2.8185034e-01f);
  q = q * t + fill(9.3865765e-06f);
  const vf far = fill(1.0f) - q * exponential(-(z * z));
  return a < fill(1.0f) ? p * x : x < vf{} ? -far : far;
}

INLINE vf gelu(vf x) { return fill(0.5f) * x * (fill(1.0f) + errorFunction(x * fill(0.70710678f))); }

// What becomes of the sums of a row and a panel. T: the type of what `out` takes.
template <class T>
INLINE void finish(const Matmul& m, int panel, int row, const float* sums) {
  if (m.epilogue == Epilogue::swiglu) {
    T* out = static_cast<T*>(m.out) + row * m.yStride + panel * 16;
    for (int i = 0; i < 16; i += lanes) storeElements(out + i, silu(load(sums + i)) * load(sums + 16 + i));
    return;
  }
  const ptrdiff_t at = row * m.yStride + panel * 32;
  for (int i = 0; i < 32; i += lanes) {
    vf v = load(sums + i);
    if (m.bias) v += load(m.bias + panel * 32 + i);
    if (m.epilogue == Epilogue::gelu) storeElements(static_cast<T*>(m.out) + at + i, gelu(v));
    else store(m.y + at + i, m.epilogue == Epilogue::add ? load(m.y + at + i) + v : v);
  }
}

template <class W, class E>
void matmul(const Matmul& m, int panelBegin, int panelEnd) {
  const ptrdiff_t panelBytes = packedBytes<W>(m.inputs);
  alignas(64) float sums[chunkRows * panelOutputs];
  for (int panel = panelBegin; panel < panelEnd; panel++)
    forChunks(m.rows, [&](int first, int count) {
      multiplyPanel<W>(static_cast<const E*>(m.x) + first * m.xStride, m.xStride, count, m.w + panel * panelBytes,
                       m.inputs, sums, false);
      for (int r = 0; r < count; r++) finish<E>(m, panel, first + r, sums + r * panelOutputs);
    });
}

template <class E>
void rmsNorm(const Norm& n) {
  E* out = static_cast<E*>(n.out);
  vf squares{};
  int i = 0;
  for (; i + lanes <= n.dim; i += lanes) {
    const vf v = load(n.x + i);
    squares += v * v;
  }
  float sum = sumLanes(squares);
  for (; i < n.dim; i++) sum += n.x[i] * n.x[i];
  const float scale = 1.0f / __builtin_sqrtf(sum / static_cast<float>(n.dim) + n.eps);
  for (i = 0; i + lanes <= n.dim; i += lanes)  // rounded to the model's type, then times the weight
    storeElements(out + i, rounded(out, load(n.x + i) * fill(scale)) * load(n.weight + i));
  for (; i < n.dim; i++) {
    E normed;
    storeElement(&normed, n.x[i] * scale);
    float f;
    if constexpr (sizeof(E) == 4) f = normed;
    else f = widen(normed);
    storeElement(out + i, f * n.weight[i]);
  }
}

// (x - mean) / deviation * weight + bias, rounded once. The variance is that of the differences from the mean.
template <class E>
void layerNorm(const Norm& n) {
  E* out = static_cast<E*>(n.out);
  const float count = static_cast<float>(n.dim);
  vf sums{};
  int i = 0;
  for (; i + lanes <= n.dim; i += lanes) sums += load(n.x + i);
  float sum = sumLanes(sums);
  for (; i < n.dim; i++) sum += n.x[i];
  const float mean = sum / count;
  vf squares{};
  for (i = 0; i + lanes <= n.dim; i += lanes) {
    const vf d = load(n.x + i) - fill(mean);
    squares += d * d;
  }
  sum = sumLanes(squares);
  for (; i < n.dim; i++) sum += (n.x[i] - mean) * (n.x[i] - mean);
  const float scale = 1.0f / __builtin_sqrtf(sum / count + n.eps);
  for (i = 0; i + lanes <= n.dim; i += lanes)
    storeElements(out + i, (load(n.x + i) - fill(mean)) * fill(scale) * load(n.weight + i) + load(n.bias + i));
  for (; i < n.dim; i++) storeElement(out + i, (n.x[i] - mean) * scale * n.weight[i] + n.bias[i]);
}

template <class E>
void norm(const Norm& n) {
  if (n.layer) layerNorm<E>(n);
  else rmsNorm<E>(n);
}

}  // namespace
