// Where a pair of QKV outputs goes: turned by the row's cell into the queries or the key cache, or as it is into the value
// cache. All projections share it.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

// Outputs `o` and `o + 1` (o even) of every row: which head's queries, keys or values, and which elements of it.
struct Place {
  enum class Part { queries, keys, values } part;
  int head, d;
};
__device__ inline Place placeOf(const Rotation& t, int o) {
  const int head = o / t.headSize, d = o % t.headSize;
  if (head < t.heads) return {Place::Part::queries, head, d};
  if (head < t.heads + t.kvHeads) return {Place::Part::keys, head - t.heads, d};
  return {Place::Part::values, head - t.heads - t.kvHeads, d};
}

// Pairs (2p, 2p+1): the first half of a head's pairs turn by the row, the others by the column of the cell. Without a cell
// cosine and sine are zero, and so are query and key. Values are as they were.
__device__ inline int positionOf(const Rotation& t, const Place& place, const Row& row) {
  return place.part == Place::Part::values ? -1 : place.d / 2 < t.headSize / 4 ? row.row : row.column;
}
__device__ inline float2 angleAt(const Rotation& t, const Place& place, int position) {
  const int quarter = t.headSize / 4, at = position * quarter + place.d / 2 % quarter;
  return position < 0 ? make_float2(0, 0) : make_float2(t.cosine[at], t.sine[at]);
}
__device__ inline float2 angleOf(const Rotation& t, const Place& place, const Row& row) { return angleAt(t, place, positionOf(t, place, row)); }
__device__ inline float2 turned(const Place& place, float2 angle, float a, float b) {
  return place.part == Place::Part::values ? make_float2(a, b) : make_float2(a * angle.x - b * angle.y, a * angle.y + b * angle.x);
}

// Row `r` of all streams together, of stream `stream`; slot -1: it is not appended.
__device__ inline int slotOf(const Row& row) {
  const int slot = row.slot, append = row.append;  // both on their way
  return append ? slot : -1;
}
template <class E>
__device__ inline void storePlaced(const Rotation& t, const Place& place, int r, int stream, int slot, float2 v) {
  const int width = paddedHead(t.headSize);
  if (place.part == Place::Part::queries) return storePair(static_cast<E*>(t.queries) + (static_cast<ptrdiff_t>(r) * t.heads + place.head) * width + place.d, v.x, v.y);
  if (slot < 0) return;
  E* to = static_cast<E*>(place.part == Place::Part::keys ? t.cache.keys : t.cache.values);
  storePair(to + ((static_cast<ptrdiff_t>(stream) * t.kvHeads + place.head) * t.cache.slots + slot) * width + place.d, v.x, v.y);
}

template <class E>
__device__ inline void placePair(const Rotation& t, int r, int o, float a, float b) {
  const int stream = r / t.rows.count;
  const Row& row = t.rows.at(r - stream * t.rows.count);
  const Place place = placeOf(t, o);
  storePlaced<E>(t, place, r, stream, slotOf(row), turned(place, angleOf(t, place, row), a, b));
}

inline bool possible(const Rotation& r) {
  return r.rows.count > 0 && r.streams > 0 && r.kvHeads > 0 && r.heads > 0 && r.heads % r.kvHeads == 0 && r.headSize > 0 && r.headSize % 4 == 0 && r.cache.slots > 0;
}

}  // namespace parvis::cuda
