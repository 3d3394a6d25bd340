// A step is a table of rows made by TypeScript and run without further questions. The backend knows nothing of
// regions, orders or images; PAR, its ablations and newer parallel decoders differ in the table only.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace parvis {

// Seven ints; the layout is that of the Int32Array that TypeScript passes.
struct Row {
  int32_t input;     // >= 0: sequence index of the token read; -1: class; -1-k: transition token M_k
  int32_t slot;      // cache slot whose key and value this row writes
  int32_t row;       // rotation cell of the input; -1: none, i.e. cosine and sine both zero
  int32_t column;
  int32_t append;    // 1: key and value enter the cache
  int32_t sees;      // visible cache prefix, rows appended in this step included
  int32_t predicts;  // sequence index that the row's logits give; -1: none
};
static_assert(sizeof(Row) == 7 * sizeof(int32_t));

constexpr int32_t classInput = -1;

struct StepRule {
  enum class Mode { sample, score } mode = Mode::sample;
  float guidanceScale = 1;  // logits = u + scale (c - u)
  float temperature = 1;    // 0: the likeliest token
  int topK = 0;             // 0: off; ties with the k-th are kept
  float topP = 1;           // 1: off; the first token above p is kept
};

struct SessionOptions {
  std::vector<int32_t> classIds;    // one a sequence
  std::vector<uint64_t> seeds;      // one a sequence: key of its random numbers
  bool guided = false;              // unconditional rows beside the conditional ones
  int slots = 0;                    // cache slots a sequence
  int tokens = 0;                   // tokens a sequence
  int maxRows = 0;                  // most rows of a table
  std::vector<int32_t> known;       // [sequences, tokens] or empty; negative: unknown
  std::vector<int32_t> keepLogits;  // sequence positions whose logits are kept
};

// Set from any thread; looked at between layers.
using Cancel = std::atomic<bool>;

}  // namespace parvis
