// How the CUDA backend lays its data out, without CUDA: what kernels and host code agree on, and what the memory of a
// model is worked out from in every build (layout.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "parvis/format.h"
#include "parvis/model.h"
#include "parvis/random.h"
#include "parvis/step.h"

namespace parvis::cuda {

enum class Element {
  float32,
  bfloat16,
  float16
};  // both halves as uint16_t; float16 only where pack.cu reads what is stored
constexpr size_t sizeOf(Element e) { return e == Element::float32 ? 4 : 2; }

constexpr Element elementOf(Precision precision) {
  return precision == Precision::float32 ? Element::float32 : Element::bfloat16;
}

// Rows of one stream, which follow each other. count 0: padding.
struct StreamRows {
  int32_t stream, first, count;
  int32_t tile;  // tiles of attend() that the groups before it have
};

// Rows of a projection above which the arithmetic decides, not the stream of weights.
constexpr int maxSkinnyRows(WeightFormat format) { return format == WeightFormat::int8 ? 32 : 64; }

constexpr int maxSplitQueries = 64;  // queries of a key/value head in a step: up to here attend, above it attendRows
// Rows of a stream that a pass with guesses has at most: attendRows sums up in another order. More rows belong to one
// step.
inline int maxGuessingRows(const TransformerModel& m) {
  return maxSplitQueries / (m.heads / m.kvHeads) > 1 ? maxSplitQueries / (m.heads / m.kvHeads) : 1;
}
constexpr int maxLogitRows = 1024;  // that exist at a time

// Sums of squares of 16 elements of a row each.
PARVIS_HOST_DEVICE constexpr int squaresStride(int dim) { return (dim + 63) / 64 * 4; }

// Head sizes are padded to 16 elements: 100 -> 112.
PARVIS_HOST_DEVICE constexpr int paddedHead(int headSize) { return (headSize + 15) / 16 * 16; }

// Elements of a row of activations, padded to 16.
inline ptrdiff_t rowStride(int elements) { return (static_cast<ptrdiff_t>(elements) + 15) / 16 * 16; }

// A matrix [2 pairs, inputs] in fragment order. Output pairs, not outputs, are what is counted: `low` and `high` of
// pair j are outputs 2j and 2j+1, or gate j and up j. Tile T holds pairs 8T .. 8T+7, low ones in the upper eight rows
// of the A operand, high ones in the lower eight: a lane then has both of a pair in its accumulators.
//   data [tiles][steps][32 lanes][16 bytes], zero beyond the matrix. A step is what a warp reads at once:
//     bfloat16: a tile of 16 inputs; int8: two of them. Inputs of int8 are padded to whole groups of 64.
//   int8: behind it the scales [tiles][groups][8 pairs][low, high], float32
struct Packed {
  void* data;
  int pairs, inputs;
  WeightFormat format = WeightFormat::bfloat16;
  PARVIS_HOST_DEVICE bool scaled() const { return format == WeightFormat::int8; }
  PARVIS_HOST_DEVICE int tiles() const { return (pairs + 7) / 8; }
  PARVIS_HOST_DEVICE int inputTiles() const { return (inputs + 15) / 16; }
  PARVIS_HOST_DEVICE int groups() const { return scaleGroups(inputs); }
  PARVIS_HOST_DEVICE int steps() const { return scaled() ? 2 * groups() : inputTiles(); }
  PARVIS_HOST_DEVICE size_t dataBytes() const {
    return static_cast<size_t>(tiles()) * static_cast<size_t>(steps()) * 512;
  }
  PARVIS_HOST_DEVICE size_t bytes() const {
    return dataBytes() + (scaled() ? static_cast<size_t>(tiles()) * static_cast<size_t>(groups()) * 64 : 0);
  }
  PARVIS_HOST_DEVICE float* scales() const {
    return reinterpret_cast<float*>(static_cast<uint8_t*>(data) + dataBytes());
  }
  // Where the steps and the scales of a tile of outputs begin.
  PARVIS_HOST_DEVICE uint8_t* stepsAt(int tile) const {
    return static_cast<uint8_t*>(data) + static_cast<size_t>(tile) * static_cast<size_t>(steps()) * 512;
  }
  PARVIS_HOST_DEVICE float* scalesAt(int tile) const {
    return scales() + static_cast<size_t>(tile) * static_cast<size_t>(groups()) * 16;
  }
};
static_assert(scaleInputs == 64);

// ---- attention over split keys: attend.cu ---------------------------------------------------------------------

constexpr int attentionSpan = 128;  // keys of a split
// For so many tiles (of tileQueries queries each, every group for itself) of any groups.
constexpr int tileQueries = 16;
inline size_t attentionCounters(int tiles, int kvHeads) {
  return static_cast<size_t>(tiles) * static_cast<size_t>(kvHeads);
}
inline size_t attentionPartials(int tiles, int kvHeads, int headSize, int slots) {
  const size_t splits = static_cast<size_t>((slots + attentionSpan - 1) / attentionSpan);
  return attentionCounters(tiles, kvHeads) * splits * static_cast<size_t>(tileQueries * (paddedHead(headSize) + 2));
}

// ---- draws: sample.cu -------------------------------------------------------------------------------------------

// A prediction as the kernels find it. token -1: padding.
struct Drawing {
  int32_t seat, token;
  int32_t conditional, unconditional;  // rows of logits, of all chunks together; unconditional -1: no guidance
  int32_t kept;                        // place among the seat's kept logits; -1: none
  float guidance;
  SamplingRule rule;
};

// ---- the ring of tables: ring.cuh ---------------------------------------------------------------------------------

// What a part of the ring ends with.
struct PartEnd {
  int32_t from[4], count[4];  // ints that the step needs of it
  uint32_t step;              // number of the step plus 1, written last; 0: none may take it ahead
  int32_t unused[3];
};
constexpr int partEndInts = 12;
static_assert(sizeof(PartEnd) == partEndInts * sizeof(int32_t));
// More is not brought ahead: it would take longer than the kernel beside which it is done.
constexpr int maxAheadInts = 4096;

// ---- passes that the device puts together: compose.cu -------------------------------------------------------------

// A row of a plan with what the kernel needs to know of it.
struct DeviceRow {
  PlannedRow row;
  int32_t step;     // that it belongs to
  int32_t queries;  // rows before it that run through the cross layers
  float guidance;   // scale of its prediction
  int32_t unused;
};
static_assert(sizeof(DeviceRow) == 12 * sizeof(int32_t));

// The plan of a seat, as it lies in memory: this, and behind it
//   int32_t rows[steps + 1]      before each step, and in all
//   int32_t queries[steps + 1]   the same of rows that run through the cross layers
//   int32_t notBefore[steps]     a pass that begins before that step cannot hold this one
//   int32_t guesses[guessCount]  of each token: the one whose value is its first guess, or -1
//   DeviceRow of each row
struct PlanHeader {
  int32_t steps, streams, guessCount, unused;
  SamplingRule rule;
};
static_assert(sizeof(PlanHeader) == 8 * sizeof(int32_t));
PARVIS_HOST_DEVICE constexpr int64_t planInts(int64_t steps, int64_t rows, int64_t guesses) {
  return 8 + 3 * steps + 2 + guesses + 12 * rows;
}

// A sequence in a pass, as it lies in the ring. Kind 0: rows that run through the layers; kind 1: through the cross
// layers. Rows and groups are counted from the first one of their kind.
struct PassEntry {
  int32_t seat;             // -1: padding
  int32_t base;             // its steps that are done; -1: as many as the passes before have shown
  int32_t steps;            // of the pass, at most
  int32_t places[2];        // [kind]: for its rows of one stream
  int32_t first[2][2];      // [kind][stream]: the first of those
  int32_t group[2][2];      // the same of its group
  int32_t tile[2][2];       // tiles of attend() that the groups before it may have
  int32_t drawing, logits;  // the first of its predictions, and of its rows of logits where they are gathered
  int32_t unused;
};
constexpr int passEntryInts = 20;
static_assert(sizeof(PassEntry) == passEntryInts * sizeof(int32_t));

// How far the passes of a seat have come: it read guesses up to step `end`, and is done up to step `base`, unless
// nothing waits to be looked at (end <= base).
struct SeatPass {
  int32_t base, end;
  uint32_t passes;  // that were put together
};

}  // namespace parvis::cuda
