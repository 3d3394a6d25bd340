// A step begins: its rows come from the host without a copy that the host would have to enqueue, so that a step is one
// graph. Then its inputs: for each row of the table the embedding of the class, of a transition token or of a token that an
// earlier step drew; that token is read here, on the device, so that no step waits for the host. One block a row.
#include "norm.cuh"

namespace parvis::cuda {

namespace {

__global__ void takeRowsKernel(const __grid_constant__ TakeRows t) {
  ptx::dependencyWait();
  ptx::releaseDependents();  // in this order in a step's first kernel: weights that are being loaded are there when others read them
  PARVIS_SHARED(uint32_t, step, 1);
  if (threadIdx.x == 0) *step = *t.counter;
  __syncthreads();
  const volatile int32_t* from = reinterpret_cast<const int32_t*>(t.ring + static_cast<ptrdiff_t>(*step % static_cast<uint32_t>(t.depth)) * t.stride);
  int32_t* to = reinterpret_cast<int32_t*>(t.rows);
  for (int i = static_cast<int>(threadIdx.x); i < t.count * static_cast<int>(sizeof(Row) / 4); i += static_cast<int>(blockDim.x)) to[i] = from[i];
  if (threadIdx.x == 0) {
    *t.counter = *step + 1;
    *t.flag = *t.nonFinite;
  }
}

template <class E>
__global__ void embedKernel(const __grid_constant__ Embedding e) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int i = static_cast<int>(blockIdx.x), stream = static_cast<int>(blockIdx.y), sequence = stream % e.sequences;
  const int32_t input = e.rows.at(i).input;
  const void* table = input >= 0 ? e.tokenTable : input == classInput ? e.classTable : e.transitionTable;
  const int32_t entry = input >= 0             ? e.tokens[static_cast<ptrdiff_t>(sequence) * e.tokensEach + input]
                        : input != classInput  ? -2 - input
                        : stream >= e.sequences ? e.classes
                                                : e.classIds[sequence];
  // A token is -1 where its logits were not finite; the flag is set then, so any row will do.
  const E* from = static_cast<const E*>(table) + static_cast<ptrdiff_t>(entry < 0 ? 0 : entry) * e.dim;
  const int row = stream * e.rows.count + i, stride = squaresStride(e.dim);
  float* to = e.x + static_cast<ptrdiff_t>(row) * e.xStride;
  // Whole warps, since they leave squares together.
  for (int first = 2 * static_cast<int>(threadIdx.x / 32 * 32); first < e.dim; first += 2 * static_cast<int>(blockDim.x)) {
    const int d = first + 2 * static_cast<int>(threadIdx.x % 32);
    const bool there = d < e.dim;
    const float2 v = there ? loadPair(from + d) : make_float2(0, 0);
    if (there) storePair(to + d, v.x, v.y);
    if (e.next.weight) leave<1>(e.next, stride, row, d / 2, there, v.x, v.y, there ? loadPair(e.next.weight + d) : make_float2(0, 0));
  }
}

}  // namespace

cudaError_t takeRows(const TakeRows& t, StepStream stream) {
  if (t.depth < 1 || t.count < 1 || t.count > t.stride) return cudaErrorInvalidValue;
  return launchInStep(takeRowsKernel, 1u, 256u, 0, stream, t);
}

cudaError_t embed(const Embedding& e, StepStream stream) {
  if (e.rows.count < 1 || e.streams < 1 || e.streams > 65535 || e.dim < 2 || e.dim % 2 != 0 || e.threads < 1 || e.threads > 1024) return cudaErrorInvalidValue;
  if (e.next.weight && (e.threads % 32 != 0 || !possible(e.next, e.dim))) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(e.rows.count), static_cast<unsigned>(e.streams));
  return launchInStep(e.element == Element::float32 ? embedKernel<float> : embedKernel<uint16_t>, grid, static_cast<unsigned>(e.threads), 0, stream, e);
}

}  // namespace parvis::cuda
