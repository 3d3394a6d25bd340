// Where a pair of QKV outputs goes: turned by the row's cell into the queries or the key cache, or as it is into the
// value cache. All projections share it.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

// Outputs `o` and `o + 1` (o even) of every row: which head's queries, keys or values, and which elements of it.
struct QkvPlace {
  enum class Part { queries, keys, values } part;
  int head, d;
};
__device__ inline QkvPlace placeOf(const Rotation& t, int o) {
  const int head = o / t.headSize, d = o % t.headSize;
  if (head < t.heads) return {QkvPlace::Part::queries, head, d};
  if (head < t.heads + t.kvHeads) return {QkvPlace::Part::keys, head - t.heads, d};
  return {QkvPlace::Part::values, head - t.heads - t.kvHeads, d};
}

// Where along its axis a pair (2p, 2p+1) of a row is turned. Along an axis without a position cosine and sine are zero,
// and so are query and key there. Values, and pairs beyond those of the axes, are as they were.
constexpr int notTurned = -2;
__device__ inline int positionOf(const Rotation& t, const QkvPlace& place, const Row& row) {
  const int pair = place.d / 2;
  if (place.part == QkvPlace::Part::values || pair >= t.pairs[0] + t.pairs[1] + t.pairs[2]) return notTurned;
  return pair < t.pairs[0] ? row.cell[0] : pair < t.pairs[0] + t.pairs[1] ? row.cell[1] : row.cell[2];
}
__device__ inline float2 angleAt(const Rotation& t, const QkvPlace& place, int position) {
  if (position < 0) return make_float2(position == notTurned ? 1.0f : 0.0f, 0);
  const int at = position * (t.pairs[0] + t.pairs[1] + t.pairs[2]) + place.d / 2;
  return make_float2(t.cosine[at], t.sine[at]);
}
__device__ inline float2 angleOf(const Rotation& t, const QkvPlace& place, const Row& row) {
  return angleAt(t, place, positionOf(t, place, row));
}
__device__ inline float2 turned(const QkvPlace& place, float2 angle, float a, float b) {
  return place.part == QkvPlace::Part::values ? make_float2(a, b)
                                              : make_float2(a * angle.x - b * angle.y, a * angle.y + b * angle.x);
}

// Where the key/value head 0 of a row's stream has the row's slot; -1: it is not kept.
__device__ inline int slotOf(const Rotation& t, const Row& row) {
  const int slot = row.slot, stream = row.stream;  // both on their way
  return slot < 0 ? -1 : stream * t.kvHeads * t.cache.slots + slot;
}
template <class E>
__device__ inline void storePlaced(const Rotation& t, const QkvPlace& place, int r, int slot, float2 v) {
  const int width = paddedHead(t.headSize);
  if (place.part == QkvPlace::Part::queries)
    return storePair(static_cast<E*>(t.queries) + (static_cast<ptrdiff_t>(r) * t.heads + place.head) * width + place.d,
                     v.x, v.y);
  if (slot < 0) return;
  E* to = static_cast<E*>(place.part == QkvPlace::Part::keys ? t.cache.keys : t.cache.values);
  storePair(to + static_cast<ptrdiff_t>(slot + place.head * t.cache.slots) * width + place.d, v.x, v.y);
}

template <class E>
__device__ inline void placePair(const Rotation& t, int r, int o, float a, float b) {
  const Row row = t.rows.at(r);
  const QkvPlace place = placeOf(t, o);
  storePlaced<E>(t, place, r, slotOf(t, row), turned(place, angleOf(t, place, row), a, b));
}

inline bool valid(const Rotation& r) {
  const int turned = r.pairs[0] + r.pairs[1] + r.pairs[2];
  return r.rows.count > 0 && r.pairs[0] >= 0 && r.pairs[1] >= 0 && r.pairs[2] >= 0 && 2 * turned <= r.headSize &&
         r.kvHeads >= 0 && r.heads >= 0 && r.kvHeads + r.heads > 0 && (r.kvHeads == 0 || r.heads % r.kvHeads == 0) &&
         r.headSize > 0 && r.headSize % 4 == 0 && r.cache.slots > 0;
}

}  // namespace parvis::cuda
