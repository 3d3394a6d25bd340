// Convolutions in bfloat16, as products of matrices that are never laid out: a warp has 64 outputs (fewer where a
// picture is small or has few) of 32 pixels, weights in the A operand and pixels in the B operand. Norm, swish and the
// zero border are applied while a window of 32 channels of the input is copied to shared memory; all nine taps then
// read that window at shifted addresses, also where it is upsampled or every second pixel is skipped. Weights lie in
// fragment order and come in by asynchronous copies, one row of taps ahead; a third of the next window is fetched
// during each row of taps, so one barrier a row is enough and few registers wait. A lane ends up with eight
// neighbouring outputs: pictures are read and written 128 bytes a pixel without another trip through shared memory.
// Traded: nearest upsampling could be four 2 x 2 convolutions with summed weights, 2.25 times less work, but other
// bits. Sums: over windows, taps, channels in order, whatever the size of the block, which may therefore depend on the
// batch.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

constexpr int windowChannels = 32,
              windowStride = windowChannels + 8;  // elements: eight pixels in a row start in different banks
constexpr int tileColumns = 8, warpRows = 4;      // of pixels: a warp's

// Tiles of 16 outputs in a super tile as it is packed, and of a warp; warps over outputs, warps over pixels.
template <int packed, int t, int mw, int pw>
struct Block {
  static constexpr int packedTiles = packed, tiles = t, outputWarps = mw, pixelWarps = pw, threads = 32 * mw * pw,
                       outputs = 16 * t * mw, rows = warpRows * pw;
  static constexpr int superTiles = t * mw / packed;
  static_assert(superTiles * packed == t * mw && packed % t == 0);
};

// What a block reads of the input.
template <class B, int kernel, Resample resample>
struct Window {
  static constexpr int rows = resample == Resample::down ? 2 * B::rows + 1
                              : resample == Resample::up ? B::rows / 2 + 2
                                                         : B::rows + kernel - 1;
  static constexpr int columns = resample == Resample::down ? 2 * tileColumns + 1
                                 : resample == Resample::up ? tileColumns / 2 + 2
                                                            : tileColumns + kernel - 1;
  static constexpr int pixels = rows * columns, elements = pixels * windowStride;
  static constexpr int pieces =
      (pixels * 4 + B::threads * kernel - 1) / (B::threads * kernel);  // of 8 channels, a thread and row of taps
  static constexpr int stageElements = kernel * 2 * B::tiles * B::outputWarps * 256;  // weights of a row of taps
  static constexpr size_t fixedBytes = static_cast<size_t>(2 * elements + 2 * stageElements) * 2;
  static_assert(fixedBytes <= convolutionBytes);
  static constexpr size_t bytes(int chunks) {
    return fixedBytes + (resample == Resample::none ? static_cast<size_t>(chunks) * windowChannels * 8 : 0);
  }
  // The stored pixel, before the window's origin is added, that output pixel `p` reads at tap `k`.
  static constexpr int twoRows = resample == Resample::down ? 4
                                 : resample == Resample::up ? 1
                                                            : 2;  // at(p + 2, k) - at(p, k)
  __device__ static int at(int p, int k) {
    return resample == Resample::down ? 2 * p + k : resample == Resample::up ? (p + k + 1) >> 1 : p + k;
  }
  __device__ static int origin(int p) {
    return resample == Resample::down ? 2 * p : resample == Resample::up ? p / 2 - 1 : p - kernel / 2;
  }
};

__device__ inline float swish(float v) { return v * ptx::reciprocalFast(1.0f + ptx::exp2Fast(v * -1.44269504f)); }
__device__ inline uint32_t transformed(uint32_t pair, float2 scale, float2 shift, bool swished) {
  float a = fmaf(lowHalf(pair), scale.x, shift.x), b = fmaf(highHalf(pair), scale.y, shift.y);
  if (swished) {
    a = swish(a);
    b = swish(b);
  }
  return ptx::packBf16(a, b);
}

template <class B, int kernel, Resample resample>
class Fetch {  // of a third of a window: first into registers, later, normed, into shared memory
  using W = Window<B, kernel, resample>;

 public:
  __device__ Fetch(const Convolution& c, int y0, int x0) : c_(c), y_(W::origin(y0)), x_(W::origin(x0)) {}
  __device__ void ask(int chunk, int part) {
    const int stride = pictureStride(c_.filter.channels),
              channel = chunk * windowChannels + static_cast<int>(threadIdx.x) % 4 * 8;
#pragma unroll
    for (int i = 0; i < W::pieces; i++) {
      const int p = pixel(part, i), y = y_ + p / W::columns, x = x_ + p % W::columns;
      there_[i] = p < W::pixels && y >= 0 && y < c_.height && x >= 0 && x < c_.width && channel < stride;
      piece_[i] = there_[i]
                      ? *reinterpret_cast<const uint4*>(
                            static_cast<const uint16_t*>(c_.x) +
                            ((static_cast<ptrdiff_t>(blockIdx.z) * c_.height + y) * c_.width + x) * stride + channel)
                      : make_uint4(0, 0, 0, 0);
    }
  }
  // factors: [2][chunks 32], scales and shifts; null: as it is
  __device__ void put(uint16_t* window, const float* factors, int chunk, int part) {
    const int inWindow = static_cast<int>(threadIdx.x) % 4 * 8;
    const float* scale = factors + chunk * windowChannels + inWindow;
    const float* shift = scale + c_.filter.chunks() * windowChannels;
#pragma unroll
    for (int i = 0; i < W::pieces; i++) {
      const int p = pixel(part, i);
      uint4 v = piece_[i];
      if (resample == Resample::none && c_.scale && there_[i]) {
        v.x = transformed(v.x, loadPair(scale), loadPair(shift), c_.swish);
        v.y = transformed(v.y, loadPair(scale + 2), loadPair(shift + 2), c_.swish);
        v.z = transformed(v.z, loadPair(scale + 4), loadPair(shift + 4), c_.swish);
        v.w = transformed(v.w, loadPair(scale + 6), loadPair(shift + 6), c_.swish);
      }
      if (p < W::pixels) *reinterpret_cast<uint4*>(window + p * windowStride + inWindow) = v;
    }
  }

 private:
  __device__ static int pixel(int part, int i) {
    return ((part * W::pieces + i) * B::threads + static_cast<int>(threadIdx.x)) / 4;
  }
  const Convolution& c_;
  int y_, x_;
  uint4 piece_[W::pieces];
  bool there_[W::pieces];
};

template <int words>
struct Words {  // of a picture, two elements each
  uint32_t w[words];
};
template <int words>
__device__ inline Words<words> loadWords(const uint16_t* p) {
  if constexpr (words == 4) {
    const uint4 v = *reinterpret_cast<const uint4*>(p);
    return {{v.x, v.y, v.z, v.w}};
  } else if constexpr (words == 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(p);
    return {{v.x, v.y}};
  } else {
    return {{*reinterpret_cast<const uint32_t*>(p)}};
  }
}
template <int words>
__device__ inline void storeWords(uint16_t* p, const Words<words>& v) {
  if constexpr (words == 4) *reinterpret_cast<uint4*>(p) = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
  else if constexpr (words == 2) *reinterpret_cast<uint2*>(p) = make_uint2(v.w[0], v.w[1]);
  else *reinterpret_cast<uint32_t*>(p) = v.w[0];
}

// Bias, residual, rounding and sums of a lane's 2 `tiles` outputs at 8 pixels. tile: the warp's first.
template <class B>
__device__ void finish(const Convolution& c, float (&sum)[B::tiles][4][4], int tile, int y0, int x0) {
  constexpr int n = 2 * B::tiles;
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4, height = c.outHeight(),
            width = c.outWidth();
  const int stride = pictureStride(c.filter.outputs),
            first = tile / B::packedTiles * B::packedTiles * 16 + g * 2 * B::packedTiles + tile % B::packedTiles * 2;
  if (y0 >= height) return;  // a whole warp: x0 is inside
  const bool used = first < stride;
  float bias[n], total[n] = {}, squares[n] = {};
#pragma unroll
  for (int i = 0; i < n; i++) bias[i] = used ? c.filter.bias[first + i] : 0.0f;
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int y = y0 + j, x = x0 + 2 * t + e;
      if (y >= height || x >= width || !used) continue;
      const ptrdiff_t pixel = (static_cast<ptrdiff_t>(blockIdx.z) * height + y) * width + x;
      Words<B::tiles> old{}, out;
      if (c.residual) old = loadWords<B::tiles>(static_cast<const uint16_t*>(c.residual) + pixel * stride + first);
#pragma unroll
      for (int i = 0; i < B::tiles; i++) {
        const float a = sum[i][j][e] + bias[2 * i] + lowHalf(old.w[i]),
                    b = sum[i][j][e + 2] + bias[2 * i + 1] + highHalf(old.w[i]);
        if (c.floats) {
          float* to = static_cast<float*>(c.y) + pixel * c.filter.outputs + first + 2 * i;
          if (first + 2 * i < c.filter.outputs) to[0] = a;
          if (first + 2 * i + 1 < c.filter.outputs) to[1] = b;
          continue;
        }
        out.w[i] = ptx::packBf16(a, b);
        const float low = lowHalf(out.w[i]), high = highHalf(out.w[i]);
        total[2 * i] += low;
        total[2 * i + 1] += high;
        squares[2 * i] = fmaf(low, low, squares[2 * i]);
        squares[2 * i + 1] = fmaf(high, high, squares[2 * i + 1]);
      }
      if (c.floats) continue;
      storeWords(static_cast<uint16_t*>(c.y) + pixel * stride + first, out);
    }
  if (!c.sums) return;
  const ptrdiff_t slot = static_cast<ptrdiff_t>(blockIdx.z) * sumSlots(height, width) +
                         static_cast<ptrdiff_t>(y0 / warpRows) * ((width + tileColumns - 1) / tileColumns) +
                         x0 / tileColumns;
#pragma unroll
  for (int i = 0; i < n; i++) {
    for (int bits = 1; bits < 4; bits *= 2) {
      total[i] += __shfl_xor_sync(fullWarp, total[i], bits);
      squares[i] += __shfl_xor_sync(fullWarp, squares[i], bits);
    }
    if (t == 0 && used)
      *reinterpret_cast<float2*>(c.sums + (slot * stride + first + i) * 2) = make_float2(total[i], squares[i]);
  }
}

// How many blocks a processor must hold: as many as have registers without spilling.
template <class B, int kernel, Resample resample>
constexpr int together = kernel == 1 || resample == Resample::down ? 256 / B::threads
                         : B::threads < 256                        ? 384 / B::threads
                                                                   : 2;

// Grid: tiles of pixels, tiles of outputs, images.
template <class B, int kernel, Resample resample>
__global__ void __launch_bounds__(B::threads, together<B, kernel, resample>)
    convolveKernel(const __grid_constant__ Convolution c) {
  using W = Window<B, kernel, resample>;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32),
            pixelWarp = warp % B::pixelWarps, outputWarp = warp / B::pixelWarps;
  const int across = (c.outWidth() + tileColumns - 1) / tileColumns;
  const int y0 = static_cast<int>(blockIdx.x) / across * B::rows,
            x0 = static_cast<int>(blockIdx.x) % across * tileColumns;
  const int chunks = c.filter.chunks(), stages = chunks * kernel,
            superTiles = c.filter.paddedOutputs() / (16 * B::packedTiles),
            firstTile = static_cast<int>(blockIdx.y) * B::superTiles;
  uint16_t* const windows = reinterpret_cast<uint16_t*>(dynamicShared());
  uint16_t* const weights = windows + 2 * W::elements;
  float* const factors = reinterpret_cast<float*>(weights + 2 * W::stageElements);

  // Weights of a row of taps: contiguous for each super tile.
  const auto stream = [&](int stage) {
    constexpr int each = kernel * 2 * B::packedTiles * 32;  // pieces of 16 bytes
    for (int i = static_cast<int>(threadIdx.x); i < each * B::superTiles; i += B::threads) {
      const int tile = firstTile + i / each;
      const uint16_t* from =
          static_cast<const uint16_t*>(c.filter.data) +
          ((static_cast<ptrdiff_t>(tile < superTiles ? tile : 0) * stages + stage) * each + i % each) * 8;
      ptx::cpAsync16(weights + stage % 2 * W::stageElements + i * 8, from, tile < superTiles ? 16 : 0);
    }
    ptx::cpAsyncCommit();
  };
  stream(0);
  Fetch<B, kernel, resample> fetch(c, y0, x0);
  if (resample == Resample::none && c.scale) {
    for (int i = static_cast<int>(threadIdx.x); i < chunks * windowChannels; i += B::threads) {
      const bool there = i < c.filter.channels;
      const ptrdiff_t at = static_cast<ptrdiff_t>(blockIdx.z) * c.filter.channels + i;
      factors[i] = there ? c.scale[at] : 0.0f;
      factors[chunks * windowChannels + i] = there ? c.shift[at] : 0.0f;
    }
    __syncthreads();
  }
  for (int part = 0; part < kernel; part++) {
    fetch.ask(0, part);
    fetch.put(windows, factors, 0, part);
  }

  // Addresses of the lane's rows for ldmatrix: pixels of the first product in lanes 0 .. 15, of the second in the rest.
  const int warpTile = outputWarp * B::tiles;  // of the block
  const int py = pixelWarp * warpRows + lane / 16, px = lane % 8, half = lane / 8 % 2 * 8;
  float sum[B::tiles][4][4] = {};
  for (int stage = 0; stage < stages; stage++) {
    const int chunk = stage / kernel, ky = stage % kernel;
    const bool more = chunk + 1 < chunks;
    ptx::cpAsyncWait<0>();
    __syncthreads();
    if (stage + 1 < stages) stream(stage + 1);
    if (more) fetch.ask(chunk + 1, ky);
    __syncwarp();  // whatever branches were in that, what follows takes whole warps
    const uint16_t* window = windows + chunk % 2 * W::elements;
    const uint4* w = reinterpret_cast<const uint4*>(weights + stage % 2 * W::stageElements) +
                     (warpTile / B::packedTiles * (kernel * 2 * B::packedTiles) + warpTile % B::packedTiles) * 32 +
                     lane;
#pragma unroll
    for (int kx = 0; kx < kernel; kx++) {
      const uint16_t* row = window + (W::at(py, ky) * W::columns + W::at(px, kx)) * windowStride + half;
#pragma unroll
      for (int k = 0; k < 2; k++) {
        uint32_t b[2][4];
        ptx::ldmatrix_x4(b[0], row + 16 * k);
        ptx::ldmatrix_x4(b[1], row + W::twoRows * W::columns * windowStride + 16 * k);
#pragma unroll
        for (int i = 0; i < B::tiles; i++) {
          const uint4 v = w[((kx * 2 + k) * B::packedTiles + i) * 32];
          const uint32_t a[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const uint32_t pixels[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
            ptx::mma_m16n8k16_bf16(sum[i][j], a, pixels);
          }
        }
      }
    }
    if (more) fetch.put(windows + (chunk + 1) % 2 * W::elements, factors, chunk + 1, ky);
  }
  finish<B>(c, sum, firstTile * B::packedTiles + warpTile, y0 + pixelWarp * warpRows, x0);
}

template <class B, int kernel, Resample resample>
cudaError_t run(const Convolution& c, cudaStream_t stream) {
  const size_t tiles = static_cast<size_t>((c.outHeight() + B::rows - 1) / B::rows) *
                       static_cast<size_t>((c.outWidth() + tileColumns - 1) / tileColumns);
  if (tiles > 0x7fffffffu) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>((c.filter.outputs + B::outputs - 1) / B::outputs),
                  static_cast<unsigned>(c.images));
  return launch(convolveKernel<B, kernel, resample>, grid, B::threads,
                Window<B, kernel, resample>::bytes(c.filter.chunks()), stream, c);
}

template <class B>
cudaError_t runKind(const Convolution& c, cudaStream_t stream) {
  if (c.filter.kernel == 1) return run<B, 1, Resample::none>(c, stream);
  if (c.resample == Resample::up) return run<B, 3, Resample::up>(c, stream);
  return run<B, 3, Resample::none>(c, stream);
}

}  // namespace

cudaError_t convolve(const Convolution& c, cudaStream_t stream) {
  if (c.images < 1 || c.images > 65535 || c.height < 1 || c.width < 1 || c.outHeight() < 1 || c.outWidth() < 1 ||
      c.filter.channels < 1 || c.filter.outputs < 1 || (c.filter.kernel != 1 && c.filter.kernel != 3) ||
      (c.resample != Resample::none && (c.filter.kernel != 3 || c.scale)) || (c.swish && !c.scale) ||
      (c.floats && c.sums))
    return cudaErrorInvalidValue;
  if (c.filter.element == Element::float32) return convolvePlain(c, stream);
  // Small pictures: smaller blocks, so that more of the device has some, and smaller warps, so that a block has four.
  const size_t large = static_cast<size_t>((c.outHeight() + 15) / 16) * static_cast<size_t>((c.outWidth() + 7) / 8) *
                       static_cast<size_t>((c.filter.outputs + 127) / 128) * static_cast<size_t>(c.images);
  const bool small = c.blockPixels == 64 || (c.blockPixels != 128 && large < 128);
  if (c.resample ==
      Resample::down) {  // windows of twice the rows and columns: 64 pixels a block, or they would not fit
    if (c.filter.outputs <= 16) return run<Block<1, 1, 1, 4>, 3, Resample::down>(c, stream);
    if (small || c.filter.outputs <= 64) return run<Block<4, 2, 2, 2>, 3, Resample::down>(c, stream);
    return run<Block<4, 4, 2, 2>, 3, Resample::down>(c, stream);
  }
  if (c.filter.outputs <= 16) return runKind<Block<1, 1, 1, 4>>(c, stream);
  if (small) return runKind<Block<4, 2, 2, 2>>(c, stream);
  if (c.filter.outputs <= 64) return runKind<Block<4, 4, 1, 4>>(c, stream);
  return runKind<Block<4, 4, 2, 4>>(c, stream);
}

}  // namespace parvis::cuda::vq
