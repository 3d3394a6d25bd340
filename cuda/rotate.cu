// Rotation and append by themselves, for the paths with many rows: one block a row, a pair a thread.
#include "rotate.cuh"

namespace parvis::cuda {

namespace {

template <class E>
__global__ void rotateKernel(const __grid_constant__ Rotation t, const float* qkv, ptrdiff_t qkvStride) {
  const int r = static_cast<int>(blockIdx.x), outputs = (t.heads + 2 * t.kvHeads) * t.headSize;
  for (int o = 2 * static_cast<int>(threadIdx.x); o < outputs; o += 2 * static_cast<int>(blockDim.x)) {
    const float2 v = loadPair(qkv + r * qkvStride + o);
    placePair<E>(t, r, o, v.x, v.y);
  }
}

}  // namespace

cudaError_t rotate(const Rotation& r, const float* qkv, ptrdiff_t qkvStride, int threads, cudaStream_t stream) {
  if (!possible(r) || threads < 1 || threads > 1024) return cudaErrorInvalidValue;
  return launch(r.element == Element::float32 ? rotateKernel<float> : rotateKernel<uint16_t>, static_cast<unsigned>(r.streams * r.rows.count),
                static_cast<unsigned>(threads), 0, stream, r, qkv, qkvStride);
}

}  // namespace parvis::cuda
