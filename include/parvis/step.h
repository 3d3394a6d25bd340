// A step is a table of rows and a list of predictions, made by TypeScript and run without further questions. The
// backend knows nothing of regions, orders or images: PAR, its ablations and other parallel decoders differ in the
// table only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rule.h"

namespace parvis {

// One row of activations. Rows of one stream follow each other. Eight ints; the layout is that of the Int32Array that
// TypeScript passes.
struct Row {
  int32_t stream;    // seat * streamsEach + k: whose key/value cache it reads and writes
  int32_t input;     // >= 0: the token of this index in the seat's sequence; -1: the class; -1-k: special vector k
  int32_t position;  // row of the table of learned positions that is added to the input; -1: none
  int32_t cell[3];   // frame, row and column that rotate query and key; -1: their part of query and key is zero
  int32_t slot;      // cache slot that receives key and value; -1: none
  int32_t sees;      // length of the visible prefix of the cache, rows of this step included
};
static_assert(sizeof(Row) == 8 * sizeof(int32_t));

// What the logits of a row are for. Six 4-byte numbers, as TypeScript passes them.
struct Prediction {
  int32_t row;            // of the step
  int32_t unconditional;  // row of the step whose logits guide; -1: none
  int32_t token;          // index in the seat's sequence
  int32_t rule;           // of the step's list
  int32_t kept;           // place among the seat's kept logits; -1: they are not kept
  float guidance;         // logits = u + guidance (c - u); 1: u is not looked at
};
static_assert(sizeof(Prediction) == 6 * sizeof(int32_t));

constexpr int32_t classInput = -1;

struct Step {
  const Row* rows;
  int rowCount;
  const Prediction* predictions;
  int predictionCount;
  const SamplingRule* rules;
  int ruleCount;
};

// A pool of seats. A sequence enters a seat, runs in steps together with those in other seats, and leaves.
struct SessionOptions {
  int seats = 0;
  int streamsEach = 1;  // caches of a seat. Stream 0 reads the seat's class; stream 1, where there is one, no class
  int slots = 0;        // of a cache
  int tokens = 0;       // of a sequence
  int maxRows = 0;      // of a step, all streams together
  int kept = 0;         // rows of logits that a seat keeps
  int streams() const { return seats * streamsEach; }
};

struct Sequence {
  int32_t classId = 0;         // classes: no class
  uint64_t seed = 0;           // key of the random numbers
  std::vector<int32_t> known;  // [tokens], negative where unknown; empty: all unknown
};

// A row of a plan. Eight ints; the layout is that of the Int32Array that TypeScript passes.
struct PlannedRow {
  int32_t token;  // index in the seat's sequence of the token that is drawn from its logits; -1: none
  int32_t input, position, cell[3], slot, sees;  // as in Row
};
static_assert(sizeof(PlannedRow) == 8 * sizeof(int32_t));

// All steps of a sequence, told once. Passes run them.
struct SequencePlan {
  std::vector<PlannedRow> rows;  // of one stream
  std::vector<int32_t> ends;     // [steps]: rows up to the end of each
  std::vector<float> shares;  // [rows]: a token is drawn at the guidance scale 1 + share (guidance - 1); empty: all 1
  std::vector<int32_t> guesses;  // [tokens]: the token of that index is the first guess; -1, or empty: token 0 is
  SamplingRule rule;
  double guidance = 1;  // 1: the seat's unconditional stream does not run
  float guidanceOf(size_t row) const {
    return static_cast<float>(1.0 + (shares.empty() ? 1.0 : static_cast<double>(shares[row])) * (guidance - 1.0));
  }
};

// A sequence in a pass, with so many of its next steps at most.
struct PassPart {
  int32_t seat, steps;
};

struct PassResult {
  int rows = 0;  // that it had; on a GPU places for rows, where the device puts them together
  // Of each part:
  std::vector<int32_t> done;    // its steps that are done by now; -1: the seat has failed
  std::vector<int32_t> inPass;  // 1: it was in the pass; 0: it was at its end
};

// Set from any thread; looked at between layers.
using Cancel = std::atomic<bool>;

}  // namespace parvis
