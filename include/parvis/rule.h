// How logits become a token. In a header of its own because cpu/isa/ includes it, which takes nothing of the standard
// library.
#pragma once

#include <cstdint>

namespace parvis {

enum class Mode : int32_t {
  sample,  // draws the token: one random number goes into the sums of the probabilities
  score,   // reads the token, which is known, and writes its log-probability
  gumbel,  // draws the token: that of the largest log-probability plus a random number of its own
};

// Four 4-byte numbers; the layout is that of the Int32Array that TypeScript passes.
struct SamplingRule {
  Mode mode;
  float temperature;  // 0: the likeliest token
  int32_t topK;       // 0: off; ties with the k-th are kept
  float topP;         // 1: off; the first token above p is kept
};

}  // namespace parvis
