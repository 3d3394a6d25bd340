// Attention of a group of queries over the cache. Few heads and long caches leave most of a device idle, so the keys
// are split over blocks: a block has sixteen queries of one key/value head and 128 keys, a warp 32 of them. What the
// warps and then the blocks found is put together in order: through shared memory by the blocks themselves where they
// are a cluster, else through global memory by the last of them to be done, so there is no second launch. How keys are
// split depends on the cache alone: a picture's bits do not depend on its batch.
//   S = Q K^T and O = P V by mma: queries (probabilities) are the A operand, keys and values the B operand.
#include "attend.cuh"
#include "trace.cuh"

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
  static constexpr int outStride = width + 8;             // floats, so that rows meet all banks
  // Behind the queries: keys and values of the warps, then their outputs, and behind those what a block made of them.
  static_assert(warpKeys == 32 && partial % 4 == 0 &&
                static_cast<size_t>(warps * tileRows * outStride + partial) * 4 <=
                    static_cast<size_t>(warps * warpElements) * 2);
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

// early: keys and values of earlier steps are asked for before the wait (platform.cuh says when that is right).
template <int width, bool clustered, bool early>
__global__ void __launch_bounds__(warps * 32, 4) attendKernel(const __grid_constant__ Attention a, int splits) {
  Traced traced;
  using S = TileShape<width>;
  if constexpr (!early) {
    ptx::releaseDependents();
    ptx::dependencyWait();
    traced.waited();
  }
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
  const bool wanted = q.wanted(a);
  const int rows = wanted ? min(tileRows, q.queries - q.first) : 0;  // of this tile
  const int seesOfLane = lane < rows ? a.rows.seenBy(q.row(lane)) : 0;
  int longest = seesOfLane;
  for (int bits = 16; bits > 0; bits /= 2) longest = max(longest, __shfl_xor_sync(fullWarp, longest, bits));
  const bool idle = split * span >= longest;
  if (!early && idle) return;
  const int active = (longest + span - 1) / span;

  // Queries by all, keys and values by the warp that needs them.
  uint16_t* queries = reinterpret_cast<uint16_t*>(dynamicShared());
  uint16_t* keys = queries + S::queryElements + warp * S::warpElements;
  uint16_t* values = keys + warpKeys * S::stride;
  constexpr int pieces = width / 8;  // of 16 bytes a row
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
  };
  const auto fetchBoth = [&] {
    fetch(a.cache.keys, keys);
    ptx::cpAsyncCommit();
    fetch(a.cache.values, values);
    ptx::cpAsyncCommit();
  };
  bool fetched = false;
  if constexpr (early) {
    if (!idle) {
      bool isNew = false;  // this step writes some of the warp's keys
      for (int i = lane; i < group.count; i += 32) {
        const int slot = a.rows.slotOf(group.first + i) - firstKey;
        isNew |= slot >= 0 && slot < warpKeys;
      }
      fetched = !__any_sync(fullWarp, isNew);
      if (fetched) fetchBoth();
    }
    ptx::releaseDependents();
    ptx::dependencyWait();
    traced.waited();
    if (idle) return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < tileRows * pieces; i += warps * 32) {
    const int m = i / pieces, d = i % pieces * 8;
    const bool there = q.exists(m);
    ptx::cpAsync16(queries + m * S::stride + d, q.of<width>(a, kvHead, there ? m : 0) + d, there ? 16 : 0);
  }
  if (fetched) {
    ptx::cpAsyncCommit();
    ptx::cpAsyncWait<0>();
  } else {
    fetchBoth();  // the queries with the keys
    ptx::cpAsyncWait<1>();
  }
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

  // The warps of the block: outputs [warps][16][outStride] over the keys and values.
  constexpr int outStride = S::outStride, quads = width / 4;
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
  // A block's part: outputs [16][width], maxima [16], sums [16]; [splits] of them in global memory.
  float* const partial = a.partial + place * splits * S::partial;
  float* const own = outputs + warps * tileRows * outStride;  // where blocks are a cluster
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
    float* const to = clustered ? own : partial + split * S::partial;
    *reinterpret_cast<float4*>(to + m * width + d) = v.output;
    if (d == 0) {
      to[tileRows * width + m] = v.most;
      to[tileRows * (width + 1) + m] = v.sum;
    }
  }
  if (active == 1) return;

  // The blocks of the split.
  const auto put = [&](int i, auto&& load) {
    const int m = i / quads, d = i % quads * 4;
    write(m, d, merge<5>(active, [&](int part) {  // a picture of 576 tokens has five
            return Merged{load(part, m * width + d, float4()), load(part, tileRows * width + m, 0.0f),
                          load(part, tileRows * (width + 1) + m, 0.0f)};
          }));
  };
  if constexpr (clustered) {
    ptx::clusterBarrier();  // those that have no keys are gone, and nobody waits for them
    for (int i = split * warps * 32 + static_cast<int>(threadIdx.x); i < rows * quads; i += active * warps * 32)
      put(i, [&](int part, int at, auto as) {
        return ptx::loadCluster(reinterpret_cast<const decltype(as)*>(own + at), part);
      });
    ptx::clusterBarrier();  // nobody goes while its part is read
    return;
  }
  __syncthreads();
  if (threadIdx.x == 0) *isLast = ptx::addAcquireRelease(a.counters + place, 1) == static_cast<uint32_t>(active - 1);
  __syncthreads();
  if (!*isLast) return;
  for (int i = static_cast<int>(threadIdx.x); i < rows * quads; i += warps * 32)
    put(i, [&](int part, int at, auto as) {
      return *reinterpret_cast<const decltype(as)*>(partial + part * S::partial + at);
    });
  if (threadIdx.x == 0) a.counters[place] = 0;
}

int splitsOf(const Attention& a) { return (a.cache.slots + span - 1) / span; }
int tilesOf(const Attention& a) { return (a.maxQueries + tileRows - 1) / tileRows; }

template <int width>
cudaError_t run(const Attention& a, StepStream stream) {
  const int splits = splitsOf(a);
  const dim3 grid(static_cast<unsigned>(tilesOf(a) * splits), static_cast<unsigned>(a.kvHeads),
                  static_cast<unsigned>(a.groupCount));
  const bool early = stream.overlap && stream.tuning.earlyKeys;
  const auto as = [&](auto kernel, unsigned cluster) {
    return launchInStep(kernel, grid, warps * 32, TileShape<width>::bytes, stream.inClusters(cluster), a, splits);
  };
  if (stream.tuning.clusters && splits > 1 && splits <= maxCluster && knowsClusters(attendKernel<width, true, false>))
    return as(early ? attendKernel<width, true, true> : attendKernel<width, true, false>,
              static_cast<unsigned>(splits));
  return as(early ? attendKernel<width, false, true> : attendKernel<width, false, false>, 1);
}

}  // namespace

#if defined(PARVIS_TRACE)
cudaError_t traceAttention(const TraceLog& log) { return traceInto(log); }
#endif

cudaError_t attend(const Attention& a, StepStream stream) {
  if (!valid(a) || a.headSize % 2 != 0 || a.outStride % 2 != 0) return cudaErrorInvalidValue;
  return withWidth(a, [&](auto width) { return run<decltype(width)::value>(a, stream); });
}

}  // namespace parvis::cuda
