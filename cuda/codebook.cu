// Tokens to codebook rows and back. The nearest of all rows is searched with double sums, as on the CPU, so that both
// find the same token: the search is a thousandth of encoding a picture, and a tie that rounding made would show in the
// picture.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

constexpr int cellsEach = 4;

__global__ void normaliseKernel(float* rows, int count, int size) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= count) return;
  float* r = rows + static_cast<ptrdiff_t>(row) * size;
  double squares = 0;
  for (int c = 0; c < size; c++) squares += static_cast<double>(r[c]) * static_cast<double>(r[c]);
  const double length = sqrt(squares), inverse = 1.0 / (length > 1e-12 ? length : 1e-12);
  for (int c = 0; c < size; c++) r[c] = static_cast<float>(static_cast<double>(r[c]) * inverse);
}

template <class E>
__global__ void lookupKernel(const __grid_constant__ Lookup l) {
  const int stride = pictureStride(l.size);
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, cell = at / static_cast<size_t>(stride);
  if (cell >= static_cast<size_t>(l.cells)) return;
  const int c = static_cast<int>(at % static_cast<size_t>(stride));
  storeElement(static_cast<E*>(l.out) + at,
               c < l.size ? l.codebook[static_cast<ptrdiff_t>(l.tokens[cell]) * l.size + c] : 0.0f);
}

struct Best {
  double product;
  int32_t row;
};
__device__ inline bool better(const Best& a, const Best& b) {
  return a.product > b.product || (a.product == b.product && a.row < b.row);
}

// A few cells a block, so that a row that was read serves them all.
__global__ void nearestKernel(const __grid_constant__ Nearest n) {
  PARVIS_SHARED(double, z, cellsEach * maxCodeSize);
  Best* const found = reinterpret_cast<Best*>(dynamicShared());  // [cellsEach][threads]
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
            first = static_cast<int>(blockIdx.x) * cellsEach;
  for (int i = thread; i < cellsEach * n.size; i += threads) {
    const int cell = first + i / n.size;
    z[i] = cell < n.cells ? static_cast<double>(n.z[static_cast<ptrdiff_t>(cell) * n.size + i % n.size]) : 0.0;
  }
  __syncthreads();
  Best best[cellsEach];
#pragma unroll
  for (int i = 0; i < cellsEach; i++) best[i] = {-HUGE_VAL, 0x7fffffff};
  for (int row = thread; row < n.rows; row += threads) {
    const float* r = n.codebook + static_cast<ptrdiff_t>(row) * n.size;
    double product[cellsEach] = {};
    for (int c = 0; c < n.size; c++) {
      const double v = static_cast<double>(r[c]);
#pragma unroll
      for (int i = 0; i < cellsEach; i++) product[i] += z[i * n.size + c] * v;
    }
#pragma unroll
    for (int i = 0; i < cellsEach; i++)
      if (better({product[i], row}, best[i])) best[i] = {product[i], row};
  }
#pragma unroll
  for (int i = 0; i < cellsEach; i++) found[i * threads + thread] = best[i];
  for (int left = threads / 2; left > 0; left /= 2) {
    __syncthreads();
    if (thread < left)
      for (int i = 0; i < cellsEach; i++)
        if (better(found[i * threads + thread + left], found[i * threads + thread]))
          found[i * threads + thread] = found[i * threads + thread + left];
  }
  __syncthreads();
  if (thread < cellsEach && first + thread < n.cells) {
    const Best& nearest = found[thread * threads];
    n.tokens[first + thread] =
        nearest.row < n.rows && fabs(nearest.product) < HUGE_VAL ? nearest.row : -1;  // NaN is near nothing
  }
}

}  // namespace

cudaError_t normaliseRows(float* rows, int count, int size, int threads, cudaStream_t stream) {
  if (count < 1 || size < 1 || threads < 1 || threads > 1024) return cudaErrorInvalidValue;
  return launch(normaliseKernel, static_cast<unsigned>((count + threads - 1) / threads), static_cast<unsigned>(threads),
                0, stream, rows, count, size);
}

cudaError_t lookup(const Lookup& l, cudaStream_t stream) {
  if (l.cells < 1 || l.size < 1 || l.threads < 1 || l.threads > 1024) return cudaErrorInvalidValue;
  const size_t work = static_cast<size_t>(l.cells) * static_cast<size_t>(pictureStride(l.size)),
               each = static_cast<size_t>(l.threads);
  return launch(l.element == Element::float32 ? lookupKernel<float> : lookupKernel<uint16_t>,
                static_cast<unsigned>((work + each - 1) / each), static_cast<unsigned>(l.threads), 0, stream, l);
}

cudaError_t nearest(const Nearest& n, cudaStream_t stream) {
  if (n.rows < 1 || n.size < 1 || n.size > maxCodeSize || n.cells < 1 || n.threads < cellsEach || n.threads > 512 ||
      (n.threads & (n.threads - 1)) != 0)
    return cudaErrorInvalidValue;
  return launch(nearestKernel, static_cast<unsigned>((n.cells + cellsEach - 1) / cellsEach),
                static_cast<unsigned>(n.threads), static_cast<size_t>(n.threads) * cellsEach * sizeof(Best), stream, n);
}

}  // namespace parvis::cuda::vq
