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

template <class E>
void matmul(const Matmul& m, int panelBegin, int panelEnd) {
  const E* x = static_cast<const E*>(m.x);
  for (int panel = panelBegin; panel < panelEnd; panel++) {
    const uint8_t* w = m.w + static_cast<size_t>(panel) * m.groups * groupBytes;
    // One tile waits for its panel to stream in. Several read it from the second-level cache and fetch the next panel
    // meanwhile, each its share: memory and arithmetic overlap.
    const int tiles = (m.rows + tileRows - 1) / tileRows;
    const ptrdiff_t panelBytes = static_cast<ptrdiff_t>(m.groups) * groupBytes, share = panelBytes / tiles;
    forTiles(
        m.rows, [&]<int R>(int first) __attribute__((always_inline)) {
          Tile<R> t;
          clear(t);
          const Ahead ahead = tiles == 1 ? samePanel(w) : Ahead{w + panelBytes + first / tileRows * share, 128 / tiles};
          accumulate<R>(t, x + first * m.xStride, m.xStride, w, m.groups, ahead);
          for (int r = 0; r < R; r++) {
            if (m.epilogue == Epilogue::swiglu) {
              E* out = static_cast<E*>(m.out) + (first + r) * m.yStride + panel * 16;
              for (int j = 0; j < panelVectors / 2; j++)
                storeElements(out + j * lanes, silu(t.sum[r][j]) * t.sum[r][j + panelVectors / 2]);
              continue;
            }
            if (m.bias)
              for (int j = 0; j < panelVectors; j++) t.sum[r][j] += load(m.bias + panel * 32 + j * lanes);
            if (m.epilogue == Epilogue::gelu) {
              E* out = static_cast<E*>(m.out) + (first + r) * m.yStride + panel * 32;
              for (int j = 0; j < panelVectors; j++) storeElements(out + j * lanes, gelu(t.sum[r][j]));
            } else {
              float* y = m.y + (first + r) * m.yStride + panel * 32;
              for (int j = 0; j < panelVectors; j++) {
                const vf old = m.epilogue == Epilogue::add ? load(y + j * lanes) : vf{};
                store(y + j * lanes, old + t.sum[r][j]);
              }
            }
          }
        });
  }
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
