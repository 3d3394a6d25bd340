// RMSNorm by itself, for the paths with many rows and before the output head. A warp a row.
#include "kernels.cuh"
#include "norm.cuh"

namespace parvis::cuda {

namespace {

template <class E>
__global__ void normKernel(const __grid_constant__ Norm n) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int row = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  if (row >= n.rows) return;
  const float* x = n.x + static_cast<ptrdiff_t>(n.from ? n.from[row] : row) * n.xStride;
  E* out = static_cast<E*>(n.out) + static_cast<ptrdiff_t>(row) * n.outStride;
  const float scale = rowScale(x, n.dim, n.eps);
#pragma unroll 4
  for (int d = 2 * static_cast<int>(threadIdx.x % 32); d < n.dim; d += 64) {
    const float2 v = normedPair(out, loadPair(x + d), loadPair(n.weight + d), scale);
    storePair(out + d, v.x, v.y);
  }
}

}  // namespace

cudaError_t norm(const Norm& n, StepStream stream) {
  if (n.rows < 1 || n.dim < 2 || n.dim % 2 != 0 || n.threads < 32 || n.threads > 1024 || n.threads % 32 != 0) return cudaErrorInvalidValue;
  const int together = n.threads / 32;
  return launchInStep(n.element == Element::float32 ? normKernel<float> : normKernel<uint16_t>, static_cast<unsigned>((n.rows + together - 1) / together),
                static_cast<unsigned>(n.threads), 0, stream, n);
}

}  // namespace parvis::cuda
