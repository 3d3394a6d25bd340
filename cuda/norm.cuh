// RMSNorm of a row by one warp: the kernel of its own and the projections that recompute the norm in every block share
// it, so that a row's numbers are the same bits on either path and in any batch.
#pragma once

#include "elements.cuh"

namespace parvis::cuda {

// 1 / sqrt(mean of squares + eps); all lanes of the warp call it and get it. dim is even.
__device__ inline float rowScale(const float* x, int dim, float eps) {
  float sum = 0;
#pragma unroll 8  // loads in flight: a block that norms before it multiplies waits for them
  for (int d = 2 * static_cast<int>(threadIdx.x % 32); d < dim; d += 64) {
    const float2 v = loadPair(x + d);
    sum += v.x * v.x + v.y * v.y;
  }
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
  return 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
}

// Rounded to the model's type, then times the weight.
template <class E>
__device__ inline float2 normedPair(const E* type, float2 x, float2 weight, float scale) {
  const float2 v = roundedPair(type, x.x * scale, x.y * scale);
  return make_float2(v.x * weight.x, v.y * weight.y);
}

}  // namespace parvis::cuda
