// Numbers for one operation by itself: pseudo-random ones to be timed on, and given ones into the layouts of the kernels.
#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

namespace {

// Exponents of 2^-6 in both halves: finite whatever they are read as.
__global__ void fillKernel(uint32_t* to, size_t count) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t v = static_cast<uint32_t>(i) * 2654435761u;
    v ^= v >> 15, v *= 2246822519u, v ^= v >> 13;
    to[i] = (v & 0x807f807fu) | 0x3c803c80u;
  }
}

template <class E>
__global__ void scatterKernel(const __grid_constant__ Scatter s) {
  const size_t rows = static_cast<size_t>(s.rows), width = static_cast<size_t>(s.width), count = static_cast<size_t>(s.groups) * rows * width;
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const size_t row = i / width, group = row / rows;
    storeElement(static_cast<E*>(s.to) + (group * static_cast<size_t>(s.places) + row % rows) * static_cast<size_t>(s.stride) + i % width, s.from[i] * s.scale);
  }
}

unsigned blocksFor(size_t count, size_t each) {
  const size_t blocks = (count + each - 1) / each;
  return static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
}

}  // namespace

cudaError_t fill(void* to, size_t bytes, cudaStream_t stream) {
  if (bytes % 4 != 0) return cudaErrorInvalidValue;
  if (bytes == 0) return cudaSuccess;
  return launch(fillKernel, blocksFor(bytes / 4, 256), 256u, 0, stream, static_cast<uint32_t*>(to), bytes / 4);
}

cudaError_t scatter(const Scatter& s, int threads, cudaStream_t stream) {
  if (s.groups < 0 || s.rows < 0 || s.width < 1 || s.places < s.rows || s.stride < s.width || s.element == Element::float16 || threads < 1 || threads > 1024) return cudaErrorInvalidValue;
  const size_t count = static_cast<size_t>(s.groups) * static_cast<size_t>(s.rows) * static_cast<size_t>(s.width);
  if (count == 0) return cudaSuccess;
  return launch(s.element == Element::float32 ? scatterKernel<float> : scatterKernel<uint16_t>, blocksFor(count, static_cast<size_t>(threads)), static_cast<unsigned>(threads), 0, stream, s);
}

}  // namespace parvis::cuda
