// Convolutions in float32, for checks: 64 outputs of 8 x 8 pixels a block, eight channels of the input at a time in
// shared memory with norm and swish applied, four outputs of four pixels a thread. Also both packings of weights.
// Nothing here is hot: packing happens once, and bfloat16 is what pictures are made with.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

constexpr int threads = 256, side = 8, step = 8, outputs = 64;

__global__ void packFragmentsKernel(const float* rows, int first, int count, const __grid_constant__ Filter to) {
  const int tiles = to.superTile() / 16, taps = to.taps();
  const size_t inputTiles = static_cast<size_t>(to.chunks() * taps * 2);
  size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;  // of the fragments of these rows
  const size_t superTile = at / (32 * static_cast<size_t>(tiles) * inputTiles);
  if (static_cast<int>(superTile) * to.superTile() >= count) return;
  uint4* const out = static_cast<uint4*>(to.data) +
                     static_cast<size_t>(first / to.superTile()) * inputTiles * static_cast<size_t>(tiles) * 32 + at;
  const int lane = static_cast<int>(at % 32), g = lane / 4, t = lane % 4;
  at /= 32;
  const int tile = static_cast<int>(at % static_cast<size_t>(tiles));
  at /= static_cast<size_t>(tiles);
  const int half = static_cast<int>(at % 2), tap = static_cast<int>(at / 2 % static_cast<size_t>(taps)),
            chunk = static_cast<int>(at / 2 / static_cast<size_t>(taps) % static_cast<size_t>(to.chunks()));
  const auto value = [&](int row, int k) -> float {
    const int output = static_cast<int>(superTile) * to.superTile() + 2 * tiles * (row % 8) + 2 * tile + row / 8,
              channel = chunk * 32 + half * 16 + k;
    return output < count && channel < to.channels
               ? rows[(static_cast<ptrdiff_t>(output) * to.channels + channel) * taps + tap]
               : 0.0f;
  };
  uint32_t a[4];
  for (int r = 0; r < 4; r++) {
    const int row = g + r % 2 * 8, k = 2 * t + r / 2 * 8;
    a[r] = ptx::packBf16(value(row, k), value(row, k + 1));
  }
  *out = make_uint4(a[0], a[1], a[2], a[3]);
}

__global__ void packPlainKernel(const float* rows, int first, int count, const __grid_constant__ Filter to) {
  const int rowsHere = (count + outputs - 1) / outputs * outputs, inputs = to.channels * to.taps();
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= static_cast<size_t>(rowsHere) * static_cast<size_t>(inputs)) return;
  const int output = static_cast<int>(at % static_cast<size_t>(rowsHere)),
            input = static_cast<int>(at / static_cast<size_t>(rowsHere));
  static_cast<float*>(to.data)[static_cast<ptrdiff_t>(input) * to.paddedOutputs() + first + output] =
      output < count ? rows[static_cast<ptrdiff_t>(output) * inputs + input] : 0.0f;
}

// Geometry as in convolve.cu: the stored pixel that output pixel p reads at tap k.
__device__ inline int storedPixel(Resample r, int kernel, int p, int k) {
  return r == Resample::down ? 2 * p + k : r == Resample::up ? (p + k - 1) >> 1 : p + k - kernel / 2;
}

__global__ void __launch_bounds__(threads) convolvePlainKernel(const __grid_constant__ Convolution c) {
  constexpr int most = (2 * side + 1) * (2 * side + 1);
  PARVIS_SHARED(float, window, most * step);
  PARVIS_SHARED(float, weights, step * 9 * outputs);
  const int kernel = c.filter.kernel, taps = c.filter.taps(), height = c.outHeight(), width = c.outWidth(),
            across = (width + side - 1) / side, thread = static_cast<int>(threadIdx.x);
  const int y0 = static_cast<int>(blockIdx.x) / across * side, x0 = static_cast<int>(blockIdx.x) % across * side,
            o0 = static_cast<int>(blockIdx.y) * outputs;
  const int firstY = storedPixel(c.resample, kernel, y0, 0), firstX = storedPixel(c.resample, kernel, x0, 0);
  const int columns = storedPixel(c.resample, kernel, x0 + side - 1, kernel - 1) - firstX + 1;  // and rows
  const int stride = pictureStride(c.filter.channels), outStride = pictureStride(c.filter.outputs), o = thread % 16 * 4,
            py = thread / 32, px = thread / 16 % 2 * 4;
  const float* image =
      static_cast<const float*>(c.x) + static_cast<ptrdiff_t>(blockIdx.z) * c.height * c.width * stride;
  float sum[4][4] = {};  // pixel, output
  for (int first = 0; first < c.filter.channels; first += step) {
    const int channels = min(step, c.filter.channels - first);
    __syncthreads();
    for (int i = thread; i < columns * columns * step; i += threads) {
      const int p = i / step, channel = first + i % step, y = firstY + p / columns, x = firstX + p % columns;
      float v = 0;
      if (y >= 0 && y < c.height && x >= 0 && x < c.width && channel < c.filter.channels) {
        v = image[(static_cast<ptrdiff_t>(y) * c.width + x) * stride + channel];
        const ptrdiff_t factor = static_cast<ptrdiff_t>(blockIdx.z) * c.filter.channels + channel;
        if (c.scale) v = fmaf(v, c.scale[factor], c.shift[factor]);
        if (c.swish) v = v / (1.0f + expf(-v));
      }
      window[i] = v;
    }
    for (int i = thread; i < channels * taps * outputs; i += threads)
      weights[i] = static_cast<const float*>(
          c.filter.data)[(static_cast<ptrdiff_t>(first) * taps + i / outputs) * c.filter.paddedOutputs() + o0 +
                         i % outputs];
    __syncthreads();
    for (int channel = 0; channel < channels; channel++)
      for (int tap = 0; tap < taps; tap++) {
        const float4 w = *reinterpret_cast<const float4*>(weights + (channel * taps + tap) * outputs + o);
        const int row = (storedPixel(c.resample, kernel, y0 + py, tap / kernel) - firstY) * columns;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float v =
              window[(row + storedPixel(c.resample, kernel, x0 + px + i, tap % kernel) - firstX) * step + channel];
          sum[i][0] = fmaf(v, w.x, sum[i][0]);
          sum[i][1] = fmaf(v, w.y, sum[i][1]);
          sum[i][2] = fmaf(v, w.z, sum[i][2]);
          sum[i][3] = fmaf(v, w.w, sum[i][3]);
        }
      }
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      const int y = y0 + py, x = x0 + px + i, output = o0 + o + j, limit = c.floats ? c.filter.outputs : outStride;
      if (y >= height || x >= width || output >= limit) continue;
      const ptrdiff_t pixel = (static_cast<ptrdiff_t>(blockIdx.z) * height + y) * width + x;
      const float v = sum[i][j] + c.filter.bias[output];
      static_cast<float*>(c.y)[pixel * limit + output] =
          c.residual ? v + static_cast<const float*>(c.residual)[pixel * outStride + output] : v;
    }
}

}  // namespace

cudaError_t packFilter(const float* rows, int first, int count, const Filter& to, int threads, cudaStream_t stream) {
  if (first < 0 || count < 1 || first % to.superTile() != 0 || first + count > to.outputs || threads < 1 ||
      threads > 1024)
    return cudaErrorInvalidValue;
  const bool plain = to.element == Element::float32;
  const size_t outputsHere = static_cast<size_t>((count + to.superTile() - 1) / to.superTile() * to.superTile());
  const size_t work = outputsHere * (plain ? static_cast<size_t>(to.channels * to.taps())
                                           : static_cast<size_t>(to.chunks() * to.taps()) * 4),
               each = static_cast<size_t>(threads);
  return launch(plain ? packPlainKernel : packFragmentsKernel, static_cast<unsigned>((work + each - 1) / each),
                static_cast<unsigned>(threads), 0, stream, rows, first, count, to);
}

cudaError_t convolvePlain(const Convolution& c, cudaStream_t stream) {
  const size_t tiles =
      static_cast<size_t>((c.outHeight() + side - 1) / side) * static_cast<size_t>((c.outWidth() + side - 1) / side);
  if (c.filter.element != Element::float32 || tiles < 1 || tiles > 0x7fffffffu || c.images < 1 || c.images > 65535)
    return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(c.filter.paddedOutputs() / outputs),
                  static_cast<unsigned>(c.images));
  const cudaError_t e = launch(convolvePlainKernel, grid, threads, 0, stream, c);
  if (e != cudaSuccess || !c.sums) return e;
  return statistics({c.y, c.images, c.outHeight(), c.outWidth(), c.filter.outputs, Element::float32, c.sums, threads},
                    stream);
}

}  // namespace parvis::cuda::vq
