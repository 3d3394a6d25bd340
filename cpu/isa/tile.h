// The inner loop of everything: `R` rows of activations against `V` vectors of outputs of a packed panel. The weights
// of a group are read once and used for all rows of the tile; sums run over the inputs in order, so that a sum has the
// same bits in a tile of any size.
#pragma once

#include "../kernels.h"
#include "simd.h"

namespace {

using parvis::scaleInputs;
using parvis::cpu::groupBytes;
using parvis::cpu::panelOutputs;

// Types of packed numbers: float, bf16 and int8 (whose scales are not applied here).
using int8 = int8_t;
// Inputs of a group of 128 bytes.
template <class W>
constexpr int stepOf = static_cast<int>(4 / sizeof(W));

template <int R, int V>
struct Tile {
  vf sum[R][V];
};

template <int R, int V>
INLINE void clear(Tile<R, V>& t) {
  for (int r = 0; r < R; r++)
    for (int j = 0; j < V; j++) t.sum[r][j] = vf{};
}

// What to fetch while a group is multiplied: `step` bytes further with each group.
struct Ahead {
  const uint8_t* at;
  ptrdiff_t step;
};
constexpr int prefetchBytes = 4096;
// The group that is multiplied so many bytes later comes from the second-level cache into the first.
constexpr int nearBytes = 512;
INLINE Ahead samePanel(const uint8_t* w) { return {w + prefetchBytes, groupBytes}; }

template <int R, int V>
INLINE void addProducts(Tile<R, V>& t, const float* x, ptrdiff_t stride, const vf (&w)[V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const vf b = fill(x[r * stride]);
#pragma GCC unroll 8
    for (int j = 0; j < V; j++) t.sum[r][j] += b * w[j];
  }
}

// A group of weights times the inputs at x of each row. w: of the group's first vector that is multiplied.
template <int R, int V>
INLINE void multiplyGroup(Tile<R, V>& t, const float* x, ptrdiff_t stride, const float* w) {
  vf wv[V];
#pragma GCC unroll 8
  for (int j = 0; j < V; j++) wv[j] = load(w + j * lanes);
  addProducts(t, x, stride, wv);
}

template <int R, int V>
INLINE void multiplyGroup(Tile<R, V>& t, const float* x, ptrdiff_t stride, const bf16* w) {
  const uint32_t* wu = reinterpret_cast<const uint32_t*>(w);
  vf wv[V];
#pragma GCC unroll 8
  for (int j = 0; j < V; j++) wv[j] = lowHalf(loadBits(wu + j * lanes));
  addProducts(t, x, stride, wv);
  // Loaded again: with both halves at hand the compiler runs out of registers.
  asm volatile("" ::: "memory");
#pragma GCC unroll 8
  for (int j = 0; j < V; j++) wv[j] = highHalf(loadBits(wu + j * lanes));
  addProducts(t, x + 1, stride, wv);
}

template <int R, int V>
INLINE void multiplyGroup(Tile<R, V>& t, const float* x, ptrdiff_t stride, const int8* w) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; k++) {
    vf wv[V];
    loadBytes(w + k * panelOutputs, wv);
    addProducts(t, x + k, stride, wv);
  }
}

#if defined(PARVIS_BF16_PRODUCTS)
template <int R, int V>
INLINE void addProducts(Tile<R, V>& t, const bf16* x, ptrdiff_t stride, const vpairs (&w)[V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const vpairs b = fillPair(x + r * stride);
#pragma GCC unroll 8
    for (int j = 0; j < V; j++) t.sum[r][j] = addPairs(t.sum[r][j], w[j], b);
  }
}

template <int R, int V>
INLINE void multiplyGroup(Tile<R, V>& t, const bf16* x, ptrdiff_t stride, const bf16* w) {
  vpairs wv[V];
#pragma GCC unroll 8
  for (int j = 0; j < V; j++) wv[j] = loadPairs(w + 2 * j * lanes);
  addProducts(t, x, stride, wv);
}

template <int R, int V>
INLINE void multiplyGroup(Tile<R, V>& t, const bf16* x, ptrdiff_t stride, const int8* w) {
#pragma GCC unroll 2
  for (int k = 0; k < 4; k += 2) {
    vpairs wv[V];
    constexpr int together = V < 4 ? V : 4;
#pragma GCC unroll 2
    for (int j = 0; j < V; j += together) {
      const int8* at = w + k * panelOutputs + j * lanes;
      vf even[together], odd[together];
      loadBytes(at, even);
      loadBytes(at + panelOutputs, odd);
#pragma GCC unroll 4
      for (int i = 0; i < together; i++) wv[j + i] = pairs(even[i], odd[i]);
    }
    addProducts(t, x + k, stride, wv);
  }
}
#endif

// x: R rows, `stride` elements apart; w: `groups` groups, of which V vectors from `vector` on are multiplied.
template <class W, int R, int V, class E>
INLINE void accumulate(Tile<R, V>& t, const E* x, ptrdiff_t stride, const uint8_t* w, int vector, int groups,
                       Ahead ahead) {
  w += static_cast<ptrdiff_t>(vector) * lanes * (sizeof(W) == 1 ? 1 : 4);
  for (int g = 0; g < groups; g++, w += groupBytes, x += stepOf<W>, ahead.at += ahead.step) {
    __builtin_prefetch(ahead.at, 0, 2);  // into the second-level cache
    __builtin_prefetch(ahead.at + 64, 0, 2);
    __builtin_prefetch(w + nearBytes, 0, 3);
    __builtin_prefetch(w + nearBytes + 64, 0, 3);
    multiplyGroup(t, x, stride, reinterpret_cast<const W*>(w));
  }
}

// Calls body<R>(first) for tiles of at most tileRows rows that cover `rows`: as even as they can be, or of few rows
// full ones first, where a small tile at the end costs less than two half full ones.
template <int R, class Body>
INLINE void tileOf(int count, int first, Body&& body) {
  if constexpr (R > 0) {
    if (count == R) body.template operator()<R>(first);
    else tileOf<R - 1>(count, first, body);
  }
}
template <class Body>
INLINE void forTiles(int rows, Body&& body) {
  const bool full = fullTilesFirst && rows > tileRows + 1 && rows <= 2 * tileRows;
  int tiles = (rows + tileRows - 1) / tileRows;
  for (int first = 0; tiles > 0; tiles--) {
    const int left = rows - first, count = full ? (left < tileRows ? left : tileRows) : (left + tiles - 1) / tiles;
    tileOf<tileRows>(count, first, body);
    first += count;
  }
}

// ---- rows times a panel -------------------------------------------------------------------------------------

// Bytes of a panel of so many inputs. The scales of int8 stand in front of the inputs that share them.
template <class W>
INLINE ptrdiff_t packedBytes(int inputs) {
  if constexpr (sizeof(W) == 1)
    return parvis::scaleGroups(inputs) * ((scaleInputs + static_cast<ptrdiff_t>(sizeof(float))) * panelOutputs);
  else return static_cast<ptrdiff_t>((inputs + stepOf<W> - 1) / stepOf<W>) * groupBytes;
}
// Rows whose sums are kept at a time.
constexpr int chunkRows = 64;
// Inputs that all rows are multiplied with before the next ones: few enough that their weights stay in the first-level
// cache, or in the second one where no more than that is asked of it.
template <class W>
constexpr int blockInputs = sizeof(W) == 2 ? 128 : 512;
constexpr int widenedInputs = 128;

// Rows of x times some inputs of a panel.
template <class E>
struct Block {
  const E* x;
  ptrdiff_t stride;
  int rows, inputs;
  float* sums;  // [rows][32]
  bool more;    // added to what is there
  const uint8_t* packed;
  const uint8_t* next;  // what to fetch meanwhile
  ptrdiff_t nextBytes;
};

// W: of the packed weights; P: what they are multiplied as, at w.
template <class W, class P, int R, int V, class E>
INLINE void multiplyTile(const Block<E>& b, int first, const uint8_t* w, int vector, Ahead ahead) {
  float* s = b.sums + first * panelOutputs + vector * lanes;
  const E* x = b.x + first * b.stride;
  Tile<R, V> sums;
  for (int r = 0; r < R; r++)
    for (int j = 0; j < V; j++) sums.sum[r][j] = b.more ? load(s + r * panelOutputs + j * lanes) : vf{};
  if constexpr (sizeof(W) == 1) {
    const uint8_t* scales = b.packed;
    for (int at = 0; at < b.inputs; at += scaleInputs) {
      const int left = b.inputs - at < scaleInputs ? b.inputs - at : scaleInputs;
      Tile<R, V> t;
      clear(t);
      accumulate<P>(t, x + at, b.stride, w, vector, (left + stepOf<P> - 1) / stepOf<P>, ahead);
      ahead.at += ahead.step * (scaleInputs / stepOf<P>);
      for (int j = 0; j < V; j++) {
        const vf scale = load(reinterpret_cast<const float*>(scales) + (vector + j) * lanes);
        for (int r = 0; r < R; r++) sums.sum[r][j] += scale * t.sum[r][j];
      }
      scales += packedBytes<W>(scaleInputs);
      w += sizeof(P) == 1 ? packedBytes<W>(scaleInputs) : scaleInputs / stepOf<P> * groupBytes;
    }
  } else {
    accumulate<P>(sums, x, b.stride, w, vector, (b.inputs + stepOf<P> - 1) / stepOf<P>, ahead);
  }
  for (int r = 0; r < R; r++)
    for (int j = 0; j < V; j++) store(s + r * panelOutputs + j * lanes, sums.sum[r][j]);
}

template <class W, class P, class E>
NOINLINE void multiplyBlock(const Block<E>& b, const uint8_t* w) {
  const int tiles = (b.rows + tileRows - 1) / tileRows, groups = (b.inputs + stepOf<P> - 1) / stepOf<P>;
  int tile = 0;
  forTiles(
      b.rows, [&]<int R>(int first) __attribute__((always_inline)) {
        constexpr int V = tileVectors(R), parts = panelVectors / V;
        const ptrdiff_t share = b.nextBytes / (tiles * parts);
        for (int part = 0; part < parts; part++)
          multiplyTile<W, P, R, V>(b, first, w, part * V, {b.next + share * (tile * parts + part), share / groups});
        tile++;
      });
}

// Packed numbers become those that many rows are multiplied with: once for all of them.
template <class E>
NOINLINE void widenBlock(const bf16* w, int inputs, E* out) {
  const uint32_t* wu = reinterpret_cast<const uint32_t*>(w);
  for (int g = 0; g < (inputs + 1) / 2; g++)
    for (int j = 0; j < panelVectors; j++) {
      const vu both = loadBits(wu + g * panelOutputs + j * lanes);
      store(out + 2 * g * panelOutputs + j * lanes, lowHalf(both));
      store(out + (2 * g + 1) * panelOutputs + j * lanes, highHalf(both));
    }
}

template <class E>
NOINLINE void widenBlock(const int8* w, int inputs, E* out) {
  for (int at = 0; at < inputs; at += scaleInputs, w += packedBytes<int8>(scaleInputs)) {
    const int8* from = w + panelOutputs * sizeof(float);
#if defined(PARVIS_BF16_PRODUCTS)
    for (int k = 0; k < scaleInputs; k += 2, from += 2 * panelOutputs, out += 2 * panelOutputs)
      for (int j = 0; j < panelOutputs; j += lanes)
        storePairs(out + 2 * j, pairs(loadBytes(from + j), loadBytes(from + panelOutputs + j)));
#else
    for (int i = 0; i < scaleInputs * panelOutputs; i += lanes, out += lanes) store(out, loadBytes(from + i));
#endif
  }
}

// sums [rows][32] = rows of x times a packed panel of W, added to what is there where `more`. At most chunkRows rows.
template <class W, class E>
void multiplyPanel(const E* x, ptrdiff_t stride, int rows, const uint8_t* w, int inputs, float* sums, bool more) {
  constexpr bool widens = sizeof(W) < sizeof(E);
  const bool widened = widens && rows >= widenRows(sizeof(W));
  alignas(64) E wide[widens ? widenedInputs * panelOutputs : 1];
  const int each = widened ? widenedInputs : blockInputs<W>;
  for (int begin = 0; begin < inputs; begin += each) {
    const int count = inputs - begin < each ? inputs - begin : each;
    const ptrdiff_t bytes = packedBytes<W>(count);
    const uint8_t* next = w + (bytes > prefetchBytes ? bytes : static_cast<ptrdiff_t>(prefetchBytes));
    const Block<E> block{x + begin, stride, rows, count, sums, more || begin > 0, w, next, bytes};
    if constexpr (widens) {
      if (widened) {
        widenBlock(reinterpret_cast<const W*>(w), count, wide);
        multiplyBlock<W, E>(block, reinterpret_cast<const uint8_t*>(wide));
      }
    }
    if (!widened) multiplyBlock<W, W>(block, sizeof(W) == 1 ? w + panelOutputs * sizeof(float) : w);
    w += bytes;
  }
}

// Calls body(first, count) for the rows, at most chunkRows at a time.
template <class Body>
INLINE void forChunks(int rows, Body&& body) {
  const int chunks = (rows + chunkRows - 1) / chunkRows;
  for (int i = 0, first = 0; i < chunks; i++) {
    const int count = (rows - first + chunks - i - 1) / (chunks - i);
    body(first, count);
    first += count;
  }
}

}  // namespace
