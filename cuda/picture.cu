// Both ends of the tokenizer: float32 pixels to the elements of a picture, and the picture that came out to the size
// and type that was asked for. Arithmetic and its order are those of cpu/resize.cc, without contraction.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

template <class E>
__global__ void inputKernel(const __grid_constant__ Input p) {
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x,
               stride = static_cast<size_t>(pictureStride(p.channels));
  if (at >= p.pixels * stride) return;
  const size_t c = at % stride;
  storeElement(static_cast<E*>(p.to) + at,
               c < static_cast<size_t>(p.channels) ? p.from[at / stride * static_cast<size_t>(p.channels) + c] : 0.0f);
}

struct Taps {
  int index[4];
  float weight[4];
};

// The cubic convolution kernel of Keys (1981) at distances t+1, t, 1-t, 2-t.
__device__ inline float nearTap(float x) {
  constexpr float a = -0.75f;
  return ((a + 2) * x - (a + 3)) * x * x + 1;
}
__device__ inline float farTap(float x) {
  constexpr float a = -0.75f;
  return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}
__device__ inline Taps tapsAt(int i, int from, int to) {
  const float scale = static_cast<float>(from) / static_cast<float>(to),
              centre = scale * (static_cast<float>(i) + 0.5f) - 0.5f;
  const int first = static_cast<int>(floorf(centre));
  const float t = centre - static_cast<float>(first);
  Taps taps;
  const float weight[4] = {farTap(t + 1), nearTap(t), nearTap(1 - t), farTap(2 - t)};
  for (int k = 0; k < 4; k++) {
    taps.index[k] = min(max(first - 1 + k, 0), from - 1);
    taps.weight[k] = weight[k];
  }
  return taps;
}

// A pixel a thread; grid: pixels, images.
__global__ void outputKernel(const __grid_constant__ Output o) {
  const size_t pixel = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x,
               pixels = static_cast<size_t>(o.outHeight) * static_cast<size_t>(o.outWidth);
  if (pixel >= pixels) return;
  const float* image =
      o.from + static_cast<size_t>(blockIdx.y) * static_cast<size_t>(o.height) * static_cast<size_t>(o.width) * 3;
  const size_t to = (static_cast<size_t>(blockIdx.y) * pixels + pixel) * 3;
  float rgb[3];
  if (o.height == o.outHeight && o.width == o.outWidth) {
    for (int c = 0; c < 3; c++) rgb[c] = image[pixel * 3 + static_cast<size_t>(c)];
  } else {
    const Taps down = tapsAt(static_cast<int>(pixel / static_cast<size_t>(o.outWidth)), o.height, o.outHeight),
               across = tapsAt(static_cast<int>(pixel % static_cast<size_t>(o.outWidth)), o.width, o.outWidth);
    for (int c = 0; c < 3; c++) {
      float sum = 0;
      for (int i = 0; i < 4; i++) {
        const float* row = image + static_cast<ptrdiff_t>(down.index[i]) * o.width * 3 + c;
        float line = 0;
        for (int j = 0; j < 4; j++) line += row[static_cast<ptrdiff_t>(across.index[j]) * 3] * across.weight[j];
        sum += line * down.weight[i];
      }
      rgb[c] = sum;
    }
  }
  for (int c = 0; c < 3; c++) {
    if (o.nonFinite && !(fabsf(rgb[c]) < HUGE_VALF)) atomicExch(o.nonFinite, 1);
    if (o.floats) o.floats[to + static_cast<size_t>(c)] = rgb[c];
    const float v = 127.5f * rgb[c] + 128.0f;
    if (o.bytes)
      o.bytes[to + static_cast<size_t>(c)] = static_cast<uint8_t>(v >= 255.0f ? 255
                                                                  : v > 0.0f  ? static_cast<int>(v)
                                                                              : 0);
  }
}

}  // namespace

cudaError_t input(const Input& i, cudaStream_t stream) {
  const size_t each = static_cast<size_t>(i.threads),
               blocks =
                   i.threads < 1 ? 0 : (i.pixels * static_cast<size_t>(pictureStride(i.channels)) + each - 1) / each;
  if (i.channels < 1 || i.threads > 1024 || blocks < 1 || blocks > 0x7fffffffu) return cudaErrorInvalidValue;
  return launch(i.element == Element::float32 ? inputKernel<float> : inputKernel<uint16_t>,
                static_cast<unsigned>(blocks), static_cast<unsigned>(i.threads), 0, stream, i);
}

cudaError_t output(const Output& o, cudaStream_t stream) {
  if (o.images < 1 || o.images > 65535 || o.height < 1 || o.width < 1 || o.outHeight < 1 || o.outWidth < 1 ||
      o.threads < 1 || o.threads > 1024)
    return cudaErrorInvalidValue;
  const size_t each = static_cast<size_t>(o.threads),
               blocks = (static_cast<size_t>(o.outHeight) * static_cast<size_t>(o.outWidth) + each - 1) / each;
  if (blocks > 0x7fffffffu) return cudaErrorInvalidValue;
  return launch(outputKernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(o.images)),
                static_cast<unsigned>(o.threads), 0, stream, o);
}

}  // namespace parvis::cuda::vq
