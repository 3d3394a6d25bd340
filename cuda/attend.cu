// Attention of a group of queries over the cache. Few heads and long caches leave most of a device idle, so the keys
// are split over blocks: a block has sixteen queries of one key/value head and 128 keys, a warp 32 of them. What the
// warps and then the blocks found is put together in order; the last block of a split to be done does it, so there is
// no second launch. How keys are split depends on the cache alone: a picture's bits do not depend on its batch.
//   S = Q K^T and O = P V by mma: queries (probabilities) are the A operand, keys and values the B operand.
#include "attend.cuh"

namespace parvis::cuda {

namespace {

constexpr int warps = 4, warpKeys = 32, span = warps * warpKeys, tileRows = tileQueries;
static_assert(span == attentionSpan);

template <int width>
struct TileShape {
  static constexpr int stride = width + 8;  // elements: rows start four banks apart, for ldmatrix
  static constexpr int queryElements = tileRows * stride, warpElements = 2 * warpKeys * stride;
  static constexpr size_t bytes = static_cast<size_t>(queryElements + warps * warpElements) * 2;
  static constexpr int partial = tileRows * (width + 2);  // floats: outputs, maxima, sums
  static_assert(warpKeys == 32 && partial % 4 == 0 &&
                static_cast<size_t>(tileRows * (width + 8)) * 4 <= static_cast<size_t>(warpElements) * 2);
};

// Four elements of a row's result, not yet divided, with the row's maximum and sum.
struct Merged {
  float4 output;
  float most, sum;
};

// Puts `count` parts of four elements together, in order. `load(i)` gives part i; those of `together` parts are under
// way at a time, and of no more than that many parts every number is read once.
template <int together, class Load>
__device__ inline Merged merge(int count, Load&& load) {
  Merged part[together], merged{make_float4(0, 0, 0, 0), noScore, 0};
#pragma unroll
  for (int i = 0; i < together; i++) part[i] = load(min(i, count - 1));
#pragma unroll
  for (int i = 0; i < together; i++) merged.most = fmaxf(merged.most, part[i].most);
  for (int i = together; i < count; i++) merged.most = fmaxf(merged.most, load(i).most);
  const auto add = [&](const Merged& p) {
    const float factor = ptx::exp2Fast(p.most - merged.most);
    merged.output.x += p.output.x * factor, merged.output.y += p.output.y * factor,
        merged.output.z += p.output.z * factor, merged.output.w += p.output.w * factor;
    merged.sum += p.sum * factor;
  };
#pragma unroll
  for (int i = 0; i < together; i++)
    if (i < count) add(part[i]);
  for (int i = together; i < count; i++) add(load(i));
  return merged;
}

template <int width>
__global__ void __launch_bounds__(warps * 32, 4) attendKernel(const __grid_constant__ Attention a, int splits) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  using S = TileShape<width>;
  PARVIS_SHARED(float, maxima, warps * tileRows);
  PARVIS_SHARED(float, sums, warps * tileRows);
  PARVIS_SHARED(int, isLast, 1);
  // Divisions that are most often by one or of nothing are not made: a dozen of them would be some of the launch's
  // time.
  const int tile = static_cast<int>(gridDim.x) == splits ? 0 : static_cast<int>(blockIdx.x) / splits,
            split = static_cast<int>(blockIdx.x) - tile * splits, kvHead = static_cast<int>(blockIdx.y);
  const StreamRows group = groupOf(a);
  const int stream = group.stream;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4,
            t = lane % 4;
  const Queries q(a, group, tile * tileRows);
  if (!q.wanted(a)) return;
  const int rows = min(tileRows, q.queries - q.first);  // of this tile
  const int seesOfLane = lane < rows ? a.rows.seenBy(q.row(lane)) : 0;
  int longest = seesOfLane;
  for (int bits = 16; bits > 0; bits /= 2) longest = max(longest, __shfl_xor_sync(fullWarp, longest, bits));
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
    ptx::cpAsync16(queries + m * S::stride + d, q.of<width>(a, kvHead, there ? m : 0) + d, there ? 16 : 0);
  }
  const int firstKey = split * span + warp * warpKeys;
  const auto fetch = [&](const void* cache, uint16_t* to) {
#pragma unroll
    for (int k = 0; k < pieces; k++) {  // as many for each lane as a row has
      const int i = 32 * k + lane, key = i / pieces, d = i % pieces * 8;
      const bool there = firstKey + key < longest;  // what lies behind may be anything
      ptx::cpAsync16(
          to + key * S::stride + d,
          cached<width>(a, cache, stream, kvHead) + static_cast<ptrdiff_t>(there ? firstKey + key : 0) * width + d,
          there ? 16 : 0);
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
    const int m = g + 8 * half, sees = __shfl_sync(fullWarp, seesOfLane, m);
    float most = noScore, sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float& v = s[i / 2][2 * half + i % 2];
      v = firstKey + i / 2 * 8 + 2 * t + i % 2 < sees ? v * scale : masked;
      most = fmaxf(v, most);
    }
    for (int bits = 1; bits < 4; bits *= 2) most = fmaxf(most, __shfl_xor_sync(fullWarp, most, bits));
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float& v = s[i / 2][2 * half + i % 2];
      v = ptx::exp2Fast(v - most);
      sum += v;
    }
    for (int bits = 1; bits < 4; bits *= 2) sum += __shfl_xor_sync(fullWarp, sum, bits);
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

  // The warps of the block: outputs [warps][16][width, and 8 so that rows meet all banks] over the keys and values.
  constexpr int outStride = width + 8, quads = width / 4;
  float* outputs = reinterpret_cast<float*>(queries + S::queryElements);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 4; r += 2)
    if (g + 4 * r < rows)
#pragma unroll
      for (int j = 0; j < width / 8; j++)
        storePair(outputs + (warp * tileRows + g + 4 * r) * outStride + 8 * j + 2 * t, o[j][r], o[j][r + 1]);
  __syncthreads();
  const auto write = [&](int m, int d, const Merged& v) {
    uint16_t* to = q.output(a, kvHead, m) + d;
    const float by = 1.0f / v.sum;
    if (d < a.headSize) storePair(to, v.output.x * by, v.output.y * by);
    if (d + 2 < a.headSize) storePair(to + 2, v.output.z * by, v.output.w * by);
  };
  const ptrdiff_t place = static_cast<ptrdiff_t>(group.tile + tile) * a.kvHeads + kvHead;
  float* partial = a.partial + place * splits * S::partial;  // [splits]: outputs [16][width], maxima [16], sums [16]
  for (int i = static_cast<int>(threadIdx.x); i < rows * quads; i += warps * 32) {
    const int m = i / quads, d = i % quads * 4;
    const Merged v = merge<warps>(warps, [&](int w) {
      return Merged{*reinterpret_cast<const float4*>(outputs + (w * tileRows + m) * outStride + d),
                    maxima[w * tileRows + m], sums[w * tileRows + m]};
    });
    if (active == 1) {
      write(m, d, v);
      continue;
    }
    float* to = partial + split * S::partial;
    *reinterpret_cast<float4*>(to + m * width + d) = v.output;
    if (d == 0) {
      to[tileRows * width + m] = v.most;
      to[tileRows * (width + 1) + m] = v.sum;
    }
  }
  if (active == 1) return;

  // The blocks of the split.
  __syncthreads();
  if (threadIdx.x == 0) *isLast = ptx::addAcquireRelease(a.counters + place, 1) == static_cast<uint32_t>(active - 1);
  __syncthreads();
  if (!*isLast) return;
  for (int i = static_cast<int>(threadIdx.x); i < rows * quads; i += warps * 32) {
    const int m = i / quads, d = i % quads * 4;
    write(m, d, merge<5>(active, [&](int part) {  // a picture of 576 tokens has five
            const float* from = partial + part * S::partial;
            return Merged{*reinterpret_cast<const float4*>(from + m * width + d), from[tileRows * width + m],
                          from[tileRows * (width + 1) + m]};
          }));
  }
  if (threadIdx.x == 0) a.counters[place] = 0;
}

int splitsOf(const Attention& a) { return (a.cache.slots + span - 1) / span; }
int tilesOf(const Attention& a) { return (a.maxQueries + tileRows - 1) / tileRows; }

template <int width>
cudaError_t run(const Attention& a, StepStream stream) {
  const dim3 grid(static_cast<unsigned>(tilesOf(a) * splitsOf(a)), static_cast<unsigned>(a.kvHeads),
                  static_cast<unsigned>(a.groupCount));
  return launchInStep(attendKernel<width>, grid, warps * 32, TileShape<width>::bytes, stream, a, splitsOf(a));
}

}  // namespace

cudaError_t attend(const Attention& a, StepStream stream) {
  if (!valid(a) || a.headSize % 2 != 0 || a.outStride % 2 != 0) return cudaErrorInvalidValue;
  return withWidth(a, [&](auto width) { return run<decltype(width)::value>(a, stream); });
}

}  // namespace parvis::cuda
