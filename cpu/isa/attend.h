// Attention of a few queries over a packed cache, by the same inner loop as the projections: keys are packed as
// a matrix [slots, headSize], values as [headSize, slots]. Each query has its own visible prefix, which is the
// whole of the block-wise mask; slots behind the longest prefix of a tile are not touched.
#pragma once

#include "../kernels.h"
#include "tile.h"

namespace {

using namespace parvis::cpu;

// scratch: scores [tileRows][slots] float, probabilities [tileRows][slots] elements, queries [tileRows][width]
template <class E>
struct AttentionScratch {
  float* scores;
  E* probabilities;
  E* queries;
  AttentionScratch(void* p, int slots) {
    uint8_t* at = static_cast<uint8_t*>(p);
    scores = reinterpret_cast<float*>(at);
    at += sizeof(float) * tileRows * slots;
    probabilities = reinterpret_cast<E*>(at);
    at += sizeof(float) * tileRows * slots;
    queries = reinterpret_cast<E*>(at);
  }
};

// W: of the cache. q: [R, qStride] elements; sees[R]; out receives 32-float panels of each row through `emit(r, panel,
// vector index, value)`.
template <class W, class E, int R, class Emit>
INLINE void attendTile(const E* q, ptrdiff_t qStride, int width, const CacheHead& cache, const int* sees, float scale,
                       const AttentionScratch<E>& s, Emit&& emit) {
  int longest = 0;
  for (int r = 0; r < R; r++) longest = sees[r] > longest ? sees[r] : longest;
  const int panels = (longest + 31) / 32, slots = panels * 32;
  constexpr int V = tileVectors(R);
  const int keyGroups = (width + stepOf<W> - 1) / stepOf<W>;
  for (int p = 0; p < panels; p++) {
    const uint8_t* keys = cache.keys + static_cast<size_t>(p) * keyGroups * groupBytes;
    for (int vector = 0; vector < panelVectors; vector += V) {
      Tile<R, V> t;
      clear(t);
      accumulate<W>(t, q, qStride, keys, vector, keyGroups, samePanel(keys));
      for (int r = 0; r < R; r++)
        for (int j = 0; j < V; j++)
          store(s.scores + r * cache.slots + p * 32 + (vector + j) * lanes, t.sum[r][j] * fill(scale));
    }
  }
  float inverse[R];
  for (int r = 0; r < R; r++) {
    float* score = s.scores + r * cache.slots;
    for (int i = sees[r]; i < slots; i++) score[i] = -__builtin_inff();
    vf most = fill(-__builtin_inff());
    for (int i = 0; i < slots; i += lanes) most = max(most, load(score + i));
    float top = most[0];
    for (int i = 1; i < lanes; i++) top = most[i] > top ? most[i] : top;
    vf sum{};
    E* probability = s.probabilities + r * cache.slots;
    for (int i = 0; i < slots; i += lanes) {
      const vf e = exponential(load(score + i) - fill(top));
      sum += e;
      storeElements(probability + i, e);
    }
    inverse[r] = 1.0f / sumLanes(sum);
  }
  const int valuePanels = (width + 31) / 32;
  const size_t valuePanelBytes = static_cast<size_t>(cache.slots / stepOf<W>) * groupBytes;
  for (int p = 0; p < valuePanels; p++) {
    const uint8_t* values = cache.values + p * valuePanelBytes;
    for (int vector = 0; vector < panelVectors; vector += V) {
      Tile<R, V> t;
      clear(t);
      accumulate<W>(t, s.probabilities, cache.slots, values, vector, slots / stepOf<W>, samePanel(values));
      for (int r = 0; r < R; r++)
        for (int j = 0; j < V; j++) emit(r, p, vector + j, t.sum[r][j] * fill(inverse[r]));
    }
  }
}

// Turns pairs (2p, 2p+1) along the axes that they belong to. The tables hold both numbers of a pair, (c, c) and (-s,
// s), so that a pair is x * c + swapped(x) * s. A row without a position along an axis has cosine and sine zero there.
template <class E>
INLINE void rotate(const float* from, E* to, int width, const AttentionRow& row, const Rotation& rotation) {
  const int stride = 2 * (rotation.pairs[0] + rotation.pairs[1] + rotation.pairs[2]);
  int d = 0;
  for (int axis = 0; axis < 3; axis++) {
    const int end = d + 2 * rotation.pairs[axis];
    if (row.cell[axis] < 0) {
      for (; d < end; d++) to[d] = 0;
      continue;
    }
    const ptrdiff_t at = static_cast<ptrdiff_t>(row.cell[axis]) * stride;
    const float *c = rotation.cosine + at, *s = rotation.sine + at;
    for (; d + lanes <= end; d += lanes) {
      const vf x = load(from + d);
      storeElements(to + d, x * load(c + d) + swapPairs(x) * load(s + d));
    }
    for (; d < end; d++) storeElement(to + d, from[d] * c[d] + from[d ^ 1] * s[d]);
  }
  for (; d < width; d++) storeElement(to + d, from[d]);
}

// Values of neighbouring outputs into the column of one slot: of bfloat16 two slots share 32 bits, `half` says which is
// this one.
INLINE void storeColumn(float* to, int, vf v) { store(to, v); }
INLINE void storeColumn(bf16* to, int half, vf v) {
  vuu* both = reinterpret_cast<vuu*>(to);
  const vu bits = __builtin_convertvector(roundVector(v), vu);
  *both = half ? (*both & fillBits(0xffffu)) | bits << 16 : (*both & fillBits(0xffff0000u)) | bits;
}

template <class W, class E>
void attend(const Attention& a) {
  const AttentionScratch<E> s(a.scratch, a.cache.slots);
  constexpr int step = stepOf<W>;
  const int width = a.headSize, keyGroups = (width + step - 1) / step;
  const size_t valuePanelBytes = static_cast<size_t>(a.cache.slots / step) * groupBytes;
  const int padded = (width + 31) / 32 * 32;
  for (int i = 0; i < a.count; i++) {  // append first: rows of one step see each other
    const int slot = a.rows[i].slot;
    if (slot < 0) continue;
    const float* from = a.qkv + i * a.qkvStride;
    W* rotated = reinterpret_cast<W*>(s.queries);
    rotate(from + a.k, rotated, width, a.rows[i], a.rotation);
    uint32_t* key =
        reinterpret_cast<uint32_t*>(a.cache.keys + static_cast<size_t>(slot / 32) * keyGroups * groupBytes) + slot % 32;
    for (int g = 0; g < keyGroups; g++)
      __builtin_memcpy(key + g * 32, rotated + g * step, 4);  // a float or a pair of bfloat16
    W* value = reinterpret_cast<W*>(a.cache.values + static_cast<size_t>(slot / step) * groupBytes);
    const auto place = [&](int d) { return value + d / 32 * (valuePanelBytes / sizeof(W)) + d % 32 * step; };
    int d = 0;
    for (; d + lanes <= width; d += lanes) storeColumn(place(d), slot % step, load(from + a.v + d));
    for (; d < width; d++) storeElement(place(d) + slot % step, from[a.v + d]);
  }
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(width));
  for (int h = 0; h < a.queryHeads; h++) {
    forTiles(
        a.count, [&]<int R>(int first) __attribute__((always_inline)) {
          int sees[R];
          for (int r = 0; r < R; r++) {
            sees[r] = a.rows[first + r].sees;
            E* q = s.queries + r * padded;
            rotate(a.qkv + (first + r) * a.qkvStride + a.q + h * width, q, width, a.rows[first + r], a.rotation);
            for (int d = width; d < padded; d++) q[d] = 0;
          }
          attendTile<W, E, R>(
              s.queries, padded, width, a.cache, sees, scale,
              s, [&](int r, int p, int j, vf v) __attribute__((always_inline)) {
                E* out = static_cast<E*>(a.out) + (first + r) * a.outStride + h * width;
                const int at = p * 32 + j * lanes;
                if (at + lanes <= width) storeElements(out + at, v);
                else
                  for (int i = 0; i < lanes && at + i < width; i++) storeElement(out + at + i, v[i]);
              });
        });
  }
}

// The tokenizer's attention: every query sees every key; out [queries, width] float.
template <class E>
void attendPlain(const void* queries, ptrdiff_t qStride, int count, int width, const CacheHead& cache, int keys,
                 float scale, float* out, ptrdiff_t outStride, void* scratch) {
  const AttentionScratch<E> s(scratch, cache.slots);
  const E* q = static_cast<const E*>(queries);
  forTiles(
      count, [&]<int R>(int first) __attribute__((always_inline)) {
        int sees[R];
        for (int r = 0; r < R; r++) sees[r] = keys;
        attendTile<E, E, R>(
            q + first * qStride, qStride, width, cache, sees, scale,
            s, [&](int r, int p, int j, vf v) __attribute__((always_inline)) {
              const int at = p * 32 + j * lanes;
              for (int i = 0; i < lanes && at + i < width; i++) out[(first + r) * outStride + at + i] = v[i];
            });
      });
}

}  // namespace
