// Drawing a token from logits, bit for bit as cpu/isa/sample.cc does: the arithmetic of include/parvis/sampling.h, and
// sums of integers, which do not depend on their order. One block a prediction, its guided logits in shared memory, or,
// where they are too many, in place of its conditional row, which nobody else reads: 256 KB of 64,000 tokens stay in
// the second-level cache. Weights are computed anew in each pass, which is cheaper than the eight bytes a token that
// keeping them would take. Top-k and top-p are one selection each, by digits, no sort.
#include <algorithm>

#include "kernels.cuh"
#include "parvis/sampling.h"
#include "ptx.cuh"
#include "ring.cuh"

namespace parvis::cuda {

namespace {

constexpr int together = 2;           // reads of four logits and four unconditional ones
constexpr int maxScoreThreads = 512;  // a logarithm in double precision takes registers

// A thread of 1024 has 64 registers. Drawing in place, and by Gumbel numbers, takes some more on some architectures.
constexpr int maxSampleThreads(bool inPlace, Mode mode) { return inPlace || mode == Mode::gumbel ? 768 : 1024; }

// Unsigned integers in the order of the floats, and back.
__device__ inline uint32_t ordered(float f) {
  const uint32_t u = __float_as_uint(f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ inline float fromOrdered(uint32_t u) { return __uint_as_float(u & 0x80000000u ? u ^ 0x80000000u : ~u); }

// ---- a block's reductions; every thread gets the result, `partial` (32 numbers) is free again afterwards ---------

template <class F>
__device__ uint64_t reduce(uint64_t v, uint64_t* partial, F&& combine) {
  for (int bits = 16; bits > 0; bits /= 2) v = combine(v, __shfl_xor_sync(fullWarp, v, bits));
  const unsigned warps = blockDim.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  v = partial[0];
  for (unsigned i = 1; i < warps; i++) v = combine(v, partial[i]);
  __syncthreads();
  return v;
}
__device__ inline uint64_t sumOver(uint64_t v, uint64_t* partial) {
  return reduce(v, partial, [](uint64_t a, uint64_t b) { return a + b; });
}

// Inclusive sums over the lanes of a warp.
__device__ inline uint64_t scan(uint64_t v) {
  for (unsigned by = 1; by < 32; by *= 2) {
    const uint64_t below = __shfl_up_sync(fullWarp, v, by);
    if (threadIdx.x % 32 >= by) v += below;
  }
  return v;
}

// ---- guidance and the largest logit -------------------------------------------------------------------------

struct Guided {
  float* logits;  // [vocabulary], shared or in place
  int best;       // index of the largest, the first of equals; -1: a logit is NaN or infinite
};

template <bool inPlace>
__device__ Guided guideRow(const Sampling& s, const Drawing& p, uint64_t* partial) {
  float* const conditional = s.logits + static_cast<ptrdiff_t>(p.conditional - s.firstRow) * s.stride;
  Guided row{inPlace ? conditional : reinterpret_cast<float*>(dynamicShared()), -1};
  const bool guided = !s.guided && p.unconditional >= 0 && p.guidance != 1.0f;
  const float* const unconditional =
      guided ? s.logits + static_cast<ptrdiff_t>(p.unconditional - s.firstRow) * s.stride : nullptr;
  float* const kept =
      p.kept < 0 ? nullptr : s.kept + (static_cast<ptrdiff_t>(p.seat) * s.keptEach + p.kept) * s.vocabulary;
  const int step = 4 * static_cast<int>(blockDim.x);
  uint64_t most = 0;
  bool bad = false;
  const auto take = [&](int i, float l, float without) {
    if (i >= s.vocabulary) return;
    if (guided) l = guide(l, without, p.guidance);
    row.logits[i] = l;
    if (kept) kept[i] = l;
    bad |= !(l - l == 0);
    // The sum makes -0 equal to 0; of equal logits the lowest index is the largest number here.
    const uint64_t key = static_cast<uint64_t>(ordered(l + 0.0f)) << 32 | (UINT32_MAX - static_cast<uint32_t>(i));
    most = key > most ? key : most;
  };
  for (int first = 4 * static_cast<int>(threadIdx.x); first < s.vocabulary; first += together * step) {
    float4 c[together], u[together];  // all under way before the first is looked at
#pragma unroll
    for (int k = 0; k < together; k++) {
      const int last = (s.vocabulary - 1) / 4 * 4, from = min(first + k * step, last);
      if (inPlace && first + k * step > last) continue;  // another thread writes there
      c[k] = ptx::loadFresh(reinterpret_cast<const float4*>(conditional + from));
      u[k] = guided ? ptx::loadFresh(reinterpret_cast<const float4*>(unconditional + from)) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < together; k++) {
      const int i = first + k * step;
      take(i, c[k].x, u[k].x), take(i + 1, c[k].y, u[k].y), take(i + 2, c[k].z, u[k].z), take(i + 3, c[k].w, u[k].w);
    }
  }
  most = reduce(most, partial, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
  if (!__syncthreads_or(bad)) row.best = static_cast<int>(UINT32_MAX - static_cast<uint32_t>(most));
  return row;
}

// ---- selection ----------------------------------------------------------------------------------------------

struct Selected {
  uint32_t key;     // ordered pattern of a logit
  uint64_t before;  // amounts of the larger ones
};
struct SelectShared {
  uint32_t low[256], high[256];  // of the digits' amounts
  uint32_t digit;
  uint64_t before;
};

// The first digit: 256 equal parts of the range of logits, the largest last. Leading bits of floats would put nearly
// all logits into a few digits, where all threads would wait for each other to add. Larger logits have no smaller
// digit, rounded or not.
struct Parts {
  float most, scale;
  __device__ uint32_t of(float l) const { return 255u - static_cast<uint32_t>(fminf((most - l) * scale, 255.0f)); }
};
__device__ inline Parts partsOf(const float* logits, int count, float most, uint64_t* partial) {
  uint64_t least = UINT32_MAX;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const uint64_t key = ordered(logits[i]);
    least = key < least ? key : least;
  }
  least = reduce(least, partial, [](uint64_t a, uint64_t b) { return a < b ? a : b; });
  const float range = most - fromOrdered(static_cast<uint32_t>(least));
  return {most, range > 0 ? 255.0f / range : 0.0f};  // 0 where the range is beyond floats, too
}

// Shared memory adds 32 bits in one instruction; 64 would be a loop of compare and swap.
__device__ inline void addAmount(SelectShared* shared, uint32_t digit, uint64_t amount) {
  const uint32_t low = static_cast<uint32_t>(amount), old = atomicAdd(&shared->low[digit], low),
                 high = static_cast<uint32_t>(amount >> 32) + (old + low < old);
  if (high != 0) atomicAdd(&shared->high[digit], high);
}

// The smallest key that has an amount, and before which the amounts sum to at most `limit` (less than they all sum to):
// by its part of the range, then eight bits a pass.
template <class F>
__device__ Selected select(const float* logits, int count, const Parts& parts, uint64_t limit, SelectShared* shared,
                           F&& amountOf) {
  Selected at{0, 0};
  uint32_t part = 0;
  for (int shift = 32; shift >= 0; shift -= 8) {
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) shared->low[i] = shared->high[i] = 0;
    __syncthreads();
    const uint64_t mask = ~uint64_t{0} << (shift + 8);
#pragma unroll 1  // unrolled, it would take more registers than a thread of 1024 has
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
      const float l = logits[i];
      const uint32_t key = ordered(l), of = parts.of(l);
      if (shift < 32 && (of != part || ((key ^ at.key) & mask) != 0)) continue;
      const uint64_t amount = amountOf(key, l);
      if (amount != 0) addAmount(shared, shift == 32 ? of : key >> shift & 255, amount);
    }
    __syncthreads();
    if (threadIdx.x < 32) {  // eight digits a lane, the largest first
      const int first = 255 - 8 * static_cast<int>(threadIdx.x);
      const auto amountAt = [&](int digit) {
        return static_cast<uint64_t>(shared->high[digit]) << 32 | shared->low[digit];
      };
      uint64_t sum = 0;
      for (int j = 0; j < 8; j++) sum += amountAt(first - j);
      uint64_t running = at.before + scan(sum) - sum, before = 0;
      int digit = -1;
      for (int j = 0; j < 8; j++) {
        const uint64_t amount = amountAt(first - j);
        if (amount != 0 && running <= limit) {
          digit = first - j;
          before = running;
        }
        running += amount;
      }
      const uint32_t found = __ballot_sync(
          fullWarp, digit >= 0);  // never empty: the digits hold more than `limit` - before, or all there is
      if (digit >= 0 && threadIdx.x == 31u - static_cast<unsigned>(__clz(static_cast<int>(found))))
        shared->digit = static_cast<uint32_t>(digit), shared->before = before;
    }
    __syncthreads();
    at.before = shared->before;
    if (shift == 32) part = shared->digit;
    else at.key |= shared->digit << shift;
  }
  return at;
}

// ---- the kernels --------------------------------------------------------------------------------------------

static_assert(66 * sizeof(uint64_t) + sizeof(SelectShared) <= samplingBytes);

__device__ inline ptrdiff_t placeOfToken(const Sampling& s, const Drawing& p) {
  return static_cast<ptrdiff_t>(p.seat) * s.tokensEach + p.token;
}

// Is it a prediction, of this mode, whose logits exist now?
__device__ inline bool wanted(const Sampling& s, const Drawing& p, Mode mode) {
  return p.token >= 0 && p.rule.mode == mode && p.conditional >= s.firstRow && p.conditional < s.firstRow + s.rows;
}

template <bool inPlace, Mode mode>
__global__ void __launch_bounds__(maxSampleThreads(inPlace, mode)) sampleKernel(const __grid_constant__ Sampling s) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  PARVIS_SHARED(uint32_t, next, 1);
  if (blockIdx.x == static_cast<unsigned>(s.predictions)) return bringAhead(s.ring, next);
  PARVIS_SHARED(uint64_t, partial, 32);
  PARVIS_SHARED(uint64_t, equalsOf, 32);
  PARVIS_SHARED(SelectShared, shared, 1);
  const Drawing p = s.table[blockIdx.x];  // which draws alone read: no line of it in a cache is an old one
  if (!wanted(s, p, mode)) return;
  const SamplingRule& rule = p.rule;
  int32_t* const token = s.tokens + placeOfToken(s, p);
  const Guided row = guideRow<inPlace>(s, p, partial);
  const float most = row.best < 0 ? 0.0f : row.logits[row.best] / rule.temperature;
  // The likeliest: asked for, or the only one left by a temperature so small that the quotient overflows.
  if (row.best < 0 || rule.temperature == 0 || !(most - most == 0)) {
    if (threadIdx.x == 0) {
      *token = row.best;
      if (row.best < 0) atomicExch(s.nonFinite + p.seat, 1);
    }
    return;
  }
  uint32_t threshold = 0;  // keys below it are out
  const bool cutsK = rule.topK > 0 && rule.topK < s.vocabulary, cutsP = rule.topP < 1;
  const Parts parts = cutsK || cutsP ? partsOf(row.logits, s.vocabulary, row.logits[row.best], partial) : Parts{};
  if (cutsK)
    threshold = select(row.logits, s.vocabulary, parts, static_cast<uint64_t>(rule.topK) - 1, shared,
                       [](uint32_t, float) -> uint64_t { return 1; })
                    .key;
  const auto weight = [&](uint32_t key, float l) -> uint64_t {
    return key < threshold ? 0 : weightBelow((rule.temperature == 1 ? l : l / rule.temperature) - most);
  };

  // Each warp has a stretch of the vocabulary, in order, so that ranks and sums of its tokens can be told by index.
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32),
            warps = static_cast<int>(blockDim.x / 32);
  const int stretch = (s.vocabulary + 32 * warps - 1) / (32 * warps) * 32;
  const int begin = warp * stretch, end = begin + stretch < s.vocabulary ? begin + stretch : s.vocabulary;

  uint32_t edge = 0;  // top-p: keys below it are out, of those equal to it the first `equals` are in
  uint64_t equals = ~uint64_t{0}, rank = 0;
  if (cutsP) {
    uint64_t total = 0;
    for (int i = static_cast<int>(threadIdx.x); i < s.vocabulary; i += static_cast<int>(blockDim.x))
      total += weight(ordered(row.logits[i]), row.logits[i]);
    total = sumOver(total, partial);
    const uint64_t limit = static_cast<uint64_t>(static_cast<double>(rule.topP) * static_cast<double>(total));
    const Selected last = select(row.logits, s.vocabulary, parts, limit, shared, weight);
    edge = last.key;
    equals = (limit - last.before) / weight(edge, fromOrdered(edge)) + 1;
    uint64_t mine = 0;
    for (int i = begin + lane; i < end; i += 32) mine += ordered(row.logits[i]) == edge;
    mine = scan(mine);
    if (lane == 31) equalsOf[warp] = mine;
    __syncthreads();
    for (int w = 0; w < warp; w++) rank += equalsOf[w];
  }
  const auto kept = [&](int i, uint64_t& seen) -> uint64_t {  // weight of token i; all lanes of the warp call it
    const uint32_t key = i < end ? ordered(row.logits[i]) : 0;
    if (!cutsP) return i < end ? weight(key, row.logits[i]) : 0;
    const uint32_t same = __ballot_sync(fullWarp, i < end && key == edge);
    const uint64_t place = seen + static_cast<uint64_t>(__popc(same & ((1u << lane) - 1)));
    seen += static_cast<uint64_t>(__popc(same));
    return i >= end || key < edge || (key == edge && place >= equals) ? 0 : weight(key, row.logits[i]);
  };
  if constexpr (mode == Mode::gumbel) {
    uint64_t best = 0;  // the place in the race; of equals the lowest index is the largest number here
    for (int i = begin; i < end; i += 32) {
      const uint32_t at = static_cast<uint32_t>(i + lane);
      const uint64_t w = kept(i + lane, rank);
      if (w == 0) continue;
      const Philox bits = raceBits(s.seeds[p.seat], static_cast<uint32_t>(p.token), at / 4);
      // Chosen, not indexed: an index would put them into local memory.
      const uint32_t low = at % 2 == 0 ? bits.word[0] : bits.word[1], high = at % 2 == 0 ? bits.word[2] : bits.word[3];
      const float place = race(w, at % 4 < 2 ? low : high);
      const uint64_t key = static_cast<uint64_t>(__float_as_uint(place)) << 32 | (UINT32_MAX - at);
      best = key > best ? key : best;
    }
    best = reduce(best, partial, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
    if (threadIdx.x == 0) *token = static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(best));
    return;
  }
  uint64_t sum = 0, seen = rank;
  for (int i = begin; i < end; i += 32) sum += kept(i + lane, seen);
  sum = __shfl_sync(fullWarp, scan(sum), 31);
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  uint64_t total = 0, before = 0;
  for (int w = 0; w < warps; w++) {
    if (w == warp) before = total;
    total += partial[w];
  }
  const uint64_t target = scaleBits(drawBits(s.seeds[p.seat], static_cast<uint32_t>(p.token)), total);
  if (target < before || target >= before + sum) return;  // in another warp's stretch
  seen = rank;
  for (int i = begin; i < end; i += 32) {
    const uint64_t upTo = before + scan(kept(i + lane, seen));
    const uint32_t over = __ballot_sync(fullWarp, upTo > target);
    if (over != 0) {
      if (lane == 0) *token = i + __ffs(static_cast<int>(over)) - 1;
      return;
    }
    before = __shfl_sync(fullWarp, upTo, 31);
  }
}

template <bool inPlace>
__global__ void __launch_bounds__(maxScoreThreads) scoreKernel(const __grid_constant__ Sampling s) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  PARVIS_SHARED(uint32_t, next, 1);
  if (blockIdx.x == static_cast<unsigned>(s.predictions)) return bringAhead(s.ring, next);
  PARVIS_SHARED(uint64_t, partial, 32);
  const Drawing p = s.table[blockIdx.x];  // which draws alone read: no line of it in a cache is an old one
  if (!wanted(s, p, Mode::score)) return;
  const ptrdiff_t at = placeOfToken(s, p);
  const Guided row = guideRow<inPlace>(s, p, partial);
  if (row.best < 0) {
    if (threadIdx.x == 0) atomicExch(s.nonFinite + p.seat, 1);
    return;
  }
  const float most = row.logits[row.best];
  uint64_t total = 0;
  for (int i = static_cast<int>(threadIdx.x); i < s.vocabulary; i += static_cast<int>(blockDim.x))
    total += weightBelow(row.logits[i] - most);
  total = sumOver(total, partial);
  if (threadIdx.x == 0)
    s.logProbs[at] = static_cast<float>(static_cast<double>(row.logits[ptx::loadFresh(s.tokens + at)]) - most -
                                        log(static_cast<double>(total) * 0x1p-40));
}

bool valid(const Sampling& s) {
  return s.predictions > 0 && s.rows > 0 && s.vocabulary > 0 && (s.inPlace || s.vocabulary <= maxSharedLogits) &&
         (!s.ring.ahead || valid(s.ring)) && s.stride % 4 == 0 && s.stride >= s.vocabulary && s.threads >= 32 &&
         s.threads <= 1024 && s.threads % 32 == 0;
}

unsigned blocksOf(const Sampling& s) { return static_cast<unsigned>(s.predictions + (s.ring.ahead ? 1 : 0)); }
size_t sharedBytes(const Sampling& s) { return s.inPlace ? 0 : static_cast<size_t>(s.vocabulary) * 4; }

}  // namespace

cudaError_t sample(const Sampling& s, Mode mode, StepStream stream) {
  if (!valid(s)) return cudaErrorInvalidValue;
  const auto kernel = mode == Mode::gumbel
                          ? (s.inPlace ? sampleKernel<true, Mode::gumbel> : sampleKernel<false, Mode::gumbel>)
                          : (s.inPlace ? sampleKernel<true, Mode::sample> : sampleKernel<false, Mode::sample>);
  return launchInStep(kernel, blocksOf(s),
                      static_cast<unsigned>(std::min(s.threads, maxSampleThreads(s.inPlace, mode))), sharedBytes(s),
                      stream, s);
}

cudaError_t score(const Sampling& s, StepStream stream) {
  if (!valid(s)) return cudaErrorInvalidValue;
  return launchInStep(s.inPlace ? scoreKernel<true> : scoreKernel<false>, blocksOf(s),
                      static_cast<unsigned>(std::min(s.threads, maxScoreThreads)), sharedBytes(s), stream, s);
}

}  // namespace parvis::cuda
