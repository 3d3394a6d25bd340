// Attention of a group of queries over the cache. Few heads and long caches leave most of a device idle, so the keys are
// split over blocks: a block has sixteen queries of one key/value head and 128 keys, a warp 32 of them. What the warps and
// then the blocks found is put together in order; the last block of a split to be done does it, so there is no second
// launch. How keys are split depends on the cache alone: a picture's bits do not depend on its batch.
//   S = Q K^T and O = P V by mma: queries (probabilities) are the A operand, keys and values the B operand.
#include "attend.cuh"

namespace parvis::cuda {

namespace {

constexpr uint32_t all = 0xffffffffu;
constexpr int warps = 4, warpKeys = 32, span = warps * warpKeys, tileRows = 16;

template <int width>
struct Shape {
  static constexpr int stride = width + 8;  // elements: rows start four banks apart, for ldmatrix
  static constexpr int queryElements = tileRows * stride, warpElements = 2 * warpKeys * stride;
  static constexpr size_t bytes = static_cast<size_t>(queryElements + warps * warpElements) * 2;
  static constexpr int partial = tileRows * (width + 2);  // floats: outputs, maxima, sums
  static_assert(static_cast<size_t>(warps * tileRows * width) * 4 <= static_cast<size_t>(warps * warpElements) * 2);
};

// A row's part of the result: outputs o (not yet divided) with their maximum and sum, from `parts` places in order.
template <int width, class Load>
__device__ void merge(int parts, int m, int d, float& output, float& most, float& sum, Load&& load) {
  most = noScore;
  for (int i = 0; i < parts; i++) {
    const float v = load(i, tileRows * width + m);
    most = v > most ? v : most;
  }
  output = sum = 0;
  for (int i = 0; i < parts; i++) {
    const float factor = ptx::exp2Fast(load(i, tileRows * width + m) - most);
    output += load(i, m * width + d) * factor;
    sum += load(i, tileRows * (width + 1) + m) * factor;
  }
}

template <int width>
__global__ void __launch_bounds__(warps * 32) attendKernel(const __grid_constant__ Attention a, int splits) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  using S = Shape<width>;
  PARVIS_SHARED(float, maxima, warps * tileRows);
  PARVIS_SHARED(float, sums, warps * tileRows);
  PARVIS_SHARED(int, isLast, 1);
  const int split = static_cast<int>(blockIdx.x) % splits, tile = static_cast<int>(blockIdx.x) / splits, kvHead = static_cast<int>(blockIdx.y), stream = static_cast<int>(blockIdx.z);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4, t = lane % 4;
  const Queries q(a, tile * tileRows);
  const int rows = min(tileRows, q.count * q.group - q.first);  // of this tile
  int longest = lane < rows ? a.rows.at(q.row(lane)).sees : 0;
  for (int bits = 16; bits > 0; bits /= 2) longest = max(longest, __shfl_xor_sync(all, longest, bits));
  if (split * span >= longest) return;
  const int active = (longest + span - 1) / span;

  // Queries by all, keys and values by the warp that needs them.
  uint16_t* queries = reinterpret_cast<uint16_t*>(dynamicShared());
  uint16_t* keys = queries + S::queryElements + warp * S::warpElements;
  uint16_t* values = keys + warpKeys * S::stride;
  constexpr int pieces = width / 8;  // of 16 bytes a row
  for (int i = static_cast<int>(threadIdx.x); i < tileRows * pieces; i += warps * 32) {
    const int m = i / pieces, d = i % pieces * 8;
    const bool there = q.exists(m);
    ptx::cpAsync16(queries + m * S::stride + d, q.of<width>(a, stream, kvHead, there ? m : 0) + d, there ? 16 : 0);
  }
  const int firstKey = split * span + warp * warpKeys;
  const auto fetch = [&](const void* cache, uint16_t* to) {
    for (int i = lane; i < warpKeys * pieces; i += 32) {
      const int key = i / pieces, d = i % pieces * 8;
      const bool there = firstKey + key < longest;  // what lies behind may be anything
      ptx::cpAsync16(to + key * S::stride + d, cached<width>(a, cache, stream, kvHead) + static_cast<ptrdiff_t>(there ? firstKey + key : 0) * width + d, there ? 16 : 0);
    }
    ptx::cpAsyncCommit();
  };
  fetch(a.cache.keys, keys);
  fetch(a.cache.values, values);
  ptx::cpAsyncWait<1>();
  __syncthreads();

  // Scores of 16 queries and 32 keys.
  float s[4][4] = {};
#pragma unroll
  for (int d = 0; d < width; d += 16) {
    uint32_t fq[4];
    ptx::ldmatrix_x4(fq, queries + lane % 16 * S::stride + d + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < 2; j++) {
      uint32_t fk[4];
      ptx::ldmatrix_x4(fk, keys + (16 * j + lane % 8 + lane / 16 * 8) * S::stride + d + lane / 8 % 2 * 8);
      const uint32_t low[2] = {fk[0], fk[1]}, high[2] = {fk[2], fk[3]};
      ptx::mma_m16n8k16_bf16(s[2 * j], fq, low);
      ptx::mma_m16n8k16_bf16(s[2 * j + 1], fq, high);
    }
  }
  const float scale = scoreScale(a);
  uint32_t p[2][4];  // the A operand of the second product, for 16 keys each
#pragma unroll
  for (int half = 0; half < 2; half++) {  // queries g and g + 8
    const int m = g + 8 * half, sees = q.exists(m) ? a.rows.at(q.row(m)).sees : 0;
    float most = noScore, sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float& v = s[i / 2][2 * half + i % 2];
      v = firstKey + i / 2 * 8 + 2 * t + i % 2 < sees ? v * scale : noScore;
      most = v > most ? v : most;
    }
    for (int bits = 1; bits < 4; bits *= 2) most = fmaxf(most, __shfl_xor_sync(all, most, bits));
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float& v = s[i / 2][2 * half + i % 2];
      v = v > noScore ? ptx::exp2Fast(v - most) : 0.0f;
      sum += v;
    }
    for (int bits = 1; bits < 4; bits *= 2) sum += __shfl_xor_sync(all, sum, bits);
    if (t == 0) {
      maxima[warp * tileRows + m] = most;
      sums[warp * tileRows + m] = sum;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) p[j / 2][half + j % 2 * 2] = ptx::packBf16(s[j][2 * half], s[j][2 * half + 1]);
  }

  ptx::cpAsyncWait<0>();
  __syncwarp();
  float o[width / 8][4] = {};
#pragma unroll
  for (int d = 0; d < width; d += 16)
#pragma unroll
    for (int j = 0; j < 2; j++) {
      uint32_t fv[4];
      ptx::ldmatrix_x4_trans(fv, values + (16 * j + lane % 16) * S::stride + d + lane / 16 * 8);
      const uint32_t low[2] = {fv[0], fv[1]}, high[2] = {fv[2], fv[3]};
      ptx::mma_m16n8k16_bf16(o[d / 8], p[j], low);
      ptx::mma_m16n8k16_bf16(o[d / 8 + 1], p[j], high);
    }

  // The warps of the block: outputs [warps][16][width] over the keys and values.
  float* outputs = reinterpret_cast<float*>(queries + S::queryElements);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < width / 8; j++)
    for (int r = 0; r < 4; r += 2) storePair(outputs + (warp * tileRows + g + 4 * r) * width + 8 * j + 2 * t, o[j][r], o[j][r + 1]);
  __syncthreads();
  const auto ofWarp = [&](int i, int at) {
    return at < tileRows * width ? outputs[i * tileRows * width + at] : at < tileRows * (width + 1) ? maxima[i * tileRows + at - tileRows * width] : sums[i * tileRows + at - tileRows * (width + 1)];
  };
  const auto write = [&](int m, int d, float output, float sum) {
    if (d < a.headSize) storeElement(q.output(a, stream, kvHead, m) + d, output * (1.0f / sum));
  };
  const ptrdiff_t place = (static_cast<ptrdiff_t>(stream) * a.kvHeads + kvHead) * (gridDim.x / static_cast<unsigned>(splits)) + tile;
  float* partial = a.partial + place * splits * S::partial;
  float output, most, sum;
  for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += warps * 32) {  // rows that are not there cost as much as others
    const int m = i / width, d = i % width;
    merge<width>(warps, m, d, output, most, sum, ofWarp);
    if (active == 1) {
      write(m, d, output, sum);
      continue;
    }
    float* to = partial + split * S::partial;
    to[i] = output;
    if (d == 0) {
      to[tileRows * width + m] = most;
      to[tileRows * (width + 1) + m] = sum;
    }
  }
  if (active == 1) return;

  // The blocks of the split.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) *isLast = atomicAdd(a.counters + place, 1u) == static_cast<uint32_t>(active - 1);
  __syncthreads();
  if (!*isLast) return;
  __threadfence();
  for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += warps * 32) {
    merge<width>(active, i / width, i % width, output, most, sum, [&](int part, int at) { return partial[part * S::partial + at]; });
    write(i / width, i % width, output, sum);
  }
  if (threadIdx.x == 0) a.counters[place] = 0;
}

int splitsOf(const Attention& a) { return (a.cache.slots + span - 1) / span; }
int tilesOf(const Attention& a) { return (a.rows.count * (a.heads / a.kvHeads) + tileRows - 1) / tileRows; }

template <int width>
cudaError_t run(const Attention& a, StepStream stream) {
  const dim3 grid(static_cast<unsigned>(tilesOf(a) * splitsOf(a)), static_cast<unsigned>(a.kvHeads), static_cast<unsigned>(a.streams));
  return launchInStep(attendKernel<width>, grid, warps * 32, Shape<width>::bytes, stream, a, splitsOf(a));
}

}  // namespace

size_t attentionCounters(const Attention& a) { return static_cast<size_t>(a.streams) * static_cast<size_t>(a.kvHeads) * static_cast<size_t>(tilesOf(a)); }
size_t attentionPartials(const Attention& a) {
  return attentionCounters(a) * static_cast<size_t>(splitsOf(a)) * static_cast<size_t>(tileRows * (paddedHead(a.headSize) + 2));
}

cudaError_t attend(const Attention& a, StepStream stream) {
  if (!possible(a)) return cudaErrorInvalidValue;
  return withWidth(a, [&](auto width) { return run<decltype(width)::value>(a, stream); });
}

}  // namespace parvis::cuda
