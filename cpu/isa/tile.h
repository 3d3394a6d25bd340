// The inner loop of everything: `R` rows of activations against one packed panel of 32 outputs. The weights of a
// group are read once and used for all rows of the tile; sums run over the groups in order.
#pragma once

#include "simd.h"

namespace {

template <int R>
struct Tile {
  vf sum[R][panelVectors];
};

template <int R>
INLINE void clear(Tile<R>& t) {
  for (int r = 0; r < R; r++)
    for (int j = 0; j < panelVectors; j++) t.sum[r][j] = vf{};
}

// What to fetch while a group is multiplied: `step` bytes further with each group.
struct Ahead {
  const uint8_t* at;
  ptrdiff_t step;
};
constexpr int prefetchBytes = 4096;
INLINE Ahead samePanel(const uint8_t* w) { return {w + prefetchBytes, 128}; }

// x: R rows, `stride` elements apart; w: `groups` groups of 128 bytes.
template <int R>
INLINE void accumulate(Tile<R>& t, const float* x, ptrdiff_t stride, const uint8_t* w, int groups, Ahead ahead) {
  for (int g = 0; g < groups; g++, w += 128, ahead.at += ahead.step) {
    __builtin_prefetch(ahead.at, 0, 2);  // into the second-level cache
    __builtin_prefetch(ahead.at + 64, 0, 2);
    const float* wf = reinterpret_cast<const float*>(w);
    vf wv[panelVectors];
#pragma GCC unroll 8
    for (int j = 0; j < panelVectors; j++) wv[j] = load(wf + j * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vf b = fill(x[r * stride + g]);
#pragma GCC unroll 8
      for (int j = 0; j < panelVectors; j++) t.sum[r][j] += b * wv[j];
    }
  }
}

template <int R>
INLINE void accumulate(Tile<R>& t, const bf16* x, ptrdiff_t stride, const uint8_t* w, int groups, Ahead ahead) {
  for (int g = 0; g < groups; g++, w += 128, ahead.at += ahead.step) {
    __builtin_prefetch(ahead.at, 0, 2);  // into the second-level cache
    __builtin_prefetch(ahead.at + 64, 0, 2);
    const uint32_t* wu = reinterpret_cast<const uint32_t*>(w);
#if defined(__AVX512BF16__)
    __m512bh wv[panelVectors];
#pragma GCC unroll 8
    for (int j = 0; j < panelVectors; j++) wv[j] = (__m512bh)_mm512_loadu_si512(wu + j * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const __m512bh b =
          (__m512bh)_mm512_set1_epi32(static_cast<int>(*reinterpret_cast<const pair_t*>(x + r * stride + 2 * g)));
#pragma GCC unroll 8
      for (int j = 0; j < panelVectors; j++) t.sum[r][j] = (vf)_mm512_dpbf16_ps((__m512)t.sum[r][j], wv[j], b);
    }
#else
#pragma GCC unroll 8
    for (int j = 0; j < panelVectors; j++) {
      const vu both = *reinterpret_cast<const vuu*>(wu + j * lanes);
      const vf even = reinterpret_cast<vf>(both << 16), odd = reinterpret_cast<vf>(both & fillBits(0xffff0000u));
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        t.sum[r][j] += fill(widen(x[r * stride + 2 * g])) * even;
        t.sum[r][j] += fill(widen(x[r * stride + 2 * g + 1])) * odd;
      }
    }
#endif
  }
}

// Calls body<R>() for tiles of at most tileRows rows that cover `rows`.
template <int R, class Body>
INLINE void tailTile(int first, int left, Body&& body) {
  if constexpr (R > 0) {
    if (left == R) body.template operator()<R>(first);
    else tailTile<R - 1>(first, left, body);
  }
}
template <class Body>
INLINE void forTiles(int rows, Body&& body) {
  int r = 0;
  for (; r + tileRows <= rows; r += tileRows) body.template operator()<tileRows>(r);
  tailTile<tileRows - 1>(r, rows - r, body);
}

}  // namespace
