// Projections of 1 to 64 rows (int8: 32): the speed of reading the weights is the floor, so everything else hides
// behind that stream.
//
// A block has `tiles` tiles of 16 outputs (8 pairs); its eight warps split the inputs in eight contiguous runs. What a
// warp reads it shares with nobody: each lane keeps `depth` steps of weights on their way in registers, asked for
// before anything else is done, and each warp brings the activations of its own run into shared memory by asynchronous
// copies, `stages` pieces of `chunk` steps, all of them under way; so the loop has no barrier of the block and nothing
// between two loads of weights but products. A norm costs a number a row (kernels.cuh, NormInput), read while the first
// activations are on their way, as is whatever a pair of outputs is finished with. Where kernels of a step overlap,
// weights that registers have no room for go as far as the second-level cache while the kernels ahead end.
// Sums: over a run in order, then over the runs in order, whatever the number of rows or of tiles a block: a picture's
// bits do not depend on its batch, and tiles a block are chosen freely. Every block reads all activations, through the
// fabric that also brings its weights; so a block has more tiles where there are more rows (`chosenTiles`). Where there
// are more blocks than places on the device, as many blocks as places share the tiles, each `tiles` at a time, and the
// weights of the next ones are on their way while the sums of these are put together. Rows and tiles that are not there
// are whatever memory and registers hold: columns and rows of a product do not mix, and what they give is not stored.
// No GPU has run this form yet: its speed is a prediction (bench/predictions.md).
// int8: a step is 32 inputs, two of them a group. A warp widens the integers of a group once for all rows, while the
// steps behind are on their way (epilogue.cuh, addGroup). Scales come as the steps do, a pair a group.
#include <algorithm>

#include "epilogue.cuh"
#include "parvis/sampling.h"
#include "trace.cuh"

namespace parvis::cuda {

namespace {

constexpr int warps = runs, threads = 32 * warps;

// Steps of weights under way, a block 48 or 64 KB; and 32 KB where that lets a multiprocessor have two blocks, or where
// sums take the registers.
constexpr int depthOf(WeightFormat format, int rowTiles, int tiles) {
  if (tiles == 1) return format == WeightFormat::int8 && rowTiles < 4 ? 8 : 12;
  return tiles == 2 && rowTiles < 4 ? 8 : 4;
}
constexpr int maxTiles(WeightFormat format, int rowTiles) {
  return rowTiles < (format == WeightFormat::int8 ? 2 : 8) ? 4 : 2;
}
// Blocks that a multiprocessor has at once: two where weights, sums and what is widened leave room in 128 registers.
constexpr int residentBlocks(WeightFormat format, int rowTiles, int tiles) {
  if (format == WeightFormat::int8) return tiles == 1 && rowTiles < 4 ? 2 : 1;
  return rowTiles < 8 && 4 * tiles * (rowTiles + depthOf(format, rowTiles, tiles)) <= 80 ? 2 : 1;
}

// Pieces of activations under way: three, or with few rows eight, where a multiprocessor has the shared memory.
constexpr int fewStages = 3, manyStages = 8;

template <WeightFormat format_, int rowTiles_, int tiles_, int stages_>
struct TileShape {
  static constexpr WeightFormat format = format_;
  static constexpr bool scaled = format == WeightFormat::int8;
  static constexpr int rowTiles = rowTiles_, tiles = tiles_;
  static constexpr int rows = 8 * rowTiles;
  static constexpr int resident = residentBlocks(format, rowTiles, tiles);
  static constexpr int depth = depthOf(format, rowTiles, tiles);
  static constexpr int stepTiles = scaled ? 2 : 1;  // of 16 inputs
  static constexpr int chunk = scaled || rowTiles == 8 ? 2 : 4,
                       stages = stages_;           // three: 99 KB at most, which small devices have
  static constexpr int unit = scaled ? chunk : 1;  // steps that a run is made of
  static constexpr int stageElements = rows * chunk * stepTiles * 16;
  static_assert(!scaled || (chunk * stepTiles == groupTiles && rowTiles < 8));
  static constexpr int sums = warps * tiles * rowTiles * 4 * 32;
  static constexpr int items = tiles * rowTiles * 64;  // pairs of outputs and rows
  static constexpr int itemsEach = (items + threads - 1) / threads;
  // Whether blocks may have more tiles than they multiply at a time. There are no registers for that where rows
  // take many.
  static constexpr bool shares = resident == 1 || rowTiles == 1;
  // The weights of the next tiles are asked for before the sums of these are put together: where registers have room
  // for both. Elsewhere the multiprocessor's other block reads meanwhile.
  static constexpr bool fillsEarly = resident == 1 && rowTiles < 8;
  static_assert(depth % chunk == 0 && items % 32 == 0);
};

// Where 16 bytes of a staged row lie, in elements: eight rows of one piece meet all banks, as ldmatrix wants it.
template <int pieces>
__device__ inline int swizzled(int row, int piece) {
  return (row * pieces + (piece ^ (pieces == 8 ? row % 8 : row / 2 % 4))) * 8;
}

// Tiles [first, end) of outputs.
struct Tiles {
  int first, end;
};

// A thread's item `i` among those of `tiles`: lanes of a warp have the eight pairs of a tile for four rows.
template <class S>
struct Item {
  int tile, rowTile, column, place, row, pair;
  bool there;
  __device__ Item(const Projection& p, const Tiles& tiles, int i) {
    const int n = i / 64;
    tile = n / S::rowTiles, rowTile = n % S::rowTiles, column = i / 32 % 2, place = i % 32;
    row = 8 * rowTile + 2 * (place % 4) + column;
    pair = 8 * (tiles.first + tile) + place / 4;
    there = i < S::items && (!S::shares || tiles.first + tile < tiles.end) && row < p.rows && pair < p.weights.pairs;
  }
};

// Where the sum of a pair's low output lies among those of a warp; 64 further, that of its high one.
template <class S>
__device__ inline int placeOfSum(int tile, int row, int pair) {
  return (tile * S::rowTiles + row / 8) * 4 * 32 + row % 2 * 32 + 4 * pair + row % 8 / 2;
}
// The outputs of a pair, of the runs' sums in order.
template <class S>
__device__ inline float2 outputsOf(const float* sums, int place, float scale) {
  float low = 0, high = 0;
#pragma unroll
  for (int v = 0; v < warps; v++) {
    const float* s = sums + v * S::tiles * S::rowTiles * 4 * 32 + place;
    low += s[0];
    high += s[64];
  }
  return make_float2(low * scale, high * scale);
}

// Guided logits, in the places of the conditional ones.
template <class S>
__device__ void storeGuided(const Projection& p, const Tiles& tiles, const float* sums, const float* scales) {
  const Guides& g = p.guides;
  const int items = 8 * g.predictions * min(S::tiles, tiles.end - tiles.first);
  for (int i = static_cast<int>(threadIdx.x); i < items; i += threads) {
    const int prediction = i / 8 % g.predictions, tile = i / 8 / g.predictions, pair = 8 * (tiles.first + tile) + i % 8;
    const Drawing* const d = g.table + prediction;
    const int row = ptx::loadFresh(&d->conditional), other = ptx::loadFresh(&d->unconditional);
    if (ptx::loadFresh(&d->token) < 0 || row >= p.rows || other >= p.rows || pair >= p.weights.pairs) continue;
    const auto logits = [&](int of) {
      float2 v = outputsOf<S>(sums, placeOfSum<S>(tile, of, i % 8), scales[of]);
      addBias(p, pair, true, v.x, v.y);
      return v;
    };
    float2 v = logits(row);
    const float guidance = ptx::loadFresh(&d->guidance);
    if (other >= 0 && guidance != 1.0f) {
      const float2 without = logits(other);
      v = make_float2(guide(v.x, without.x, guidance), guide(v.y, without.y, guidance));
    }
    storePair(p.y + row * p.yStride + 2 * pair, v.x, v.y);
  }
}

template <class S>
__device__ inline Tiles tilesOfBlock(const Projection& p, bool shared) {
  const int all = p.weights.tiles(), block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  if (!S::shares || !shared) return {block * S::tiles, min((block + 1) * S::tiles, all)};
  // The first blocks have one more.
  const int each = all / blocks, more = all - each * blocks;
  return {block * each + min(block, more), (block + 1) * each + min(block + 1, more)};
}

// guided: stores logits as Guides has them, and nothing else. further: steps of weights that are asked for into the
// second-level cache. shared: the blocks share all tiles evenly; else each has S::tiles of them.
template <class S, bool guided>
__global__ void __launch_bounds__(threads, S::resident)
    projectKernel(const __grid_constant__ Projection p, int further, bool shared, Release release) {
  Traced traced;
  PARVIS_SHARED(float, scales, S::rows);
  constexpr int rowTiles = S::rowTiles, depth = S::depth, chunk = S::chunk;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int allSteps = p.weights.steps(), run = S::unit * runOf(allSteps / S::unit), begin = min(warp * run, allSteps),
            steps = min(run, allSteps - begin);
  const Tiles all = tilesOfBlock<S>(p, shared);
  Tiles tiles{all.first, min(all.first + S::tiles, all.end)};
  const uint4* weights = reinterpret_cast<const uint4*>(p.weights.data);
  int places[S::tiles] = {}, count = 0;  // of the warp's first step, in `weights`; and how many of the tiles there are
  const auto isThere = [&](int i) { return !S::shares || i < count; };  // else the last one is repeated
  // The scales of a lane's pair, group by group.
  const float2* const scalePairs = reinterpret_cast<const float2*>(S::scaled ? p.weights.scales() : nullptr);
  const auto scalePlace = [&](int i, int step) { return (places[i] / 32 + step) / 2 * 8 + lane / 4; };
  [[maybe_unused]] float2 pairScales[S::scaled ? depth / 2 : 1][S::tiles];
  uint4 ring[depth][S::tiles];
  // The first steps of `tiles`: as many as registers hold.
  const auto fill = [&] {
    count = tiles.end - tiles.first;
#pragma unroll
    for (int i = 0; i < S::tiles; i++)
      places[i] = ((S::shares ? tiles.first + i : min(tiles.first + i, tiles.end - 1)) * allSteps + begin) * 32 + lane;
    if constexpr (S::scaled)
#pragma unroll
      for (int k = 0; k < depth; k += 2)
#pragma unroll
        for (int i = 0; i < S::tiles; i++)
          ptx::loadStreaming(pairScales[k / 2][i], scalePairs + scalePlace(i, k), k < steps && isThere(i));
#pragma unroll
    for (int k = 0; k < depth; k++)
#pragma unroll
      for (int i = 0; i < S::tiles; i++)
        ptx::loadStreaming(ring[k][i], weights + (places[i] + k * 32), k < steps && isThere(i));
    __syncwarp();  // first of all (ptx.cuh)
  };
#pragma unroll
  for (int k = 0; k < depth; k++)
#pragma unroll
    for (int i = 0; i < S::tiles; i++) {
      ring[k][i] = make_uint4(0, 0, 0, 0);
      if constexpr (S::scaled) pairScales[k / 2][i] = make_float2(0, 0);
    }
  fill();
  const int behind = min(further, steps - depth);  // steps behind those in registers
  if (behind > 0 && lane == 0)
#pragma unroll
    for (int i = 0; i < S::tiles; i++)
      if (isThere(i)) ptx::prefetch(weights + (places[i] + depth * 32), behind * 512);
  if (release == Release::early) ptx::releaseDependents();
  ptx::dependencyWait();  // weights were here before the step; what follows need not be
  traced.waited();
  if (release == Release::waited) ptx::releaseDependents();

  uint16_t* staged = reinterpret_cast<uint16_t*>(dynamicShared()) + warp * S::stages * S::stageElements;
  constexpr int pieces = 2 * chunk * S::stepTiles,
                together = 32 / pieces;  // pieces of 16 bytes in a staged row, rows that a warp copies at once
  const int piece = lane % pieces, firstRow = lane / pieces;
  uint16_t* const to[2] = {staged + swizzled<pieces>(firstRow, piece),
                           staged + swizzled<pieces>(firstRow + together, piece)};
  const uint16_t* const rows =
      static_cast<const uint16_t*>(p.elements) + firstRow * p.xStride + 16 * S::stepTiles * begin + 8 * piece;
  const int tilesHere = min(S::stepTiles * steps, p.weights.inputTiles() - S::stepTiles * begin);
  float share[rowTiles] = {};
  for (bool isFirst = true;; isFirst = false) {
    const uint16_t* next = rows;
    // The next steps, which are those from `first` on, into a stage; beyond the run and the matrix they are zero.
    const auto copy = [&](int stage, int first) {
      if (first < steps) {
        const int bytes = S::stepTiles * first + piece / 2 < tilesHere ? 16 : 0;
        const uint16_t* from = next;
#pragma unroll
        for (int i = 0; i < S::rows / together;
             i++, from += together * p.xStride)  // two further, a multiple of eight rows: the same swizzle
          if (firstRow + i * together < p.rows)
            ptx::cpAsync16(to[i % 2] + stage * S::stageElements + i / 2 * 2 * together * pieces * 8, from, bytes);
        next += 16 * S::stepTiles * chunk;
      }
      ptx::cpAsyncCommit();
    };
#pragma unroll
    for (int i = 0; i < S::stages; i++) copy(i, i * chunk);
    // What this thread's outputs are finished with; and squares of rows warp, warp + 8, ...
    EpilogueInputs loaded[S::itemsEach];
#pragma unroll
    for (int k = 0; k < S::itemsEach; k++) {
      const Item<S> item(p, tiles, static_cast<int>(threadIdx.x) + k * threads);
      loaded[k] = !guided && item.there ? loadEpilogueInputs(p, item.row, item.pair) : EpilogueInputs{};
    }
    if (isFirst && p.squares) addShares(share, p.squares, squaresStride(p.weights.inputs), warp, warps, p.rows);
#pragma unroll
    for (int k = 0; k < S::itemsEach; k++) {
      const Item<S> item(p, tiles, static_cast<int>(threadIdx.x) + k * threads);
      if (!guided && item.there) addAngle(p, item.pair, loaded[k]);
    }

    float sum[S::tiles][rowTiles][4] = {};
    // Step `step` for row tile n, then, after the last row tile, the weights that follow in its place. Beyond the run
    // the ring keeps what it has: b is zero there.
    [[maybe_unused]] const auto multiply = [&](int place, int n, const uint32_t(&b)[2]) {
#pragma unroll
      for (int i = 0; i < S::tiles; i++) {
        const uint32_t a[4] = {ring[place][i].x, ring[place][i].y, ring[place][i].z, ring[place][i].w};
        ptx::mma_m16n8k16_bf16(sum[i][n], a, b);
      }
    };
    const auto refill = [&](int place, int step) {
#pragma unroll
      for (int i = 0; i < S::tiles; i++)
        ptx::loadStreaming(ring[place][i], weights + (places[i] + (step + depth) * 32),
                           step + depth < steps && isThere(i));
    };
    int stage = 0;
    for (int first = 0; first < steps; first += depth) {
#pragma unroll
      for (int c = 0; c < depth; c += chunk) {
        if (first + c >= steps) break;
        ptx::cpAsyncWait<S::stages - 1>();
        __syncwarp();
        const uint16_t* x = staged + stage * S::stageElements;
        if constexpr (S::scaled) {
          uint32_t a[S::tiles][groupTiles][4];
          float2 scale[S::tiles];
#pragma unroll
          for (int i = 0; i < S::tiles; i++) {
            widenFragments(ring[c][i], a[i][0], a[i][1]);
            widenFragments(ring[c + 1][i], a[i][2], a[i][3]);
            scale[i] = pairScales[c / 2][i];
            const int step = first + c + depth;
            ptx::loadStreaming(pairScales[c / 2][i], scalePairs + scalePlace(i, step), step < steps && isThere(i));
          }
          refill(c, first + c);
          refill(c + 1, first + c + 1);
#pragma unroll
          for (int n = 0; n < rowTiles; n++) {
            uint32_t b[2][4];
#pragma unroll
            for (int k = 0; k < 2; k++)
              ptx::ldmatrix_x4(b[k], x + swizzled<pieces>(8 * n + lane % 8, 4 * k + lane / 8));
#pragma unroll
            for (int i = 0; i < S::tiles; i++) addGroup(sum[i][n], a[i], b, scale[i]);
          }
          __syncwarp();  // as below
        } else {
#pragma unroll
          for (int k = 0; k < chunk; k += 2) {
#pragma unroll
            for (int n = 0; n < rowTiles; n++) {
              uint32_t b[4];
              ptx::ldmatrix_x4(b, x + swizzled<pieces>(8 * n + lane % 8, 2 * k + lane / 8));
              const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
              multiply(c + k, n, b0);
              multiply(c + k + 1, n, b1);
            }
            refill(c + k, first + c + k);
            refill(c + k + 1, first + c + k + 1);
            __syncwarp();  // refills go no further down; and all have read what they share
          }
        }
        copy(stage, first + c + S::stages * chunk);
        stage = stage + 1 < S::stages ? stage + 1 : 0;
      }
    }
    if (isFirst && release == Release::late) ptx::releaseDependents();

    if (isFirst) {
      const float scale = p.squares ? scaleOfShares(share, p.weights.inputs, p.eps) : 1.0f;
      if (lane < rowTiles) scales[warp + warps * lane] = scale;
    }
    // Sums of the runs [warps][tiles][rowTiles][4][32] over the activations.
    float* sums = reinterpret_cast<float*>(dynamicShared());
    __syncthreads();
#pragma unroll
    for (int i = 0; i < S::tiles; i++)
#pragma unroll
      for (int n = 0; n < rowTiles; n++)
#pragma unroll
        for (int r = 0; r < 4; r++) sums[(((warp * S::tiles + i) * rowTiles + n) * 4 + r) * 32 + lane] = sum[i][n][r];
    const Tiles done = tiles;
    tiles = {tiles.end, min(tiles.end + S::tiles, all.end)};
    const bool isLast = tiles.first == tiles.end;
    if (S::shares && S::fillsEarly && !isLast) fill();
    __syncthreads();
    if constexpr (guided) {
      storeGuided<S>(p, done, sums, scales);
    } else {
#pragma unroll
      for (int k = 0; k < S::itemsEach; k++) {
        const int i = static_cast<int>(threadIdx.x) + k * threads;
        if (i >= S::items) break;  // whole warps
        const Item<S> item(p, done, i);
        const float2 v = outputsOf<S>(sums, (i / 64 * 4 + item.column) * 32 + item.place, scales[item.row]);
        finish(p, item.row, item.pair, item.there, loaded[k], v.x, v.y);
      }
    }
    if (!S::shares || isLast) return;
    if (!S::fillsEarly) fill();
    __syncthreads();  // activations come where the sums are
  }
}

// ---- on the host --------------------------------------------------------------------------------------------

// What a launch brings through the fabric between the second-level cache and the multiprocessors, where it is more than
// the memory delivers in the same time (3 to 4 on an H200), and for each further round of blocks about a microsecond.
// Fewer blocks than nine tenths of the multiprocessors would ask for too little at a time. Of a tie the fewest tiles
// win; where kernels overlap the most do: a block a multiprocessor leaves half of its registers to the kernel that
// comes next.
template <WeightFormat format, int rowTiles>
int chosenTiles(const Projection& p, bool largest) {
  const int64_t processors = p.processors > 0 ? p.processors : usualProcessors,
                tileBytes = int64_t{p.weights.steps()} * 512;
  const int64_t rowBytes = p.weights.inputTiles() * 16 * 2 * p.rows, leastBytes = p.weights.tiles() * tileBytes * 4 / 3,
                roundBytes = processors * (40 << 10);
  int best = 1;
  int64_t bestBytes = 0;
  for (int tiles = 1; tiles <= maxTiles(format, rowTiles); tiles *= 2) {
    const int64_t blocks = (p.weights.tiles() + tiles - 1) / tiles,
                  together = processors * residentBlocks(format, rowTiles, tiles);
    const int64_t bytes =
        std::max(leastBytes, blocks * (tiles * tileBytes + rowBytes)) + (blocks - 1) / together * roundBytes;
    if (tiles > 1 && (10 * blocks < 9 * processors || bytes > bestBytes || (bytes == bestBytes && !largest))) continue;
    best = tiles;
    bestBytes = bytes;
  }
  return best;
}

template <class S>
cudaError_t run(const Projection& p, StepStream stream) {
  const size_t sums = static_cast<size_t>(S::sums) * 4;
  const size_t inputs = static_cast<size_t>(warps * S::stages * S::stageElements) * 2;
  const int processors = p.processors > 0 ? p.processors : usualProcessors, places = S::resident * processors,
            all = (p.weights.tiles() + S::tiles - 1) / S::tiles;
  const bool shared = S::shares && stream.tuning.evenTiles && all > places;
  const int blocks = shared ? places : all;
  const size_t stepBytes =
      static_cast<size_t>(std::min(blocks, places)) * warps * S::tiles * 512;  // a step of all warps at once
  const int further = static_cast<int>(std::min<size_t>(p.prefetched / stepBytes, 1 << 16));
  return launchInStep(p.guides.table ? projectKernel<S, true> : projectKernel<S, false>, static_cast<unsigned>(blocks),
                      threads, sums > inputs ? sums : inputs, stream, p, further, shared, releaseOf(p, stream));
}

// What a block of eight stages takes; where two of them do not fit, a multiprocessor would have one.
constexpr size_t deepBytes = size_t{68} << 10;
template <WeightFormat format, int rowTiles, int tiles>
cudaError_t runStages(const Projection& p, StepStream stream) {
  if constexpr (rowTiles == 1)
    if (stream.tuning.deepStages && p.sharedBytes >= 2 * deepBytes)
      return run<TileShape<format, rowTiles, tiles, manyStages>>(p, stream);
  return run<TileShape<format, rowTiles, tiles, fewStages>>(p, stream);
}

template <WeightFormat format, int rowTiles>
cudaError_t runTiles(const Projection& p, StepStream stream) {
  const bool largest = stream.overlap && stream.tuning.largeTiles;
  const int tiles = p.tilesABlock > 0 ? p.tilesABlock : chosenTiles<format, rowTiles>(p, largest);
  if (tiles == 1) return runStages<format, rowTiles, 1>(p, stream);
  if (tiles == 2) return runStages<format, rowTiles, 2>(p, stream);
  if constexpr (maxTiles(format, rowTiles) == 4)
    if (tiles == 4) return runStages<format, rowTiles, 4>(p, stream);
  return cudaErrorInvalidValue;
}

template <WeightFormat format>
cudaError_t runRows(const Projection& p, StepStream stream) {
  if (p.rows > maxSkinnyRows(format)) return cudaErrorInvalidValue;
  if (p.rows <= 8) return runTiles<format, 1>(p, stream);
  if (p.rows <= 16) return runTiles<format, 2>(p, stream);
  if (p.rows <= 32) return runTiles<format, 4>(p, stream);
  if constexpr (maxSkinnyRows(format) > 32) return runTiles<format, 8>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace

#if defined(PARVIS_TRACE)
cudaError_t traceProjections(const TraceLog& log) { return traceInto(log); }
#endif

cudaError_t project(const Projection& p, StepStream stream) {
  if (!possiblePacked(p) || !valid(p.guides, p)) return cudaErrorInvalidValue;
  return p.weights.scaled() ? runRows<WeightFormat::int8>(p, stream) : runRows<WeightFormat::bfloat16>(p, stream);
}

}  // namespace parvis::cuda
