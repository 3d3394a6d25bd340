// RMSNorm of a row: the kernel of its own and the projections that recompute the norm in every block share it, so that a
// row's numbers are the same bits on either path and in any batch. Squares are summed in the order in which a skinny
// projection has them: by eight runs of the inputs, in each by four lanes that hold what they will multiply (elements 2t,
// 2t+1, 2t+8, 2t+9 of every 16), then over the four lanes, then over the runs in order. A warp by itself has a run in each
// four of its lanes.
#pragma once

#include "elements.cuh"

namespace parvis::cuda {

constexpr int runs = 8;  // of the inputs, contiguous, the last ones shorter or empty: also the order of a product's sums
__host__ __device__ constexpr int runOf(int inputTiles) { return (inputTiles + runs - 1) / runs; }

// A lane's four elements of 16 inputs.
__device__ inline float addSquares(float sum, float2 low, float2 high) { return sum + ((low.x * low.x + low.y * low.y) + (high.x * high.x + high.y * high.y)); }
// Over four neighbouring lanes.
__device__ inline float sumOfFour(float sum) {
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}
__device__ inline float scaleOf(float sum, int dim, float eps) { return 1.0f / sqrtf(sum / static_cast<float>(dim) + eps); }

// 1 / sqrt(mean of squares + eps); all lanes of the warp call it and get it. dim is even.
__device__ inline float rowScale(const float* x, int dim, float eps) {
  const int lane = static_cast<int>(threadIdx.x % 32), tiles = (dim + 15) / 16, run = runOf(tiles), begin = lane / 4 * run, end = min(begin + run, tiles);
  float sum = 0;
#pragma unroll 8  // loads in flight
  for (int tile = begin; tile < end; tile++) {
    const int k = 16 * tile + lane % 4 * 2;
    sum = addSquares(sum, k < dim ? loadPair(x + k) : make_float2(0, 0), k + 8 < dim ? loadPair(x + k + 8) : make_float2(0, 0));
  }
  sum = sumOfFour(sum);
  float total = 0;
#pragma unroll
  for (int r = 0; r < runs; r++) total += __shfl_sync(0xffffffffu, sum, 4 * r);
  return scaleOf(total, dim, eps);
}

// Rounded to the model's type, then times the weight.
template <class E>
__device__ inline float2 normedPair(const E* type, float2 x, float2 weight, float scale) {
  const float2 v = roundedPair(type, x.x * scale, x.y * scale);
  return make_float2(v.x * weight.x, v.y * weight.y);
}

}  // namespace parvis::cuda
