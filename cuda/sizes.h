// How the CUDA backend lays its data out, without CUDA: what kernels and host code agree on, and what the memory of a
// model is worked out from in every build (layout.h).
#pragma once

#include <cstddef>
#include <cstdint>

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

// int8 is refused before anything is loaded.
constexpr WeightFormat formatOf(Precision precision) {
  return precision == Precision::float32 ? WeightFormat::float32 : WeightFormat::bfloat16;
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
//   data [tiles][inputTiles][32 lanes][8] bfloat16, zero beyond the matrix
struct Packed {
  uint16_t* data;
  int pairs, inputs;
  PARVIS_HOST_DEVICE int tiles() const { return (pairs + 7) / 8; }
  PARVIS_HOST_DEVICE int inputTiles() const { return (inputs + 15) / 16; }
  PARVIS_HOST_DEVICE size_t elements() const {
    return static_cast<size_t>(tiles()) * static_cast<size_t>(inputTiles()) * 256;
  }
};

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
