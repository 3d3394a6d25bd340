// Attention of many queries: full sequences under a mask of prefixes, and large groups. There are blocks enough without
// splitting the keys, so a block goes over them all: 64 queries of one key/value head, sixteen a warp, against 64 keys
// at a time, with the next keys and values on their way and a running maximum; no memory beside the output. It ends at
// the longest prefix of its queries, a warp at that of its own, and only tiles at the end of a prefix are masked.
// Rounding differs from attend.cu's, which sums in other pieces: scoring and sampling are not compared bit for bit.
// What a row gets depends on the row and its prefix alone: tiles behind it change nothing.
#include "attend.cuh"

namespace parvis::cuda {

namespace {

constexpr int warps = 4, warpQueries = 16, queriesEach = warps * warpQueries, keysEach = 64;

template <int width>
struct TileShape {
  static constexpr int stride = width + 8;  // elements: rows start four banks apart, for ldmatrix
  static constexpr int pieces = width / 8;  // of 16 bytes a row
  static constexpr int tile = keysEach * stride;
  static constexpr size_t bytes = static_cast<size_t>(4 * tile) * 2;  // keys and values, twice
  static_assert(queriesEach == keysEach);                             // queries lie where the second keys will
};

template <int width>
__global__ void __launch_bounds__(warps * 32) attendRowsKernel(const __grid_constant__ Attention a) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  using S = TileShape<width>;
  const int tile = static_cast<int>(gridDim.x - 1 - blockIdx.x);  // long prefixes, which come last, are begun first
  const int kvHead = static_cast<int>(blockIdx.y);
  const StreamRows group = groupOf(a);
  const int stream = group.stream;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4,
            t = lane % 4;
  const Queries q(a, group, tile * queriesEach);
  if (!q.wanted(a)) return;
  const int last = min(queriesEach, q.queries - q.first) - 1;  // queries that are not there repeat it
  const auto sees = [&](int m) { return a.rows.seenBy(q.row(min(m, last))); };
  int longest = max(sees(lane), sees(lane + 32)), warpLongest = sees(warp * warpQueries + lane % warpQueries),
      warpShortest = warpLongest;
  for (int bits = 16; bits > 0; bits /= 2) {
    longest = max(longest, __shfl_xor_sync(fullWarp, longest, bits));
    warpLongest = max(warpLongest, __shfl_xor_sync(fullWarp, warpLongest, bits));
    warpShortest = min(warpShortest, __shfl_xor_sync(fullWarp, warpShortest, bits));
  }

  uint16_t* const shared = reinterpret_cast<uint16_t*>(dynamicShared());
  const auto keys = [&](int i) { return shared + i % 2 * 2 * S::tile; };
  const auto values = [&](int i) { return shared + (i % 2 * 2 + 1) * S::tile; };
  const uint16_t* const cachedKeys = cached<width>(a, a.cache.keys, stream, kvHead);
  const uint16_t* const cachedValues = cached<width>(a, a.cache.values, stream, kvHead);
  const auto fetch = [&](int i) {  // keys and values i keysEach ..; what lies behind the longest prefix may be anything
    for (int p = static_cast<int>(threadIdx.x); p < keysEach * S::pieces; p += warps * 32) {
      const int key = p / S::pieces, d = p % S::pieces * 8, slot = i * keysEach + key;
      const bool there = slot < longest;
      const ptrdiff_t from = static_cast<ptrdiff_t>(there ? slot : 0) * width + d;
      ptx::cpAsync16(keys(i) + key * S::stride + d, cachedKeys + from, there ? 16 : 0);
      ptx::cpAsync16(values(i) + key * S::stride + d, cachedValues + from, there ? 16 : 0);
    }
    ptx::cpAsyncCommit();
  };
  for (int p = static_cast<int>(threadIdx.x); p < queriesEach * S::pieces; p += warps * 32) {
    const int m = p / S::pieces, d = p % S::pieces * 8;
    ptx::cpAsync16(keys(1) + m * S::stride + d, q.of<width>(a, kvHead, min(m, last)) + d);
  }
  fetch(0);
  ptx::cpAsyncWait<0>();
  __syncthreads();
  uint32_t fq[width / 16][4];
#pragma unroll
  for (int d = 0; d < width; d += 16)
    ptx::ldmatrix_x4(fq[d / 16], keys(1) + (warp * warpQueries + lane % 16) * S::stride + d + lane / 16 * 8);

  const float scale = scoreScale(a);
  float o[width / 8][4] = {}, most[2] = {noScore, noScore},
                  sum[2] = {0, 0};  // of products, not yet scaled; of this lane's keys
  for (int i = 0; i * keysEach < longest; i++) {
    ptx::cpAsyncWait<0>();
    __syncthreads();
    if ((i + 1) * keysEach < longest) fetch(i + 1);  // where the queries, or keys and values i - 1, were
    if (i * keysEach >= warpLongest) continue;

    float s[keysEach / 8][4] = {};
#pragma unroll
    for (int d = 0; d < width; d += 16)
#pragma unroll
      for (int j = 0; j < keysEach / 16; j++) {
        uint32_t fk[4];
        ptx::ldmatrix_x4(fk, keys(i) + (16 * j + lane % 8 + lane / 16 * 8) * S::stride + d + lane / 8 % 2 * 8);
        const uint32_t low[2] = {fk[0], fk[1]}, high[2] = {fk[2], fk[3]};
        ptx::mma_m16n8k16_bf16(s[2 * j], fq[d / 16], low);
        ptx::mma_m16n8k16_bf16(s[2 * j + 1], fq[d / 16], high);
      }
    if ((i + 1) * keysEach > warpShortest) {
      const int seen[2] = {sees(warp * warpQueries + g), sees(warp * warpQueries + g + 8)};
#pragma unroll
      for (int j = 0; j < keysEach / 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++)
          if (i * keysEach + 8 * j + 2 * t + r % 2 >= seen[r / 2]) s[j][r] = masked;
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {  // queries g and g + 8
      float now = most[half];
#pragma unroll
      for (int j = 0; j < keysEach / 8; j++) now = fmaxf(now, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      for (int bits = 1; bits < 4; bits *= 2) now = fmaxf(now, __shfl_xor_sync(fullWarp, now, bits));
      const float factor = ptx::exp2Fast((most[half] - now) * scale), base = now * -scale;
      most[half] = now;
      sum[half] *= factor;
#pragma unroll
      for (int j = 0; j < width / 8; j++) o[j][2 * half] *= factor, o[j][2 * half + 1] *= factor;
#pragma unroll
      for (int j = 0; j < keysEach / 8; j++)
#pragma unroll
        for (int r = 2 * half; r < 2 * half + 2; r++) {
          s[j][r] = ptx::exp2Fast(fmaf(s[j][r], scale, base));
          sum[half] += s[j][r];
        }
    }
#pragma unroll
    for (int k = 0; k < keysEach / 16; k++) {
      const uint32_t p[4] = {ptx::packBf16(s[2 * k][0], s[2 * k][1]), ptx::packBf16(s[2 * k][2], s[2 * k][3]),
                             ptx::packBf16(s[2 * k + 1][0], s[2 * k + 1][1]),
                             ptx::packBf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < width; d += 16) {
        uint32_t fv[4];
        ptx::ldmatrix_x4_trans(fv, values(i) + (16 * k + lane % 16) * S::stride + d + lane / 16 * 8);
        const uint32_t low[2] = {fv[0], fv[1]}, high[2] = {fv[2], fv[3]};
        ptx::mma_m16n8k16_bf16(o[d / 8], p, low);
        ptx::mma_m16n8k16_bf16(o[d / 8 + 1], p, high);
      }
    }
  }

#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int m = warp * warpQueries + g + 8 * half;
    for (int bits = 1; bits < 4; bits *= 2) sum[half] += __shfl_xor_sync(fullWarp, sum[half], bits);
    if (m > last) continue;
    const float share = 1.0f / sum[half];
    uint16_t* out = q.output(a, kvHead, m) + 2 * t;
#pragma unroll
    for (int j = 0; j < width / 8; j++)
      if (8 * j + 2 * t < a.headSize) storePair(out + 8 * j, o[j][2 * half] * share, o[j][2 * half + 1] * share);
  }
}

}  // namespace

cudaError_t attendRows(const Attention& a, StepStream stream) {
  if (!valid(a) || a.headSize % 2 != 0 || a.outStride % 2 != 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>((a.maxQueries + queriesEach - 1) / queriesEach),
                  static_cast<unsigned>(a.kvHeads), static_cast<unsigned>(a.groupCount));
  return withWidth(a, [&](auto width) {
    constexpr int w = decltype(width)::value;
    return launchInStep(attendRowsKernel<w>, grid, warps * 32, TileShape<w>::bytes, stream, a);
  });
}

}  // namespace parvis::cuda
