// Attention of a picture with itself: one head as wide as the picture has channels, and as many keys as it has cells. Scores
// are never in memory: a block has 32 queries and lets all keys pass by, 32 at a time, and softmax is put together on the
// way, so that a grid of 512 x 512 needs no more memory than one of 24 x 24. Keys and values are fetched one step ahead.
//   S = Q K^T: a warp has 16 queries and 8 keys. O = P V: a warp has all queries and an eighth of the channels.
// The plain kernel does the same in float32 with eight queries a block, for checks.
#include "elements.cuh"
#include "vq.cuh"

namespace parvis::cuda::vq {

namespace {

constexpr uint32_t all = 0xffffffffu;
constexpr int warps = 8, threads = warps * 32, tile = 32;  // tile: queries, and keys
constexpr float none = -1e30f;                           // a maximum of nothing; finite, so that differences are

__device__ inline float sumLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(all, v, bits);
  return v;
}
__device__ inline float mostOfLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v = fmaxf(v, __shfl_xor_sync(all, v, bits));
  return v;
}

template <int width>
struct Shape {
  static constexpr int stride = width + 8, scoreStride = tile + 4, chanceStride = tile + 8;  // elements
  static constexpr size_t bytes = static_cast<size_t>(3 * tile * stride + tile * chanceStride) * 2 + static_cast<size_t>(tile * scoreStride + tile) * 4;
};

// Grid: tiles of queries, images.
template <int width>
__global__ void __launch_bounds__(threads) attendKernel(const __grid_constant__ SelfAttention a) {
  using S = Shape<width>;
  uint16_t* const queries = reinterpret_cast<uint16_t*>(dynamicShared());
  uint16_t* const keys = queries + tile * S::stride;
  uint16_t* const values = keys + tile * S::stride;
  uint16_t* const chances = values + tile * S::stride;
  float* const scores = reinterpret_cast<float*>(chances + tile * S::chanceStride);
  float* const factors = scores + tile * S::scoreStride;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4, t = lane % 4;
  const int stride = pictureStride(a.channels), firstQuery = static_cast<int>(blockIdx.x) * tile;
  const ptrdiff_t image = static_cast<ptrdiff_t>(blockIdx.y) * a.positions * stride;

  const auto fetch = [&](const void* from, uint16_t* to, int first) {
    constexpr int pieces = width / 8;  // of 16 bytes a row
    for (int i = static_cast<int>(threadIdx.x); i < tile * pieces; i += threads) {
      const int row = i / pieces, d = i % pieces * 8;
      const bool there = first + row < a.positions && d < stride;
      ptx::cpAsync16(to + row * S::stride + d, static_cast<const uint16_t*>(from) + (there ? image + static_cast<ptrdiff_t>(first + row) * stride + d : 0), there ? 16 : 0);
    }
  };
  fetch(a.queries, queries, firstQuery);
  fetch(a.keys, keys, 0);
  ptx::cpAsyncCommit();

  const float scale = 1.44269504f / sqrtf(static_cast<float>(a.channels));
  constexpr int channelTiles = width / warps / 8;
  float o[2][channelTiles][4] = {}, most[4], sum[4] = {};  // most, sum: of queries 4 warp ..
  for (float& m : most) m = none;
  for (int first = 0; first < a.positions; first += tile) {
    ptx::cpAsyncWait<0>();
    __syncthreads();
    fetch(a.values, values, first);
    ptx::cpAsyncCommit();

    const uint16_t* query = queries + (warp / 4 * 16 + lane % 16) * S::stride + lane / 16 * 8;
    const uint16_t* key = keys + (warp % 4 * 8 + lane % 8) * S::stride + lane / 8 * 8;
    float s[2][4] = {};
#pragma unroll 4
    for (int d = 0; d < width; d += 32) {
      uint32_t fq[2][4], fk[4];
      ptx::ldmatrix_x4(fq[0], query + d);
      ptx::ldmatrix_x4(fq[1], query + d + 16);
      ptx::ldmatrix_x4(fk, key + d);
      const uint32_t low[2] = {fk[0], fk[1]}, high[2] = {fk[2], fk[3]};
      ptx::mma_m16n8k16_bf16(s[0], fq[0], low);
      ptx::mma_m16n8k16_bf16(s[1], fq[1], high);
    }
    float* score = scores + (warp / 4 * 16 + g) * S::scoreStride + warp % 4 * 8 + 2 * t;
    storePair(score, (s[0][0] + s[1][0]) * scale, (s[0][1] + s[1][1]) * scale);
    storePair(score + 8 * S::scoreStride, (s[0][2] + s[1][2]) * scale, (s[0][3] + s[1][3]) * scale);
    __syncthreads();
    if (first + tile < a.positions) fetch(a.keys, keys, first + tile);
    ptx::cpAsyncCommit();

#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = 4 * warp + i;
      const bool there = first + lane < a.positions;
      const float v = there ? scores[row * S::scoreStride + lane] : none, before = most[i];
      most[i] = fmaxf(before, mostOfLanes(v));
      const float p = there ? ptx::exp2Fast(v - most[i]) : 0.0f, factor = ptx::exp2Fast(before - most[i]);
      sum[i] = sum[i] * factor + sumLanes(p);
      storeElement(chances + row * S::chanceStride + lane, p);
      if (lane == 0) factors[row] = factor;
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
      for (int k = 0; k < 2; k++) ptx::ldmatrix_x4(p[m][k], chances + (16 * m + lane % 16) * S::chanceStride + 16 * k + lane / 16 * 8);
    }
#pragma unroll
    for (int j = 0; j < channelTiles; j += 2)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        uint32_t fv[4];
        ptx::ldmatrix_x4_trans(fv, values + (16 * k + lane % 16) * S::stride + warp * (width / warps) + 8 * j + lane / 16 * 8);
        const uint32_t low[2] = {fv[0], fv[1]}, high[2] = {fv[2], fv[3]};
#pragma unroll
        for (int m = 0; m < 2; m++) {
          ptx::mma_m16n8k16_bf16(o[m][j], p[m][k], low);
          ptx::mma_m16n8k16_bf16(o[m][j + 1], p[m][k], high);
        }
      }
  }

  __syncthreads();
  if (lane < 4) {
    float mine = sum[0];
    for (int i = 1; i < 4; i++) mine = lane == i ? sum[i] : mine;
    factors[4 * warp + lane] = 1.0f / mine;
  }
  __syncthreads();
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = 16 * m + g + 8 * half;
      if (firstQuery + row >= a.positions) continue;
      uint16_t* out = static_cast<uint16_t*>(a.out) + image + static_cast<ptrdiff_t>(firstQuery + row) * stride;
      const float inverse = factors[row];
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
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), stride = pictureStride(a.channels), firstQuery = static_cast<int>(blockIdx.x) * warps;
  const ptrdiff_t image = static_cast<ptrdiff_t>(blockIdx.y) * a.positions * stride;
  float* const queries = reinterpret_cast<float*>(dynamicShared());
  float* const keys = queries + warps * stride;  // rows stride + 1 apart
  const auto fetch = [&](const void* from, float* to, int toStride, int first, int rows) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * stride; i += threads) {
      const int row = i / stride;
      to[row * toStride + i % stride] = first + row < a.positions ? static_cast<const float*>(from)[image + static_cast<ptrdiff_t>(first) * stride + i] : 0.0f;
    }
  };
  fetch(a.queries, queries, stride, firstQuery, warps);
  const float scale = 1.44269504f / sqrtf(static_cast<float>(a.channels));
  float o[2][warps] = {}, most = none, sum = 0;
  for (int first = 0; first < a.positions; first += tile) {
    fetch(a.keys, keys, stride + 1, first, tile);  // what they replace was read before the last barrier
    __syncthreads();
    const bool there = first + lane < a.positions;
    float score = 0;
    for (int d = 0; d < a.channels; d++) score = fmaf(queries[warp * stride + d], keys[lane * (stride + 1) + d], score);
    score = there ? score * scale : none;
    const float before = most;
    most = fmaxf(most, mostOfLanes(score));
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
        const float v = static_cast<const float*>(a.values)[image + static_cast<ptrdiff_t>(first + k) * stride + channel];
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
      if (channel < stride && firstQuery + q < a.positions) static_cast<float*>(a.out)[image + static_cast<ptrdiff_t>(firstQuery + q) * stride + channel] = o[i][q] * factors[q];
    }
}

template <int width>
cudaError_t run(const SelfAttention& a, cudaStream_t stream) {
  return launch(attendKernel<width>, dim3(static_cast<unsigned>((a.positions + tile - 1) / tile), static_cast<unsigned>(a.images)), threads, Shape<width>::bytes, stream, a);
}

}  // namespace

cudaError_t attend(const SelfAttention& a, cudaStream_t stream) {
  if (a.images < 1 || a.images > 65535 || a.positions < 1 || a.channels < 1 || a.channels > mostAttentionChannels) return cudaErrorInvalidValue;
  if (a.element == Element::float32) {
    const int stride = pictureStride(a.channels);
    return launch(attendPlainKernel, dim3(static_cast<unsigned>((a.positions + warps - 1) / warps), static_cast<unsigned>(a.images)), threads,
                  static_cast<size_t>(warps * stride + tile * (stride + 1)) * 4, stream, a);
  }
  if (a.channels <= 128) return run<128>(a, stream);
  return a.channels <= 256 ? run<256>(a, stream) : run<512>(a, stream);
}

}  // namespace parvis::cuda::vq
