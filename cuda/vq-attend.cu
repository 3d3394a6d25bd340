// Attention of a picture with itself: one head as wide as the picture has channels, and as many keys as it has cells.
// Scores are never in memory: a block has 32 queries and lets all keys pass by, 32 at a time, and softmax is put
// together on the way, so that a grid of 512 x 512 needs no more memory than one of 24 x 24. Keys and values are
// fetched one step ahead.
//   S = Q K^T: a warp has 16 queries and 8 keys. O = P V: a warp has all queries and an eighth of the channels.
// 512 channels must fit into the 99 KB that small devices have: queries, keys and values take 96, so rows are swizzled,
// not padded, and scores stay in registers; of them only the largest of each warp, and the chances, go through shared
// memory. The plain kernel does the same in float32 with eight queries a block, for checks.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

constexpr int warps = 8, threads = warps * 32, tile = 32;  // tile: queries, and keys

__device__ inline float sumLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(fullWarp, v, bits);
  return v;
}
__device__ inline float maxOfLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v = fmaxf(v, __shfl_xor_sync(fullWarp, v, bits));
  return v;
}

constexpr int keyWarps = 4;  // that share 16 queries

template <int width>
struct TileShape {
  static constexpr int rowElements = tile * width;
  static constexpr size_t bytes =
      static_cast<size_t>(3 * rowElements + tile * tile) * 2 + static_cast<size_t>(tile * keyWarps + tile) * 4;
  static_assert(width % 64 == 0 && bytes <= 99 << 10);
};

// Where 16 bytes of a row lie, in elements from its beginning: the pieces change places for ldmatrix to meet all banks.
__device__ inline int swizzled(int row, int piece) { return (piece ^ row % 8) * 8; }
__device__ inline int chanceAt(int row, int piece) { return row * tile + (piece ^ row / 2 % 4) * 8; }

// Grid: tiles of queries, images.
template <int width>
__global__ void __launch_bounds__(threads) attendKernel(const __grid_constant__ SelfAttention a) {
  using S = TileShape<width>;
  uint16_t* const queries = reinterpret_cast<uint16_t*>(dynamicShared());  // [tile][width], as are keys and values
  uint16_t* const keys = queries + S::rowElements;
  uint16_t* const values = keys + S::rowElements;
  uint16_t* const chances = values + S::rowElements;  // [tile][tile]
  float* const parts =
      reinterpret_cast<float*>(chances + tile * tile);  // [tile][keyWarps]: a warp's maxima; in the end, its sums
  float* const factors = parts + tile * keyWarps;       // [tile]
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4,
            t = lane % 4;
  const int keyWarp = warp % keyWarps,
            upperRow = warp / keyWarps * 16 + g;  // of S the lane has this row and the eighth after it
  const int stride = pictureStride(a.channels), firstQuery = static_cast<int>(blockIdx.x) * tile;
  const ptrdiff_t image = static_cast<ptrdiff_t>(blockIdx.y) * a.positions * stride;

  const auto fetch = [&](const void* from, uint16_t* to, int first) {
    constexpr int pieces = width / 8;  // of 16 bytes a row
#pragma unroll 2  // the swizzle comes again after two at most; more would take registers that are not there
    for (int i = static_cast<int>(threadIdx.x); i < tile * pieces; i += threads) {
      const int row = i / pieces, d = i % pieces * 8;
      const bool there = first + row < a.positions && d < stride;
      ptx::cpAsync16(
          to + row * width + swizzled(row, d / 8),
          static_cast<const uint16_t*>(from) + (there ? image + static_cast<ptrdiff_t>(first + row) * stride + d : 0),
          there ? 16 : 0);
    }
  };
  fetch(a.queries, queries, firstQuery);
  fetch(a.keys, keys, 0);
  ptx::cpAsyncCommit();

  const float scale = 1.44269504f / sqrtf(static_cast<float>(a.channels));
  constexpr int channelTiles = width / warps / 8;
  float o[2][channelTiles][4] = {}, most[2] = {noScore, noScore},
        sum[2] = {};  // most: of all keys so far; sum: of the lane's
  for (int first = 0; first < a.positions; first += tile) {
    ptx::cpAsyncWait<0>();
    __syncthreads();
    fetch(a.values, values, first);
    ptx::cpAsyncCommit();

    const uint16_t* query = queries + (warp / keyWarps * 16 + lane % 16) * width;
    const uint16_t* key = keys + (keyWarp * 8 + lane % 8) * width;
    float s[2][4] = {};
#pragma unroll 2
    for (int d = 0; d < width; d += 64)
#pragma unroll
      for (int piece = 0; piece < 8; piece += 4) {
        uint32_t fq[2][4], fk[4];
        ptx::ldmatrix_x4(fq[0], query + d + swizzled(lane, piece + lane / 16));
        ptx::ldmatrix_x4(fq[1], query + d + swizzled(lane, piece + 2 + lane / 16));
        ptx::ldmatrix_x4(fk, key + d + swizzled(lane, piece + lane / 8));
        const uint32_t low[2] = {fk[0], fk[1]}, high[2] = {fk[2], fk[3]};
        ptx::mma_m16n8k16_bf16(s[0], fq[0], low);
        ptx::mma_m16n8k16_bf16(s[1], fq[1], high);
      }
    const int column = first + keyWarp * 8 + 2 * t;
    float v[2][2];  // [row][column]
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int c = 0; c < 2; c++)
        v[i][c] = column + c < a.positions ? (s[0][2 * i + c] + s[1][2 * i + c]) * scale : masked;
      float m = fmaxf(v[i][0], v[i][1]);
      for (int bits = 1; bits < 4; bits *= 2) m = fmaxf(m, __shfl_xor_sync(fullWarp, m, bits));
      if (t == 0) parts[(upperRow + 8 * i) * keyWarps + keyWarp] = m;
    }
    __syncthreads();
    if (first + tile < a.positions) fetch(a.keys, keys, first + tile);
    ptx::cpAsyncCommit();

#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = upperRow + 8 * i;
      const float4 m = *reinterpret_cast<const float4*>(parts + row * keyWarps);
      const float before = most[i];
      most[i] = fmaxf(before, fmaxf(fmaxf(m.x, m.y), fmaxf(m.z, m.w)));
      const float factor = ptx::exp2Fast(before - most[i]), p0 = ptx::exp2Fast(v[i][0] - most[i]),
                  p1 = ptx::exp2Fast(v[i][1] - most[i]);  // 0 where no key is
      sum[i] = sum[i] * factor + (p0 + p1);
      storePair(chances + chanceAt(row, keyWarp) + 2 * t, p0, p1);
      if (keyWarp == 0 && t == 0) factors[row] = factor;
    }
    ptx::cpAsyncWait<1>();
    __syncthreads();

    uint32_t p[2][2][4];
#pragma unroll
    for (int m = 0; m < 2; m++) {
      const float upper = factors[16 * m + g], lower = factors[16 * m + g + 8];
#pragma unroll
      for (int j = 0; j < channelTiles; j++) {
        o[m][j][0] *= upper;
        o[m][j][1] *= upper;
        o[m][j][2] *= lower;
        o[m][j][3] *= lower;
      }
#pragma unroll
      for (int k = 0; k < 2; k++) ptx::ldmatrix_x4(p[m][k], chances + chanceAt(16 * m + lane % 16, 2 * k + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < channelTiles; j += 2)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        uint32_t fv[4];
        ptx::ldmatrix_x4_trans(
            fv, values + (16 * k + lane % 16) * width + swizzled(lane, warp * channelTiles + j + lane / 16));
        const uint32_t low[2] = {fv[0], fv[1]}, high[2] = {fv[2], fv[3]};
#pragma unroll
        for (int m = 0; m < 2; m++) {
          ptx::mma_m16n8k16_bf16(o[m][j], p[m][k], low);
          ptx::mma_m16n8k16_bf16(o[m][j + 1], p[m][k], high);
        }
      }
  }

#pragma unroll
  for (int i = 0; i < 2; i++) {
    for (int bits = 1; bits < 4; bits *= 2) sum[i] += __shfl_xor_sync(fullWarp, sum[i], bits);
    if (t == 0) parts[(upperRow + 8 * i) * keyWarps + keyWarp] = sum[i];
  }
  __syncthreads();
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = 16 * m + g + 8 * half;
      if (firstQuery + row >= a.positions) continue;
      uint16_t* out = static_cast<uint16_t*>(a.out) + image + static_cast<ptrdiff_t>(firstQuery + row) * stride;
      const float4 sums = *reinterpret_cast<const float4*>(parts + row * keyWarps);
      const float inverse = 1.0f / ((sums.x + sums.y) + (sums.z + sums.w));
#pragma unroll
      for (int j = 0; j < channelTiles; j++) {
        const int channel = warp * (width / warps) + 8 * j + 2 * t;
        if (channel < stride) storePair(out + channel, o[m][j][2 * half] * inverse, o[m][j][2 * half + 1] * inverse);
      }
    }
}

// A warp a query for the scores; a thread has channels thread, thread + 256 of all eight queries for the outputs.
__global__ void __launch_bounds__(threads) attendPlainKernel(const __grid_constant__ SelfAttention a) {
  PARVIS_SHARED(float, chances, warps * tile);
  PARVIS_SHARED(float, factors, warps);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32),
            stride = pictureStride(a.channels), firstQuery = static_cast<int>(blockIdx.x) * warps;
  const ptrdiff_t image = static_cast<ptrdiff_t>(blockIdx.y) * a.positions * stride;
  float* const queries = reinterpret_cast<float*>(dynamicShared());
  float* const keys = queries + warps * stride;  // rows stride + 1 apart
  const auto fetch = [&](const void* from, float* to, int toStride, int first, int rows) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * stride; i += threads) {
      const int row = i / stride;
      to[row * toStride + i % stride] =
          first + row < a.positions
              ? static_cast<const float*>(from)[image + static_cast<ptrdiff_t>(first) * stride + i]
              : 0.0f;
    }
  };
  fetch(a.queries, queries, stride, firstQuery, warps);
  const float scale = 1.44269504f / sqrtf(static_cast<float>(a.channels));
  float o[2][warps] = {}, most = noScore, sum = 0;
  for (int first = 0; first < a.positions; first += tile) {
    fetch(a.keys, keys, stride + 1, first, tile);  // what they replace was read before the last barrier
    __syncthreads();
    const bool there = first + lane < a.positions;
    float score = 0;
    for (int d = 0; d < a.channels; d++) score = fmaf(queries[warp * stride + d], keys[lane * (stride + 1) + d], score);
    score = there ? score * scale : masked;
    const float before = most;
    most = fmaxf(most, maxOfLanes(score));
    const float p = there ? exp2f(score - most) : 0.0f, factor = exp2f(before - most);
    sum = sum * factor + sumLanes(p);
    chances[warp * tile + lane] = p;
    if (lane == 0) factors[warp] = factor;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int channel = static_cast<int>(threadIdx.x) + i * threads;
      if (channel >= stride) break;
#pragma unroll
      for (int q = 0; q < warps; q++) o[i][q] *= factors[q];
      for (int k = 0; k < tile && first + k < a.positions; k++) {
        const float v =
            static_cast<const float*>(a.values)[image + static_cast<ptrdiff_t>(first + k) * stride + channel];
#pragma unroll
        for (int q = 0; q < warps; q++) o[i][q] = fmaf(chances[q * tile + k], v, o[i][q]);
      }
    }
  }
  __syncthreads();
  if (lane == 0) factors[warp] = 1.0f / sum;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int q = 0; q < warps; q++) {
      const int channel = static_cast<int>(threadIdx.x) + i * threads;
      if (channel < stride && firstQuery + q < a.positions)
        static_cast<float*>(a.out)[image + static_cast<ptrdiff_t>(firstQuery + q) * stride + channel] =
            o[i][q] * factors[q];
    }
}

template <int width>
cudaError_t run(const SelfAttention& a, cudaStream_t stream) {
  return launch(attendKernel<width>,
                dim3(static_cast<unsigned>((a.positions + tile - 1) / tile), static_cast<unsigned>(a.images)), threads,
                TileShape<width>::bytes, stream, a);
}

}  // namespace

cudaError_t attend(const SelfAttention& a, cudaStream_t stream) {
  if (a.images < 1 || a.images > 65535 || a.positions < 1 || a.channels < 1 || a.channels > maxAttentionChannels)
    return cudaErrorInvalidValue;
  if (a.element == Element::float32) {
    const int stride = pictureStride(a.channels);
    return launch(attendPlainKernel,
                  dim3(static_cast<unsigned>((a.positions + warps - 1) / warps), static_cast<unsigned>(a.images)),
                  threads, static_cast<size_t>(warps * stride + tile * (stride + 1)) * 4, stream, a);
  }
  if (a.channels <= 128) return run<128>(a, stream);
  return a.channels <= 256 ? run<256>(a, stream) : run<512>(a, stream);
}

}  // namespace parvis::cuda::vq
