// One operation by itself, run on numbers that somebody gives, or timed on random ones. Tests compare it with a plain
// reference. A backend runs what its sessions and tokenizers run, chosen in the same way. Elements are float32 on both
// sides of the seam and are rounded to the precision where the backend keeps them in it.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"
#include "status.h"
#include "step.h"

namespace parvis {

// Inputs by kind, in this order (row-major; what stands in brackets only where the case has it):
//   projection  x [rows, inputs]  [norm [inputs]]  weights [outputs, inputs], or swiglu: gates, then ups [2 outputs, inputs]
//               [y [rows, outputs]: add]                                                   -> y [rows, outputs]
//   attention   x [streams rows, dim]  norm [dim]  wqkv [(heads + 2 kvHeads) headSize, dim]
//               keys, values [streams, kvHeads, sees - rows, headSize]: the cache before it, keys as they are there, turned
//               -> attended [streams rows, heads headSize]. RMSNorm, projection, rotation, append, attention. Row i of a stream
//               is slot and cell sees - rows + i of a grid of `grid` columns, and sees `sees` slots.
//   draw        logits [draws, vocabulary]  [unconditional [draws, vocabulary]: guided]    -> tokens [draws]; draw i is
//               position i of a sequence with seed 1
//   convolution x [images, height, width, channels]  weights [outputs, channels, kernel, kernel]  bias [outputs]
//               [norm weight, bias [channels]: groups > 0]  [residual, of y's shape]        -> y [images, height', width', outputs]
//   spatialAttention  x [images, height, width, channels]  norm weight, bias [channels]  q, k, v, proj_out: weights
//               [channels, channels], bias [channels] each                                  -> y of x's shape
struct Operation {
  enum class Kind { projection, attention, draw, convolution, spatialAttention } kind = Kind::projection;
  Precision precision = Precision::float32;
  float eps = 1e-5f;  // of the norm
  // projection
  enum class Epilogue { store, add, swiglu } epilogue = Epilogue::store;
  bool normed = false;
  int inputs = 0, outputs = 0;  // outputs: also of a convolution
  int rows = 0;                 // of a stream: attention
  // attention
  int streams = 1, sees = 0, dim = 0, heads = 0, kvHeads = 0, headSize = 0, grid = 0;
  // draw
  int draws = 0, vocabulary = 0;
  bool guided = false;
  StepRule rule;
  // pictures
  enum class Resample { none, down, up } resample = Resample::none;
  int images = 1, height = 0, width = 0, channels = 0, kernel = 1, groups = 0;  // groups 0: no norm
  bool swish = false, residual = false;
};

// How often it runs, and on what.
struct OperationRun {
  std::vector<std::vector<float>> inputs;  // empty: random numbers, for timing
  int copies = 1;   // of the weights (and of the caches), taken in turn, so that they do not stay in a cache of the processor
  int warmup = 0, repeats = 0;             // turns over all copies
};

struct OperationResult {
  std::vector<float> output;  // of the first run; empty where the numbers were random
  std::vector<double> ms;     // of each turn, divided by the copies
};

// The shapes that a case's inputs must have, in their order.
std::vector<std::vector<int64_t>> operationInputs(const Operation& o);
// Outside of what a backend can be asked.
Status checkOperation(const Operation& o, const OperationRun& run);

}  // namespace parvis
