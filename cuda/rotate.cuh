// Where a pair of QKV outputs goes: turned by the row's cell into the queries or the key cache, or as it is into the value
// cache. The kernel of its own and the fused projection share it.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

// Outputs `o` and `o + 1` (o even) of row `r` of the step. Pairs (2p, 2p+1): the first half of a head's pairs turn by the
// row, the others by the column of the cell. Without a cell cosine and sine are zero, and so are query and key.
template <class E>
__device__ inline void placePair(const Rotation& t, int r, int o, float a, float b) {
  const int stream = r / t.rows.count, width = paddedHead(t.headSize);
  const Row& row = t.rows.at(r % t.rows.count);
  int head = o / t.headSize;
  const int d = o % t.headSize;
  E* to;
  if (head < t.heads) {
    to = static_cast<E*>(t.queries) + (static_cast<ptrdiff_t>(r) * t.heads + head) * width;
  } else {
    if (!row.append) return;
    head -= t.heads;
    const bool key = head < t.kvHeads;
    if (!key) head -= t.kvHeads;
    to = static_cast<E*>(key ? t.cache.keys : t.cache.values) + ((static_cast<ptrdiff_t>(stream) * t.kvHeads + head) * t.cache.slots + row.slot) * width;
    if (!key) return storePair(to + d, a, b);
  }
  const int quarter = t.headSize / 4, p = d / 2;
  const int position = p < quarter ? row.row : row.column;
  float c = 0, s = 0;
  if (position >= 0) {
    c = t.cosine[position * quarter + p % quarter];
    s = t.sine[position * quarter + p % quarter];
  }
  storePair(to + d, a * c - b * s, a * s + b * c);
}

inline bool possible(const Rotation& r) {
  return r.rows.count > 0 && r.streams > 0 && r.kvHeads > 0 && r.heads > 0 && r.heads % r.kvHeads == 0 && r.headSize > 0 && r.headSize % 4 == 0 && r.cache.slots > 0;
}

}  // namespace parvis::cuda
