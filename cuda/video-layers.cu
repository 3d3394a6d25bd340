// Filters of three frames in bfloat16, as products of matrices that are never laid out: a block has 64 outputs of 128
// places, weights in the A operand and places in the B operand. Frames were staged before, so every tap of every place
// is there to read, 64 bytes of 32 channels at a time; weights lie in fragment order, one contiguous piece for each of
// these steps. Both come in by asynchronous copies, two steps ahead. Traded: each pixel is read once for each of its 27
// taps, from the second-level cache; windows in shared memory (convolve.cu) would spare most of that.
// Sums: over taps and channels in order, whatever else the block has.
#include "elements.cuh"
#include "video-layers.cuh"

namespace parvis::cuda::video {

namespace {

using vq::pictureStride;

constexpr int blockOutputs = 64, blockPlaces = 128, blockThreads = 256, stages = 3;
constexpr int weightElements = blockOutputs * windowChannels;  // of a step
constexpr int placeStride = windowChannels + 8;                // elements: eight places start in different banks
constexpr int stageElements = weightElements + blockPlaces * placeStride;
constexpr size_t sharedBytes = static_cast<size_t>(stages) * stageElements * 2;

// ---- weights ------------------------------------------------------------------------------------------------

// A lane's fragment is a thread's work.
__global__ void packFragmentsKernel(const float* rows, int first, int count, const __grid_constant__ Filter to) {
  const int chunks = stagedStride(to.channels) / windowChannels, taps = to.taps();
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int tiles = (count + 63) / 64, lane = static_cast<int>(at % 32), tile = static_cast<int>(at / 32 % 4),
            half = static_cast<int>(at / 128 % 2);
  const size_t step = at / 256;  // of all tiles of 64 outputs
  if (step >= static_cast<size_t>(tiles) * static_cast<size_t>(taps) * static_cast<size_t>(chunks)) return;
  const int chunk = static_cast<int>(step % static_cast<size_t>(chunks)),
            tap = static_cast<int>(step / static_cast<size_t>(chunks) % static_cast<size_t>(taps)),
            super = static_cast<int>(step / static_cast<size_t>(chunks) / static_cast<size_t>(taps));
  const int g = lane / 4, t = lane % 4;
  const auto at16 = [&](int r, int k) -> float {  // row r, column k of the tile
    const int output = super * 64 + tile * 16 + 2 * (r % 8) + r / 8, channel = chunk * windowChannels + half * 16 + k;
    if (output >= count || channel >= to.channels) return 0;
    return rows[(static_cast<ptrdiff_t>(output) * to.channels + channel) * taps + tap];
  };
  uint32_t a[4];
  for (int i = 0; i < 4; i++) {
    const int r = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
    a[i] = ptx::packBf16(at16(r, k), at16(r, k + 1));
  }
  const size_t tilesBefore = static_cast<size_t>(first / 64) * static_cast<size_t>(taps) * static_cast<size_t>(chunks);
  reinterpret_cast<uint4*>(to.data)[tilesBefore * 256 + at] = make_uint4(a[0], a[1], a[2], a[3]);
}

__global__ void packPlainKernel(const float* rows, int first, int count, const __grid_constant__ Filter to) {
  const int stride = stagedStride(to.channels), taps = to.taps(), outputs = (count + 63) / 64 * 64;
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= static_cast<size_t>(outputs) * static_cast<size_t>(taps) * static_cast<size_t>(stride)) return;
  const int output = static_cast<int>(at % static_cast<size_t>(outputs)),
            input = static_cast<int>(at / static_cast<size_t>(outputs)), channel = input % stride, tap = input / stride;
  static_cast<float*>(to.data)[static_cast<ptrdiff_t>(input) * to.paddedOutputs() + first + output] =
      output < count && channel < to.channels
          ? rows[(static_cast<ptrdiff_t>(output) * to.channels + channel) * taps + tap]
          : 0.0f;
}

// ---- frames as filters read them ----------------------------------------------------------------------------

__device__ inline float swish(float v, float slope, float) { return v / (1.0f + expf(-slope * v)); }
__device__ inline float swish(float v, float slope, uint16_t) {
  return v * ptx::reciprocalFast(1.0f + ptx::exp2Fast(slope * v * -1.44269504f));
}

template <class E>
__global__ void stageKernel(const __grid_constant__ Stage s) {
  const int stride = stagedStride(s.channels), columns = s.width + s.border, pairs = stride / 2;
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, place = at / static_cast<size_t>(pairs);
  if (place >= static_cast<size_t>(s.height + s.border) * static_cast<size_t>(columns)) return;
  const int channel = 2 * static_cast<int>(at % static_cast<size_t>(pairs));
  const int row = static_cast<int>(place / static_cast<size_t>(columns)) - s.before,
            column = static_cast<int>(place % static_cast<size_t>(columns)) - s.before;
  const int y = min(max(row, 0), s.height - 1), x = min(max(column, 0), s.width - 1);
  float2 v = make_float2(0, 0);
  if (channel < s.channels) {
    v = loadPair(static_cast<const E*>(s.x) + (static_cast<ptrdiff_t>(y) * s.width + x) * pictureStride(s.channels) +
                 channel);
    if (s.scale) {
      v.x = swish(fmaf(v.x, s.scale[channel], s.shift[channel]), s.slope[channel], E());
      v.y = channel + 1 < s.channels
                ? swish(fmaf(v.y, s.scale[channel + 1], s.shift[channel + 1]), s.slope[channel + 1], E())
                : 0.0f;
    }
  }
  storePair(static_cast<E*>(s.to) + static_cast<ptrdiff_t>(place) * stride + channel, v.x, v.y);
}

// ---- where outputs go ---------------------------------------------------------------------------------------

// Two neighbouring outputs of a place, the first one even.
template <class E>
__device__ inline void finish(const Convolution& c, int output, int place, float a, float b) {
  if (output >= (c.filter.outputs + 7) / 8 * 8) return;
  const float bias[2] = {c.filter.bias[output], c.filter.bias[output + 1]};
  a += bias[0];
  b += bias[1];
  if (c.floats) {
    float* const to = static_cast<float*>(c.y[0]) + static_cast<ptrdiff_t>(place) * c.filter.outputs + output;
    if (output < c.filter.outputs) to[0] = a;
    if (output + 1 < c.filter.outputs) to[1] = b;
    return;
  }
  if (c.residual) {
    const float2 old = loadPair(static_cast<const E*>(c.residual) +
                                static_cast<ptrdiff_t>(place) * pictureStride(c.filter.outputs) + output);
    a += old.x;
    b += old.y;
  }
  const int part = c.part(), block = output / part, channel = output - block * part;
  const int y = place / c.width * c.expandSpace + block / c.expandSpace % c.expandSpace,
            x = place % c.width * c.expandSpace + block % c.expandSpace;
  E* const frame = static_cast<E*>(c.y[block / (c.expandSpace * c.expandSpace)]);
  storePair(frame + (static_cast<ptrdiff_t>(y) * c.width * c.expandSpace + x) * pictureStride(part) + channel, a, b);
}

// Places of a staged frame, in elements.
__device__ inline ptrdiff_t startOf(const Convolution& c, int place) {
  return (static_cast<ptrdiff_t>(place / c.width) * c.stride * c.rowPixels + place % c.width * c.stride) *
         stagedStride(c.filter.channels);
}
__device__ inline ptrdiff_t tapOf(const Convolution& c, int tap) {
  const int kernel = c.filter.kernel;
  return (static_cast<ptrdiff_t>(tap / kernel % kernel) * c.rowPixels + tap % kernel) * stagedStride(c.filter.channels);
}

// ---- products -----------------------------------------------------------------------------------------------

// Grid: blocks of places, blocks of outputs from `firstBlock`.
__global__ void __launch_bounds__(blockThreads) convolveKernel(const __grid_constant__ Convolution c, int firstBlock) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, outputWarp = warp / 4,
            placeWarp = warp % 4;
  const int places = c.height * c.width, firstPlace = static_cast<int>(blockIdx.x) * blockPlaces,
            block = firstBlock + static_cast<int>(blockIdx.y);
  const int chunks = stagedStride(c.filter.channels) / windowChannels, steps = c.filter.taps() * chunks,
            taps = c.filter.kernel * c.filter.kernel;  // of a frame
  uint16_t* const shared = reinterpret_cast<uint16_t*>(dynamicShared());
  const uint4* const weights =
      static_cast<const uint4*>(c.filter.data) + static_cast<ptrdiff_t>(block) * steps * (weightElements / 8);

  // A thread brings 16 bytes of weights, and 8 channels of two places; beyond the last place, those of the last.
  const ptrdiff_t starts[2] = {startOf(c, min(firstPlace + thread / 4, places - 1)) + thread % 4 * 8,
                               startOf(c, min(firstPlace + 64 + thread / 4, places - 1)) + thread % 4 * 8};
  const auto fetch = [&](int step) {
    uint16_t* const to = shared + step % stages * stageElements;
    const int tap = step / chunks;
    const uint16_t* const frame =
        static_cast<const uint16_t*>(c.frames[tap / taps]) + tapOf(c, tap % taps) + step % chunks * windowChannels;
    ptx::cpAsync16(to + thread * 8, weights + static_cast<ptrdiff_t>(step) * (weightElements / 8) + thread);
    uint16_t* const pixels = to + weightElements + thread / 4 * placeStride + thread % 4 * 8;
    ptx::cpAsync16(pixels, frame + starts[0]);
    ptx::cpAsync16(pixels + 64 * placeStride, frame + starts[1]);
  };
  for (int step = 0; step < stages - 1; step++) {
    if (step < steps) fetch(step);
    ptx::cpAsyncCommit();
  }
  float sum[2][4][4] = {};
  const int row = placeWarp * 32 + lane / 16 * 8 + lane % 8, half = lane / 8 % 2 * 8;
  for (int step = 0; step < steps; step++) {
    ptx::cpAsyncWait<stages - 2>();
    __syncthreads();
    if (step + stages - 1 < steps) fetch(step + stages - 1);
    ptx::cpAsyncCommit();
    const uint16_t* const at = shared + step % stages * stageElements;
    const uint4* const a = reinterpret_cast<const uint4*>(at) + lane;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      uint32_t b[2][4];
      ptx::ldmatrix_x4(b[0], at + weightElements + row * placeStride + 16 * k + half);
      ptx::ldmatrix_x4(b[1], at + weightElements + (row + 16) * placeStride + 16 * k + half);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const uint4 v = a[(k * 4 + outputWarp * 2 + i) * 32];
        const uint32_t fragment[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const uint32_t pixels[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          ptx::mma_m16n8k16_bf16(sum[i][j], fragment, pixels);
        }
      }
    }
  }
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int place = firstPlace + placeWarp * 32 + j * 8 + 2 * t + e;
        if (place < places)
          finish<uint16_t>(c, block * blockOutputs + (outputWarp * 2 + i) * 16 + 2 * g, place, sum[i][j][e],
                           sum[i][j][e + 2]);
      }
}

// In float32, for checks: a thread has four outputs of a place.
constexpr int plainPlaces = 16;

__global__ void __launch_bounds__(blockThreads)
    convolvePlainKernel(const __grid_constant__ Convolution c, int firstBlock) {
  const int thread = static_cast<int>(threadIdx.x), places = c.height * c.width,
            place = static_cast<int>(blockIdx.x) * plainPlaces + thread / 16,
            output = (firstBlock + static_cast<int>(blockIdx.y)) * blockOutputs + thread % 16 * 4;
  if (place >= places) return;
  const int stride = stagedStride(c.filter.channels), taps = c.filter.kernel * c.filter.kernel;
  const ptrdiff_t start = startOf(c, place);
  float sum[4] = {};
  for (int tap = 0; tap < c.filter.taps(); tap++) {
    const float* const pixel = static_cast<const float*>(c.frames[tap / taps]) + start + tapOf(c, tap % taps);
    const float* const weights = static_cast<const float*>(c.filter.data) +
                                 static_cast<ptrdiff_t>(tap) * stride * c.filter.paddedOutputs() + output;
    for (int channel = 0; channel < c.filter.channels; channel++) {
      const float4 w =
          *reinterpret_cast<const float4*>(weights + static_cast<ptrdiff_t>(channel) * c.filter.paddedOutputs());
      sum[0] = fmaf(pixel[channel], w.x, sum[0]);
      sum[1] = fmaf(pixel[channel], w.y, sum[1]);
      sum[2] = fmaf(pixel[channel], w.z, sum[2]);
      sum[3] = fmaf(pixel[channel], w.w, sum[3]);
    }
  }
  finish<float>(c, output, place, sum[0], sum[1]);
  finish<float>(c, output + 2, place, sum[2], sum[3]);
}

}  // namespace

cudaError_t packFilter(const float* rows, int first, int count, const Filter& to, int threads, cudaStream_t stream) {
  if (first < 0 || count < 1 || first % 64 != 0 || first + count > to.outputs || threads < 1 || threads > 1024)
    return cudaErrorInvalidValue;
  const bool plain = to.element == Element::float32;
  const size_t all = static_cast<size_t>((count + 63) / 64 * 64) * static_cast<size_t>(to.taps()) *
                     static_cast<size_t>(stagedStride(to.channels)),
               work = plain ? all : all / 8, each = static_cast<size_t>(threads);
  return launch(plain ? packPlainKernel : packFragmentsKernel, static_cast<unsigned>((work + each - 1) / each),
                static_cast<unsigned>(threads), 0, stream, rows, first, count, to);
}

cudaError_t stage(const Stage& s, cudaStream_t stream) {
  if (s.height < 1 || s.width < 1 || s.channels < 1 || s.threads < 1 || s.threads > 1024) return cudaErrorInvalidValue;
  const size_t work = static_cast<size_t>(s.height + s.border) * static_cast<size_t>(s.width + s.border) *
                      static_cast<size_t>(stagedStride(s.channels) / 2),
               each = static_cast<size_t>(s.threads), blocks = (work + each - 1) / each;
  if (blocks > 0x7fffffffu) return cudaErrorInvalidValue;
  return launch(s.element == Element::float32 ? stageKernel<float> : stageKernel<uint16_t>,
                static_cast<unsigned>(blocks), static_cast<unsigned>(s.threads), 0, stream, s);
}

cudaError_t convolve(const Convolution& c, cudaStream_t stream) {
  const int64_t places = static_cast<int64_t>(c.height) * c.width;
  const int blocks = c.filter.paddedOutputs() / blockOutputs, skipped = c.expandTime == 2 && !c.y[0] ? blocks / 2 : 0;
  if (places < 1 || places > (1 << 30) || blocks - skipped > 65535 || (skipped > 0 && c.part() % 32 != 0))
    return cudaErrorInvalidValue;
  const bool plain = c.filter.element == Element::float32;
  const int each = plain ? plainPlaces : blockPlaces;
  return launch(plain ? convolvePlainKernel : convolveKernel,
                dim3(static_cast<unsigned>((places + each - 1) / each), static_cast<unsigned>(blocks - skipped)),
                blockThreads, plain ? 0 : sharedBytes, stream, c, skipped);
}

}  // namespace parvis::cuda::video
