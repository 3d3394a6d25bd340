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

constexpr int maxSplitQueries = 64;  // queries of a key/value head in a step: up to here attend, above it attendRows
constexpr int maxLogitRows = 1024;   // that exist at a time

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

}  // namespace parvis::cuda
