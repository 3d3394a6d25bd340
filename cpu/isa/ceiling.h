// What the machine can do at most, for the bench to compare with: reading memory, and multiplying in cache.
#pragma once

#include "tile.h"

namespace {

// Reads everything once; the result only keeps the compiler from leaving it out.
uint32_t readAll(const uint8_t* p, size_t bytes) {
  vu sum[4] = {};
  for (size_t i = 0; i + 16 * lanes <= bytes; i += 16 * lanes) {
    for (int j = 0; j < 16 * lanes; j += 64) __builtin_prefetch(p + i + 4096 + j, 0, 2);
    for (int j = 0; j < 4; j++) sum[j] ^= *reinterpret_cast<const vuu*>(p + i + j * 4 * lanes);
  }
  const vu all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
  uint32_t result = 0;
  for (int i = 0; i < lanes; i++) result ^= all[i];
  return result;
}

// `rounds` times a tile of all rows over 64 groups that stay in the first-level cache.
template <class E>
float multiplyInCache(const void* x, const uint8_t* w, int rounds) {
  constexpr int V = tileVectors(tileRows);
  Tile<tileRows, V> t;
  clear(t);
  for (int i = 0; i < rounds; i++) accumulate<E>(t, static_cast<const E*>(x), 128, w, 0, 64, samePanel(w));
  float sum = 0;
  for (int r = 0; r < tileRows; r++)
    for (int j = 0; j < V; j++) sum += sumLanes(t.sum[r][j]);
  return sum;
}

// What it multiplies in one round.
template <class E>
constexpr int productsInCache = tileRows* tileVectors(tileRows) * lanes * 64 * stepOf<E>;

}  // namespace
