// RMSNorm in two halves, for bfloat16 (kernels.cuh, NormInput): what whoever makes rows of x leaves, and how the
// projection behind the norm gets a row's 1 / rms out of it. Squares are summed in one order everywhere, whatever the
// number of rows and of blocks: 16 elements by whoever has them, as a tree over their pairs; those sums by a warp, four
// a lane at a time.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

__device__ inline float scaleOf(float sum, int dim, float eps) {
  return 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
}

// Elements `2 pair` and `2 pair + 1` of row `row` of x. All lanes of a warp call it: those `step` apart, eight of them,
// have the pairs of 16 elements in order. `there`: the pair exists; `weight`: of its elements.
template <int step>
__device__ inline void storeNormInput(const NormInput& to, int squaresStride, int row, int pair, bool there, float low,
                                      float high, float2 weight) {
  float square = there ? low * low + high * high : 0.0f;
#pragma unroll
  for (int bits = step; bits < 8 * step; bits *= 2) square += __shfl_xor_sync(fullWarp, square, bits);
  if (!there) return;
  storePair(to.elements + row * to.stride + 2 * pair, low * weight.x, high * weight.y);
  if (pair % 8 == 0) to.squares[static_cast<ptrdiff_t>(row) * squaresStride + pair / 8] = square;
}

__device__ inline float sumOfLanes(float sum) {
#pragma unroll
  for (int bits = 1; bits < 32; bits *= 2) sum += __shfl_xor_sync(fullWarp, sum, bits);
  return sum;
}

// A lane's shares of the squares of `rows` rows, `apart` rows from each other; sumOfLanes makes a share a row's sum.
// All loads of up to 2048 elements a row are under way together. Rows from `count` on are not read: the last one is,
// instead.
template <int rows>
__device__ inline void addShares(float (&shares)[rows], const float* squares, int stride, int first, int apart,
                                 int count) {
#pragma unroll 1
  for (int k = 4 * static_cast<int>(threadIdx.x % 32); k < stride; k += 128) {
    float4 v[rows];
#pragma unroll
    for (int i = 0; i < rows; i++)
      v[i] = ptx::loadFresh(reinterpret_cast<const float4*>(
          squares + static_cast<ptrdiff_t>(min(first + i * apart, count - 1)) * stride + k));
#pragma unroll
    for (int i = 0; i < rows; i++) shares[i] += (v[i].x + v[i].y) + (v[i].z + v[i].w);
  }
}
// 1 / rms of those rows: lane i has that of row i.
template <int rows>
__device__ inline float scaleOfShares(const float (&shares)[rows], int dim, float eps) {
  static_assert(rows <= 32);
  float mine = 0;
#pragma unroll
  for (int i = 0; i < rows; i++) {
    const float sum = sumOfLanes(shares[i]);
    if (static_cast<int>(threadIdx.x % 32) == i) mine = sum;
  }
  return scaleOf(mine, dim, eps);
}

inline bool valid(const NormInput& w, int dim) {
  return w.weight && w.elements && w.squares && w.stride >= dim && w.stride % 2 == 0;
}

}  // namespace parvis::cuda
