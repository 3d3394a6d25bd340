// Weights into the order in which a warp multiplies them, once, at load: a lane's 16 bytes of a 16 x 16 tile are its
// whole A fragment, and a warp reads 512 contiguous bytes. A lane's fragment is a thread's work.
#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

namespace {

template <class E>
__global__ void packKernel(const __grid_constant__ Packing from, const __grid_constant__ Packed to) {
  const size_t fragment = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (fragment * 16 >= to.dataBytes()) return;
  const int lane = static_cast<int>(fragment % 32), g = lane / 4, t = lane % 4;
  const int inputTile = static_cast<int>(fragment / 32 % static_cast<size_t>(to.inputTiles())),
            tile = static_cast<int>(fragment / 32 / static_cast<size_t>(to.inputTiles()));
  const int pair = 8 * tile + g;
  const auto at = [&](bool high, int k) -> float {
    if (pair >= (high ? from.highRows : from.lowRows) || k >= to.inputs) return 0;
    return widen(static_cast<const E*>(high ? from.high : from.low)[pair * from.stride + k]);
  };
  uint32_t a[4];
  for (int r = 0; r < 4; r++) {
    const int k = 16 * inputTile + 2 * t + r / 2 * 8;
    a[r] = ptx::packBf16(at(r % 2 != 0, k), at(r % 2 != 0, k + 1));
  }
  reinterpret_cast<uint4*>(to.data)[fragment] = make_uint4(a[0], a[1], a[2], a[3]);
}

// A thread has a lane's 16 bytes: two fragments of 8-bit integers, and one scale where it is the first or second of its
// pair. A word is low k, low k+1, high k, high k+1.
__global__ void packIntegersKernel(const __grid_constant__ IntegerPacking from, int inputs, uint4* to, float* scales) {
  const size_t fragment = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int groups = scaleGroups(inputs);
  const int lane = static_cast<int>(fragment % 32), g = lane / 4, t = lane % 4;
  const int step = static_cast<int>(fragment / 32 % static_cast<size_t>(2 * groups)),
            tile = static_cast<int>(fragment / 32 / static_cast<size_t>(2 * groups));
  const int pair = 8 * tile + g;
  if (8 * tile >= from.lowRows) return;
  const auto there = [&](bool high) { return pair < (high ? from.highRows : from.lowRows); };
  const auto at = [&](bool high, int k) -> uint32_t {
    if (!there(high) || k >= inputs) return 0;
    return static_cast<uint8_t>((high ? from.high : from.low)[pair * from.stride + k]);
  };
  uint32_t word[4];
  for (int w = 0; w < 4; w++) {
    const int k = 32 * step + 8 * w + 2 * t;
    word[w] = at(false, k) | at(false, k + 1) << 8 | at(true, k) << 16 | at(true, k + 1) << 24;
  }
  to[fragment] = make_uint4(word[0], word[1], word[2], word[3]);
  if (step % 2 != 0 || t > 1) return;
  const bool high = t == 1;
  const float* const of = high ? from.highScales : from.lowScales;
  scales[(static_cast<size_t>(tile) * static_cast<size_t>(groups) + static_cast<size_t>(step / 2)) * 16 + 2 * g + t] =
      there(high) ? of[pair * from.scaleStride + step / 2] : 0.0f;
}

template <class From, class To>
__global__ void convertKernel(const void* from, void* to, size_t count) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    storeElement(static_cast<To*>(to) + i, widen(static_cast<const From*>(from)[i]));
}

}  // namespace

cudaError_t pack(const Packing& from, const Packed& to, int threads, cudaStream_t stream) {
  if (to.pairs < 1 || to.inputs < 1 || to.format != WeightFormat::bfloat16 || threads < 1 || threads > 1024)
    return cudaErrorInvalidValue;
  const size_t fragments = to.dataBytes() / 16, each = static_cast<size_t>(threads);
  const auto kernel = from.element == Element::float32   ? packKernel<float>
                      : from.element == Element::float16 ? packKernel<Half>
                                                         : packKernel<uint16_t>;
  return launch(kernel, static_cast<unsigned>((fragments + each - 1) / each), static_cast<unsigned>(threads), 0, stream,
                from, to);
}

cudaError_t packIntegers(const IntegerPacking& from, const Packed& to, int firstTile, int threads,
                         cudaStream_t stream) {
  if (from.lowRows < 1 || to.inputs < 1 || !to.scaled() || threads < 1 || threads > 1024) return cudaErrorInvalidValue;
  const int tiles = (from.lowRows + 7) / 8;
  if (firstTile < 0 || firstTile + tiles > to.tiles()) return cudaErrorInvalidValue;
  const size_t fragments = static_cast<size_t>(tiles) * static_cast<size_t>(to.steps()) * 32,
               each = static_cast<size_t>(threads);
  return launch(packIntegersKernel, static_cast<unsigned>((fragments + each - 1) / each),
                static_cast<unsigned>(threads), 0, stream, from, to.inputs,
                reinterpret_cast<uint4*>(to.stepsAt(firstTile)), to.scalesAt(firstTile));
}

cudaError_t convert(const void* from, Element fromElement, void* to, Element toElement, size_t count, int threads,
                    cudaStream_t stream) {
  if (toElement == Element::float16 || threads < 1 || threads > 1024) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  const bool wide = toElement == Element::float32;
  const auto kernel =
      fromElement == Element::float32   ? (wide ? convertKernel<float, float> : convertKernel<float, uint16_t>)
      : fromElement == Element::float16 ? (wide ? convertKernel<Half, float> : convertKernel<Half, uint16_t>)
                                        : (wide ? convertKernel<uint16_t, float> : convertKernel<uint16_t, uint16_t>);
  const size_t each = static_cast<size_t>(threads), blocks = (count + each - 1) / each;
  return launch(kernel, static_cast<unsigned>(blocks < 4096 ? blocks : 4096), static_cast<unsigned>(threads), 0, stream,
                from, to, count);
}

}  // namespace parvis::cuda
