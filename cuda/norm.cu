// Norms by themselves: whole RMSNorm in float32, for checks; LayerNorm; and what other kernels leave of rows for the
// RMSNorm that comes next, of rows that are there already: those that predict, where not all do. A warp a row.
#include "norm.cuh"

namespace parvis::cuda {

namespace {

__device__ inline int rowOfWarp() { return static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32); }

// Sums over a row, of what `term` makes of two neighbouring elements.
template <class Term>
__device__ inline float sumOfRow(const float* x, int dim, Term&& term) {
  float sum = 0;
#pragma unroll 8  // loads in flight
  for (int d = 2 * static_cast<int>(threadIdx.x % 32); d < dim; d += 64) {
    const float2 v = freshPair(x + d);
    sum += term(v.x) + term(v.y);
  }
  return sumOfLanes(sum);
}

template <class E, NormKind kind>
__global__ void normKernel(const __grid_constant__ Norm n) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int row = rowOfWarp(), lane = static_cast<int>(threadIdx.x % 32);
  if (row >= n.rows) return;
  const float* x = n.x + static_cast<ptrdiff_t>(n.from ? ptx::loadFresh(n.from + row) : row) * n.xStride;
  E* out = static_cast<E*>(n.out) + static_cast<ptrdiff_t>(row) * n.outStride;
  // The variance is that of the differences from the mean.
  const float mean =
      kind == NormKind::layer ? sumOfRow(x, n.dim, [](float v) { return v; }) / static_cast<float>(n.dim) : 0.0f;
  const float scale = scaleOf(sumOfRow(x, n.dim, [&](float v) { return (v - mean) * (v - mean); }), n.dim, n.eps);
#pragma unroll 4
  for (int d = 2 * lane; d < n.dim; d += 64) {
    const float2 v = freshPair(x + d), w = loadPair(n.weight + d);
    float low = (v.x - mean) * scale * w.x, high = (v.y - mean) * scale * w.y;
    if constexpr (kind == NormKind::layer) {
      const float2 b = loadPair(n.bias + d);
      low += b.x, high += b.y;
    }
    storePair(out + d, low, high);
  }
}

__global__ void weighKernel(const __grid_constant__ Weighing w) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int row = rowOfWarp(), lane = static_cast<int>(threadIdx.x % 32), stride = squaresStride(w.dim);
  if (row >= w.rows) return;
  const float* x = w.x + static_cast<ptrdiff_t>(w.from ? ptx::loadFresh(w.from + row) : row) * w.xStride;
#pragma unroll 4
  for (int first = 0; first < w.dim; first += 64) {
    const int d = first + 2 * lane;
    const bool there = d < w.dim;
    const float2 v = there ? freshPair(x + d) : make_float2(0, 0),
                 weight = there ? loadPair(w.to.weight + d) : make_float2(0, 0);
    storeNormInput<1>(w.to, stride, row, d / 2, there, v.x, v.y, weight);
  }
}

bool valid(int rows, int dim, int threads) {
  return rows >= 1 && dim >= 2 && dim % 2 == 0 && threads >= 32 && threads <= 1024 && threads % 32 == 0;
}
unsigned blocksOf(int rows, int threads) { return static_cast<unsigned>((rows + threads / 32 - 1) / (threads / 32)); }

}  // namespace

cudaError_t norm(const Norm& n, StepStream stream) {
  if (!valid(n.rows, n.dim, n.threads) || n.outStride % 2 != 0) return cudaErrorInvalidValue;
  if (n.kind == NormKind::layer && !n.bias) return cudaErrorInvalidValue;
  const bool wide = n.element == Element::float32, rms = n.kind == NormKind::rms;
  if (rms && !wide) return cudaErrorInvalidValue;  // weigh()
  const auto kernel = rms    ? normKernel<float, NormKind::rms>
                      : wide ? normKernel<float, NormKind::layer>
                             : normKernel<uint16_t, NormKind::layer>;
  return launchInStep(kernel, blocksOf(n.rows, n.threads), static_cast<unsigned>(n.threads), 0, stream, n);
}

cudaError_t weigh(const Weighing& w, StepStream stream) {
  if (!valid(w.rows, w.dim, w.threads) || w.xStride % 2 != 0 || !valid(w.to, w.dim)) return cudaErrorInvalidValue;
  return launchInStep(weighKernel, blocksOf(w.rows, w.threads), static_cast<unsigned>(w.threads), 0, stream, w);
}

}  // namespace parvis::cuda
