// What becomes of a pair of a projection's outputs, and what project.cu and tile.cu agree on so that a row has the same
// bits in either.
#pragma once

#include "norm.cuh"
#include "rotate.cuh"

namespace parvis::cuda {

// Sums go over eight contiguous runs of the inputs, each from zero, then over the runs in order; the last runs may be
// shorter or empty. int8: a run is made of whole groups. The products of a group are added up as integers, then come to
// the run's sum times their scale.
constexpr int runs = 8;
// Units of a run: tiles of 16 inputs, or groups.
__host__ __device__ constexpr int runOf(int units) { return (units + runs - 1) / runs; }

constexpr int groupTiles = scaleInputs / 16;

constexpr int usualProcessors = 132;  // where a launch does not say how many a device has: it only costs time

// When a projection lets the next kernel start: before its own wait, after it, or behind its loop (project.cu).
// Attention that asks for keys early starts after the wait of the projection before it (platform.cuh).
enum class Release { early, waited, late };
inline Release releaseOf(const Projection& p, const StepStream& on) {
  if (on.tuning.lateRelease) return Release::late;
  return p.epilogue == Epilogue::append && on.tuning.earlyKeys ? Release::waited : Release::early;
}

// The two tiles of inputs that a lane's 16 bytes of integers are, as A operands.
__device__ inline void widenFragments(const uint4& v, uint32_t (&first)[4], uint32_t (&second)[4]) {
  widenIntegers(v.x, first[0], first[1]);
  widenIntegers(v.y, first[2], first[3]);
  widenIntegers(v.z, second[0], second[1]);
  widenIntegers(v.w, second[2], second[3]);
}

// sum += scale (a b) of a group. b: as ldmatrix brings it, two tiles of inputs each time.
__device__ inline void addGroup(float (&sum)[4], const uint32_t (&a)[groupTiles][4],
                                const uint32_t (&b)[groupTiles / 2][4], float2 scale) {
  float products[4] = {};
#pragma unroll
  for (int k = 0; k < groupTiles; k++) {
    const uint32_t of[2] = {b[k / 2][k % 2 * 2], b[k / 2][k % 2 * 2 + 1]};
    ptx::mma_m16n8k16_bf16(products, a[k], of);
  }
#pragma unroll
  for (int r = 0; r < 4; r++) sum[r] = fmaf(products[r], r < 2 ? scale.x : scale.y, sum[r]);
}

// silu(gate) up
__device__ inline float gated(float gate, float up) { return gate / (1.0f + ptx::exp2Fast(gate * -1.44269504f)) * up; }

// Does the epilogue store elements, of nothing but the pair's products?
__host__ __device__ constexpr bool activates(Epilogue e) { return e == Epilogue::swiglu || e == Epilogue::gelu; }

// x Phi(x)
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

// The products of a pair, activated, to where the next projection finds them.
template <class E>
__device__ inline void storeActivated(const Projection& p, Epilogue epilogue, int row, int pair, float low,
                                      float high) {
  E* const out = static_cast<E*>(p.out) + row * p.yStride;
  if (epilogue == Epilogue::swiglu) storeElement(out + pair, gated(low, high));
  else storePair(out + 2 * pair, gelu(low), gelu(high));
}

template <Epilogue e>
struct EpilogueIs {
  static constexpr Epilogue value = e;
};
// Calls `run` with the epilogue as a constant.
template <class Run>
cudaError_t withEpilogue(Epilogue epilogue, Run&& run) {
  switch (epilogue) {
    case Epilogue::store: return run(EpilogueIs<Epilogue::store>());
    case Epilogue::add: return run(EpilogueIs<Epilogue::add>());
    case Epilogue::swiglu: return run(EpilogueIs<Epilogue::swiglu>());
    case Epilogue::append: return run(EpilogueIs<Epilogue::append>());
    case Epilogue::gelu: return run(EpilogueIs<Epilogue::gelu>());
    default: return cudaErrorInvalidValue;
  }
}

// What finishing a pair reads beside its sums: asked for before the products, so that nobody waits for it after them.
// Angles are found by what the row's cell is, so they come second.
struct EpilogueInputs {
  float2 first;        // add: what is added to; append: cosine and sine
  float2 second;       // add: weights of the next norm
  int slot, position;  // append
};
__device__ inline EpilogueInputs loadEpilogueInputs(const Projection& p, int row, int pair) {
  EpilogueInputs b{};
  if (p.epilogue == Epilogue::add) {
    b.first = freshPair(p.y + row * p.yStride + 2 * pair);
    if (p.next.weight) b.second = loadPair(p.next.weight + 2 * pair);
  } else if (p.epilogue == Epilogue::append) {
    const Row r = p.rotation.rows.at(row);
    b.position = positionOf(p.rotation, placeOf(p.rotation, 2 * pair), r);
    b.slot = slotOf(p.rotation, r);
  }
  return b;
}
__device__ inline void addAngle(const Projection& p, int pair, EpilogueInputs& b) {
  if (p.epilogue == Epilogue::append) b.first = angleAt(p.rotation, placeOf(p.rotation, 2 * pair), b.position);
}

__device__ inline void addBias(const Projection& p, int pair, bool there, float& low, float& high) {
  if (!p.bias || !there) return;  // a gate and its up have none
  const float2 bias = loadPair(p.bias + 2 * pair);
  low += bias.x, high += bias.y;
}

// All lanes of a warp call it: the pairs of 16 outputs of a row are those of lanes four apart. `there`: the pair
// exists.
__device__ inline void finish(const Projection& p, int row, int pair, bool there, const EpilogueInputs& b, float low,
                              float high) {
  const ptrdiff_t at = row * p.yStride;
  addBias(p, pair, there, low, high);
  if (p.epilogue == Epilogue::add) {
    low = b.first.x + low, high = b.first.y + high;
    if (there) storePair(p.y + at + 2 * pair, low, high);
    if (p.next.weight)
      storeNormInput<4>(p.next, squaresStride(2 * p.weights.pairs), row, pair, there, low, high, b.second);
  } else if (!there) {
    return;
  } else if (p.epilogue == Epilogue::store) {
    storePair(p.y + at + 2 * pair, low, high);
  } else if (activates(p.epilogue)) {
    storeActivated<uint16_t>(p, p.epilogue, row, pair, low, high);
  } else {
    const QkvPlace place = placeOf(p.rotation, 2 * pair);
    storePlaced<uint16_t>(p.rotation, place, row, b.slot, turned(place, b.first, low, high));
  }
}

// The checks of all projections; pairs of y are written together.
inline bool valid(const Projection& p, int pairs, int inputs) {
  if (p.rows < 1 || pairs < 1 || inputs < 2 || inputs % 2 != 0 || p.xStride % 4 != 0 || p.xStride < inputs ||
      p.yStride % 2 != 0)
    return false;
  if (p.bias && p.epilogue == Epilogue::swiglu) return false;
  if (p.next.weight && (p.epilogue != Epilogue::add || !valid(p.next, 2 * pairs))) return false;
  return p.epilogue != Epilogue::append ||
         (valid(p.rotation) && p.rows == p.rotation.rows.count &&
          2 * pairs == (p.rotation.heads + 2 * p.rotation.kvHeads) * p.rotation.headSize);
}
inline bool valid(const Guides& g, const Projection& p) {
  return !g.table || (p.epilogue == Epilogue::store && g.predictions > 0);
}
// And of those in bfloat16, whose rows are read 16 bytes at a time.
inline bool possiblePacked(const Projection& p) {
  return p.weights.format != WeightFormat::float32 && valid(p, p.weights.pairs, p.weights.inputs) && p.elements &&
         p.xStride % 8 == 0 && p.xStride >= p.weights.inputTiles() * 16;
}

}  // namespace parvis::cuda
