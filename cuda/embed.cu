// A step begins: its rows come from the host without a copy that the host would have to enqueue, so that a step is one
// graph. Then its inputs: for each row of the table the embedding of the class, of a special vector or of a token
// that an earlier step drew; that token is read here, on the device, so that no step waits for the host. One block a
// row.
#include "norm.cuh"
#include "ring.cuh"

namespace parvis::cuda {

namespace {

__global__ void takeStepKernel(const __grid_constant__ TakeStep t) {
  ptx::dependencyWait();
  ptx::releaseDependents();  // in this order in a step's first kernel: weights that are being loaded are there when
                             // others read them
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  PARVIS_SHARED(uint32_t, found, 2);
  const PartOfStep part = partOfStep(t.ring, found);
  constexpr int together = 8;  // reads of the host's memory that are under way at a time
  for (const TakeStep::Table& table : t.tables) {
    const volatile int32_t* const from = part.ints + table.from;
    for (int first = thread; first < table.count; first += together * threads) {
      int32_t v[together];
#pragma unroll
      for (int k = 0; k < together; k++) v[k] = from[min(first + k * threads, table.count - 1)];
#pragma unroll
      for (int k = 0; k < together; k++)
        if (first + k * threads < table.count) table.to[first + k * threads] = v[k];
    }
  }
  for (int seat = thread; seat < t.seats; seat += threads) t.flags[seat] = ptx::loadFresh(t.nonFinite + seat);
  if (thread == 0) *t.ring.counter = part.step + 1;
}

// Elements d and d + 1 of a special vector, as a table with an entry for each cell would hold them.
template <class E>
__device__ float2 rotatedPair(const Embedding& e, const Row& row, int d, float2 v) {
  const int pair = d % e.headSize / 2, all = e.pairs[0] + e.pairs[1] + e.pairs[2];
  if (pair >= all) return v;
  const int position = row.cell[pair < e.pairs[0] ? 0 : pair < e.pairs[0] + e.pairs[1] ? 1 : 2];
  if (position < 0) return make_float2(0, 0);
  const float c = e.cosine[position * all + pair], s = e.sine[position * all + pair];
  return roundPair<E>(make_float2(v.x * c - v.y * s, v.x * s + v.y * c));
}

template <class E>
__global__ void embedKernel(const __grid_constant__ Embedding e) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int row = static_cast<int>(blockIdx.x);
  const Row of = e.rows.at(row);
  const int32_t input = of.input, stream = of.stream, seat = stream / e.streamsEach;
  const void* table = input >= 0 ? e.tokenTable : input == classInput ? e.classTable : e.specialTable;
  const int32_t entry = input >= 0 ? ptx::loadFresh(e.tokens + static_cast<ptrdiff_t>(seat) * e.tokensEach + input)
                        : input != classInput               ? -2 - input
                        : stream - seat * e.streamsEach > 0 ? e.classes
                                                            : e.classIds[seat];
  // A token is -1 where its logits were not finite; the flag is set then, so any row will do.
  const E* from = static_cast<const E*>(table) + static_cast<ptrdiff_t>(entry < 0 ? 0 : entry) * e.dim;
  const int32_t position = of.position;
  const E* learned =
      position < 0 ? nullptr : static_cast<const E*>(e.positionTable) + static_cast<ptrdiff_t>(position) * e.dim;
  const bool rotated = e.headSize > 0 && input < classInput;
  const int stride = squaresStride(e.dim);
  float* to = e.x + static_cast<ptrdiff_t>(row) * e.xStride;
  // Whole warps, since they leave squares together.
  for (int first = 2 * static_cast<int>(threadIdx.x / 32 * 32); first < e.dim;
       first += 2 * static_cast<int>(blockDim.x)) {
    const int d = first + 2 * static_cast<int>(threadIdx.x % 32);
    const bool there = d < e.dim;
    float2 v = there ? loadPair(from + d) : make_float2(0, 0);
    if (there && rotated) v = rotatedPair<E>(e, of, d, v);
    if (there && learned) {
      const float2 p = loadPair(learned + d);
      v = make_float2(v.x + p.x, v.y + p.y);
    }
    if (there) storePair(to + d, v.x, v.y);
    if (e.next.weight)
      storeNormInput<1>(e.next, stride, row, d / 2, there, v.x, v.y,
                        there ? loadPair(e.next.weight + d) : make_float2(0, 0));
  }
}

}  // namespace

cudaError_t takeStep(const TakeStep& t, StepStream stream) {
  if (!valid(t.ring)) return cudaErrorInvalidValue;
  int most = t.seats;
  for (const TakeStep::Table& table : t.tables) {
    if (table.count < 0 || table.from < 0 || table.from + table.count > t.ring.stride - partEndInts)
      return cudaErrorInvalidValue;
    most = table.count > most ? table.count : most;
  }
  return launchInStep(takeStepKernel, 1u, most > 2048 ? 1024u : 256u, 0, stream, t);
}

cudaError_t embed(const Embedding& e, StepStream stream) {
  if (e.rows.count < 1 || e.streamsEach < 1 || e.dim < 2 || e.dim % 2 != 0 || e.threads < 1 || e.threads > 1024)
    return cudaErrorInvalidValue;
  if (e.headSize < 0 || (e.headSize > 0 && e.headSize % 4 != 0)) return cudaErrorInvalidValue;
  if (e.next.weight && (e.threads % 32 != 0 || !valid(e.next, e.dim))) return cudaErrorInvalidValue;
  return launchInStep(e.element == Element::float32 ? embedKernel<float> : embedKernel<uint16_t>,
                      static_cast<unsigned>(e.rows.count), static_cast<unsigned>(e.threads), 0, stream, e);
}

}  // namespace parvis::cuda
