// Projections of many rows (batched sampling, whole sequences): bound by arithmetic, so weights and activations are
// staged in shared memory in blocks of outputs and rows, several steps ahead of the products. A row must have the bits
// that project.cu gives it, since a picture does not depend on its batch: the same instruction with weights as its A
// operand, sums over eight runs of the inputs, each from zero, then over the runs in order. The price is a second set
// of accumulators, hence warps of 32 outputs and 64 rows, not more. What block a row falls in changes no bit either, so
// the size of blocks is chosen by how well a launch fills a device.
// int8: a stage is a group. What is widened of it takes the registers that a large block would need: all are small.
#include "epilogue.cuh"

namespace parvis::cuda {

namespace {

constexpr int stages = 3, stageTiles = 4;  // a stage: 64 inputs; three fit the 99 KiB that small devices have
constexpr int each = 2;                    // tiles of outputs a warp

// Where 16 bytes of a staged row lie: rows are 128 bytes apart, so the pieces change places for ldmatrix to meet all
// banks.
__device__ inline int swizzled(int row, int piece) { return row * stageTiles * 16 + (piece ^ row % 8) * 8; }
static_assert(stageTiles * 2 == 8);

// A block is warpsOut x warpsRows warps; a warp has two tiles of outputs and `rowTiles` of eight rows.
template <WeightFormat format_, int warpsOut_, int warpsRows_, int rowTiles_>
struct TileShape {
  static constexpr bool scaled = format_ == WeightFormat::int8;
  static constexpr int warpsOut = warpsOut_, warpsRows = warpsRows_, rowTiles = rowTiles_,
                       threads = 32 * warpsOut * warpsRows;
  static constexpr int tiles = each * warpsOut, rows = 8 * rowTiles * warpsRows;
  static constexpr int stageSteps = scaled ? stageTiles / 2 : stageTiles;
  static constexpr int weightBytes = tiles * stageSteps * 512, rowsAt = weightBytes + (scaled ? tiles * 64 : 0);
  static constexpr int stageBytes = rowsAt + rows * stageTiles * 32;
  static constexpr int weightCopies = tiles * stageSteps * 32 / threads,
                       rowCopies = rows * stageTiles * 2 / threads;  // of 16 bytes, a thread
  static constexpr int group = 1024 / rows;  // blocks of rows that go through the weights together
  static_assert(threads % (stageSteps * 32) == 0 && rows * stageTiles * 2 % threads == 0);
  static_assert(!scaled || stageTiles == groupTiles);
};
using Large = TileShape<WeightFormat::bfloat16, 4, 2, 8>;  // 128 outputs x 128 rows
template <WeightFormat format>
using Small = TileShape<format, 2, 2, 4>;  // 64 x 64

// Sums of `TileShape::rowTiles` x 2 tiles by a warp, as mma leaves them: [output tile][row tile][low, low, high, high].
template <class S>
using Sums = float[each][S::rowTiles][4];

// Two passes over what a thread has: first everything that reads, so that the reads overlap, then everything that
// writes. `scales`: 1 / rms of the block's rows, from `blockRow` on.
template <class S, Epilogue epilogue>
__device__ void finishAll(const Projection& p, Sums<S>& sums, const float* scales, int blockRow, int firstRow,
                          int firstPair) {
  const Rotation& t = p.rotation;
  QkvPlace places[each];
  float2 weights[each] = {};
  if (epilogue == Epilogue::append)
    for (int i = 0; i < each; i++) places[i] = placeOf(t, 2 * (firstPair + 8 * i));
  if (epilogue == Epilogue::add && p.next.weight)
    for (int i = 0; i < each; i++)
      if (firstPair + 8 * i < p.weights.pairs) weights[i] = loadPair(p.next.weight + 2 * (firstPair + 8 * i));
#pragma unroll
  for (int n = 0; n < S::rowTiles; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const int row = firstRow + 8 * n + c;
      if (row >= p.rows) continue;
      const float scale = p.squares ? scales[row - blockRow] : 1.0f;
      const Row of = epilogue == Epilogue::append ? t.rows.at(row) : Row{};
#pragma unroll
      for (int i = 0; i < each; i++) {
        const int pair = firstPair + 8 * i;
        float &low = sums[i][n][c], &high = sums[i][n][c + 2];
        if (pair >= p.weights.pairs) continue;
        low *= scale, high *= scale;
        addBias(p, pair, true, low, high);
        if constexpr (epilogue == Epilogue::add) {
          const float2 old = freshPair(p.y + row * p.yStride + 2 * pair);
          low = old.x + low, high = old.y + high;
        } else if constexpr (epilogue == Epilogue::append) {
          const float2 v = turned(places[i], angleOf(t, places[i], of), low, high);
          low = v.x, high = v.y;
        }
      }
    }
#pragma unroll
  for (int n = 0; n < S::rowTiles; n++)
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const int row = firstRow + 8 * n + c;
      const bool rowThere = row < p.rows;
      const int slot = epilogue == Epilogue::append && rowThere ? slotOf(t, t.rows.at(row)) : -1;
#pragma unroll
      for (int i = 0; i < each; i++) {
        const int pair = firstPair + 8 * i;
        const float low = sums[i][n][c], high = sums[i][n][c + 2];
        const bool there = rowThere && pair < p.weights.pairs;
        if (epilogue == Epilogue::add && p.next.weight)
          storeNormInput<4>(p.next, squaresStride(2 * p.weights.pairs), row, pair, there, low, high,
                            weights[i]);  // all lanes
        if (!there) continue;
        if (epilogue == Epilogue::append) storePlaced<uint16_t>(t, places[i], row, slot, make_float2(low, high));
        else if (activates(epilogue)) storeActivated<uint16_t>(p, epilogue, row, pair, low, high);
        else storePair(p.y + row * p.yStride + 2 * pair, low, high);
      }
    }
}

template <class S, Epilogue epilogue>
__global__ void __launch_bounds__(S::threads)
    tiledKernel(const __grid_constant__ Projection p, int rowBlocks, int outputBlocks, Release release) {
  if (release == Release::early) ptx::releaseDependents();
  ptx::dependencyWait();
  if (release != Release::early) ptx::releaseDependents();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warpOut = thread / 32 % S::warpsOut,
            warpRows = thread / 32 / S::warpsOut;
  // Rows are fastest, within a group of blocks of rows: the activations of a group stay in the cache while the weights
  // go by.
  const int group = static_cast<int>(blockIdx.x) / (S::group * outputBlocks) * S::group,
            place = static_cast<int>(blockIdx.x) - group * outputBlocks;
  const int together = min(S::group, rowBlocks - group);
  const int firstRow = (group + place % together) * S::rows, firstTile = place / together * S::tiles;

  // Which 16 bytes a thread copies. Rows and tiles that are not there repeat the last one: what they give is not
  // stored.
  const int inputTiles = p.weights.inputTiles(), steps = p.weights.steps(), piece = thread % (S::stageSteps * 32),
            rowPiece = thread % (stageTiles * 2);
  const uint4* weights[S::weightCopies];
  const uint16_t* rows[S::rowCopies];
#pragma unroll
  for (int i = 0; i < S::weightCopies; i++) {
    const int tile = min(firstTile + (i * S::threads + thread) / (S::stageSteps * 32), p.weights.tiles() - 1);
    weights[i] = reinterpret_cast<const uint4*>(p.weights.data) + static_cast<ptrdiff_t>(tile) * steps * 32 + piece;
  }
#pragma unroll
  for (int i = 0; i < S::rowCopies; i++) {
    const int row = min(firstRow + (i * S::threads + thread) / (stageTiles * 2), p.rows - 1);
    rows[i] = static_cast<const uint16_t*>(p.elements) + row * p.xStride + rowPiece * 8;
  }
  const auto weightsOf = [](int stage) {
    return reinterpret_cast<uint4*>(dynamicShared() + stage % stages * S::stageBytes);
  };  // [tiles][stageSteps][32]
  const auto rowsOf = [](int stage) {
    return reinterpret_cast<uint16_t*>(dynamicShared() + stage % stages * S::stageBytes + S::rowsAt);
  };  // [rows][64], swizzled
  const auto scalesOf = [](int stage) {
    return reinterpret_cast<float*>(dynamicShared() + stage % stages * S::stageBytes + S::weightBytes);
  };  // [tiles][8 pairs][low, high]
  const auto copy = [&](int stage) {
    if (stage * S::stageSteps + piece / 32 < steps)
#pragma unroll
      for (int i = 0; i < S::weightCopies; i++)
        ptx::cpAsync16(weightsOf(stage) + i * S::threads + thread, weights[i] + stage * S::stageSteps * 32);
    if (S::scaled && thread < S::tiles * 4 && stage < p.weights.groups()) {
      const int tile = min(firstTile + thread / 4, p.weights.tiles() - 1);
      ptx::cpAsync16(scalesOf(stage) + thread * 4, p.weights.scalesAt(tile) + stage * 16 + thread % 4 * 4);
    }
    const bool there = stage * stageTiles + rowPiece / 2 < inputTiles;
    if (there || S::scaled)  // a group is multiplied to its end, with zeroes beyond the matrix
#pragma unroll
      for (int i = 0; i < S::rowCopies; i++)
        ptx::cpAsync16(rowsOf(stage) + swizzled((i * S::threads + thread) / (stageTiles * 2), rowPiece),
                       rows[i] + stage * stageTiles * 16, there ? 16 : 0);
    ptx::cpAsyncCommit();
  };

  // Fragments for 16 inputs; the next ones are read while these are multiplied.
  [[maybe_unused]] uint32_t a[2][each][4], b[2][S::rowTiles][2];
  [[maybe_unused]] const auto load = [&](int to, int stage, int tile) {
#pragma unroll
    for (int i = 0; i < each; i++) {
      const uint4 v = weightsOf(stage)[((warpOut * each + i) * stageTiles + tile) * 32 + lane];
      a[to][i][0] = v.x, a[to][i][1] = v.y, a[to][i][2] = v.z, a[to][i][3] = v.w;
    }
#pragma unroll
    for (int n = 0; n < S::rowTiles; n += 2) {
      uint32_t f[4];
      ptx::ldmatrix_x4(f, rowsOf(stage) + swizzled((warpRows * S::rowTiles + n) * 8 + lane % 8 + lane / 16 * 8,
                                                   tile * 2 + lane / 8 % 2));
      b[to][n][0] = f[0], b[to][n][1] = f[1], b[to][n + 1][0] = f[2], b[to][n + 1][1] = f[3];
    }
  };

#pragma unroll
  for (int stage = 0; stage < stages - 1; stage++) copy(stage);
  PARVIS_SHARED(float, scales, S::rows);  // the loop's barriers come before they are read
  if (p.squares) {
    constexpr int rowsEach = S::rows / (S::threads / 32), rowsAtOnce = rowsEach < 8 ? rowsEach : 8;
#pragma unroll 1
    for (int first = thread / 32 * rowsEach, end = first + rowsEach; first < end; first += rowsAtOnce) {
      float shares[rowsAtOnce] = {};
      addShares(shares, p.squares, squaresStride(p.weights.inputs), firstRow + first, 1, p.rows);
      const float scale = scaleOfShares(shares, p.weights.inputs, p.eps);
      if (lane < rowsAtOnce) scales[first + lane] = scale;
    }
  }
  const int units = S::scaled ? p.weights.groups() : inputTiles, run = runOf(units);
  Sums<S> sums = {}, totals = {};
  int done = 0, runEnd = run;
  // The end of a run. (Runs without inputs would add zero to a total that is not -0: nothing.)
  const auto endRun = [&] {
    runEnd = min(runEnd + run, units);
#pragma unroll
    for (int n = 0; n < S::rowTiles; n++)
#pragma unroll
      for (int i = 0; i < each; i++)
#pragma unroll
        for (int r = 0; r < 4; r++) totals[i][n][r] += sums[i][n][r], sums[i][n][r] = 0;
  };
  for (int stage = 0; stage * stageTiles < inputTiles; stage++) {
    ptx::cpAsyncWait<stages - 2>();
    __syncthreads();
    copy(stage + stages - 1);  // where the stage before this one was
    __syncwarp();              // whatever branches were in that, what follows takes whole warps
    if constexpr (S::scaled) {
      uint32_t group[each][groupTiles][4];
      const float* const pairScales = scalesOf(stage) + (warpOut * each * 8 + lane / 4) * 2;
#pragma unroll
      for (int i = 0; i < each; i++)
#pragma unroll
        for (int k = 0; k < S::stageSteps; k++)
          widenFragments(weightsOf(stage)[((warpOut * each + i) * S::stageSteps + k) * 32 + lane], group[i][2 * k],
                         group[i][2 * k + 1]);
#pragma unroll
      for (int n = 0; n < S::rowTiles; n++) {
        uint32_t of[groupTiles / 2][4];
#pragma unroll
        for (int k = 0; k < groupTiles / 2; k++)
          ptx::ldmatrix_x4(of[k],
                           rowsOf(stage) + swizzled((warpRows * S::rowTiles + n) * 8 + lane % 8, 4 * k + lane / 8));
#pragma unroll
        for (int i = 0; i < each; i++) addGroup(sums[i][n], group[i], of, loadPair(pairScales + i * 16));
      }
      if (++done == runEnd) endRun();
      continue;
    }
    load(0, stage, 0);
#pragma unroll
    for (int k = 0; k < stageTiles; k++) {
      if (k + 1 < stageTiles) load((k + 1) % 2, stage, k + 1);
      if (done == inputTiles) break;
#pragma unroll
      for (int n = 0; n < S::rowTiles; n++)
#pragma unroll
        for (int i = 0; i < each; i++) ptx::mma_m16n8k16_bf16(sums[i][n], a[k % 2][i], b[k % 2][n]);
      if (++done == runEnd) endRun();
    }
  }
  finishAll<S, epilogue>(p, totals, scales, firstRow, firstRow + warpRows * S::rowTiles * 8 + lane % 4 * 2,
                         (firstTile + warpOut * each) * 8 + lane / 4);
}

template <class S>
int blocksOf(const Projection& p, int& rowBlocks, int& outputBlocks) {
  rowBlocks = (p.rows + S::rows - 1) / S::rows;
  outputBlocks = (p.weights.tiles() + S::tiles - 1) / S::tiles;
  return rowBlocks * outputBlocks;
}

template <class S, Epilogue epilogue>
cudaError_t runAs(const Projection& p, StepStream stream) {
  int rowBlocks, outputBlocks;
  const int blocks = blocksOf<S>(p, rowBlocks, outputBlocks);
  return launchInStep(tiledKernel<S, epilogue>, static_cast<unsigned>(blocks), S::threads, stages * S::stageBytes,
                      stream, p, rowBlocks, outputBlocks, releaseOf(p, stream));
}

// A small block does a quarter of the work of a large one, in about a third of its time where a multiprocessor is full.
bool fitsLarge(const Projection& p) {
  const int processors = p.processors > 0 ? p.processors : usualProcessors;
  int rowBlocks, outputBlocks;
  const int large = blocksOf<Large>(p, rowBlocks, outputBlocks),
            small = blocksOf<Small<WeightFormat::bfloat16>>(p, rowBlocks, outputBlocks);
  return 3 * ((large + processors - 1) / processors) <= (small + processors - 1) / processors;
}

template <Epilogue epilogue>
cudaError_t run(const Projection& p, Tile tile, StepStream stream) {
  if (p.weights.scaled()) return runAs<Small<WeightFormat::int8>, epilogue>(p, stream);
  return tile == Tile::large || (tile == Tile::fitting && fitsLarge(p))
             ? runAs<Large, epilogue>(p, stream)
             : runAs<Small<WeightFormat::bfloat16>, epilogue>(p, stream);
}

}  // namespace

cudaError_t projectTiled(const Projection& p, StepStream stream, Tile tile) {
  if (!possiblePacked(p) || p.guides.table) return cudaErrorInvalidValue;
  return withEpilogue(p.epilogue, [&](auto epilogue) { return run<decltype(epilogue)::value>(p, tile, stream); });
}

}  // namespace parvis::cuda
