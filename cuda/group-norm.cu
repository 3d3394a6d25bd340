// Group norm as a scale and a shift for each channel, which the next convolution applies while it reads: the picture is
// not read again for the norm. The convolution that made the picture left sums for every 4 x 8 pixels; they are put
// together here in double precision and in a fixed order, since a variance is a small difference of large numbers.
// Traded: the sums are a sixteenth of the picture's size.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

// A thread has one channel of one slot.
template <class E>
__global__ void statisticsKernel(const __grid_constant__ Statistics s) {
  const int stride = pictureStride(s.channels), across = (s.width + 7) / 8;
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x,
               slots = static_cast<size_t>(sumSlots(s.height, s.width));
  if (at >= slots * static_cast<size_t>(stride)) return;
  const int channel = static_cast<int>(at % static_cast<size_t>(stride)),
            slot = static_cast<int>(at / static_cast<size_t>(stride));
  const int y0 = slot / across * 4, x0 = slot % across * 8;
  const E* image = static_cast<const E*>(s.x) + static_cast<ptrdiff_t>(blockIdx.y) * s.height * s.width * stride;
  double sum = 0, squares = 0;
  for (int y = y0; y < min(s.height, y0 + 4); y++)
    for (int x = x0; x < min(s.width, x0 + 8); x++) {
      const double v = static_cast<double>(widen(image[(static_cast<ptrdiff_t>(y) * s.width + x) * stride + channel]));
      sum += v;
      squares += v * v;
    }
  *reinterpret_cast<float2*>(s.sums + (static_cast<size_t>(blockIdx.y) * slots * static_cast<size_t>(stride) + at) *
                                          2) = make_float2(static_cast<float>(sum), static_cast<float>(squares));
}

// A block has one group of one image.
__global__ void factorsKernel(const __grid_constant__ GroupNorm n) {
  double* const partial = reinterpret_cast<double*>(dynamicShared());  // [threads][2]
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
            stride = pictureStride(n.channels), size = n.channels / n.groups,
            first = static_cast<int>(blockIdx.x) * size;
  const int slots = sumSlots(n.height, n.width);
  const float2* sums =
      reinterpret_cast<const float2*>(n.sums) + static_cast<ptrdiff_t>(blockIdx.y) * slots * stride + first;
  double sum = 0, squares = 0;
  // Neighbouring threads have neighbouring channels; what is left of the block has nothing.
  const int step = threads / size, channel = thread % size;
#pragma unroll 8
  for (int slot = thread < step * size ? thread / size : slots; slot < slots; slot += step) {
    const float2 v = sums[static_cast<ptrdiff_t>(slot) * stride + channel];
    sum += static_cast<double>(v.x);
    squares += static_cast<double>(v.y);
  }
  partial[2 * thread] = sum;
  partial[2 * thread + 1] = squares;
  for (int left = threads / 2; left > 0; left /= 2) {
    __syncthreads();
    if (thread < left) {
      partial[2 * thread] += partial[2 * (thread + left)];
      partial[2 * thread + 1] += partial[2 * (thread + left) + 1];
    }
  }
  __syncthreads();
  const double count = static_cast<double>(n.height) * static_cast<double>(n.width) * static_cast<double>(size);
  const double mean = partial[0] / count, difference = partial[1] / count - mean * mean,
               variance = difference > 0 ? difference : 0;
  const double inverse = 1.0 / sqrt(variance + static_cast<double>(n.eps));
  for (int i = thread; i < size; i += threads) {
    const ptrdiff_t to = static_cast<ptrdiff_t>(blockIdx.y) * n.channels + first + i;
    const double weight = inverse * static_cast<double>(n.weight[first + i]);
    n.scale[to] = static_cast<float>(weight);
    n.shift[to] = static_cast<float>(static_cast<double>(n.bias[first + i]) - mean * weight);
  }
}

}  // namespace

cudaError_t statistics(const Statistics& s, cudaStream_t stream) {
  if (s.images < 1 || s.images > 65535 || s.height < 1 || s.width < 1 || s.channels < 1 || s.threads < 1 ||
      s.threads > 1024)
    return cudaErrorInvalidValue;
  const size_t work = static_cast<size_t>(sumSlots(s.height, s.width)) * static_cast<size_t>(pictureStride(s.channels)),
               each = static_cast<size_t>(s.threads);
  const dim3 grid(static_cast<unsigned>((work + each - 1) / each), static_cast<unsigned>(s.images));
  return launch(s.element == Element::float32 ? statisticsKernel<float> : statisticsKernel<uint16_t>, grid,
                static_cast<unsigned>(s.threads), 0, stream, s);
}

cudaError_t groupNormFactors(const GroupNorm& n, cudaStream_t stream) {
  if (n.images < 1 || n.images > 65535 || n.groups < 1 || n.channels < n.groups || n.channels % n.groups != 0 ||
      n.height < 1 || n.width < 1 || n.threads < n.channels / n.groups || n.threads > 1024 ||
      (n.threads & (n.threads - 1)) != 0)
    return cudaErrorInvalidValue;
  return launch(factorsKernel, dim3(static_cast<unsigned>(n.groups), static_cast<unsigned>(n.images)),
                static_cast<unsigned>(n.threads), static_cast<size_t>(n.threads) * 16, stream, n);
}

}  // namespace parvis::cuda::vq
