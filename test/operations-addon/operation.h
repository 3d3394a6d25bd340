// One operation by itself, run on given numbers with the code that sessions and tokenizers of the CPU backend run.
// Elements are float32 on both sides and are rounded to the precision where the backend keeps them in it.
#pragma once

#include <cstdint>
#include <vector>

#include "parvis/model.h"
#include "parvis/status.h"
#include "parvis/step.h"

namespace parvis {

// Inputs by kind, in this order (row-major; those in brackets only where the case has them):
//   projection  x [rows, inputs]  [norm [inputs]]  weights [outputs, inputs], or swiglu: gates, then ups
//               [2 outputs, inputs]  [y [rows, outputs]: add]                              -> y [rows, outputs]
//   attention   x [streams rows, dim]  norm [dim]  wqkv [(heads + 2 kvHeads) headSize, dim]
//               keys, values [streams, kvHeads, sees - rows, headSize]: the cache before it, whose keys are rotated
//               -> attended [streams rows, heads headSize]. RMSNorm, projection, rotation, append, attention. Row i of
//               a stream is slot and cell sees - rows + i of a grid of `grid` columns, and sees `sees` slots.
//   draw        logits [draws, vocabulary]  [unconditional [draws, vocabulary]: guided]    -> tokens [draws]; draw i is
//               position i of a sequence with seed 1
//   convolution x [images, height, width, channels]  weights [outputs, channels, kernel, kernel]  bias [outputs]
//               [norm weight, bias [channels]: groups > 0]  [residual, of y's shape]
//               -> y [images, height', width', outputs]
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
  float guidance = 1;
  SamplingRule rule{Mode::sample, 1, 0, 1};
  // pictures
  enum class Resample { none, down, up } resample = Resample::none;
  int images = 1, height = 0, width = 0, channels = 0, kernel = 1, groups = 0;  // groups 0: no norm
  bool swish = false, residual = false;
};

using Inputs = std::vector<std::vector<float>>;

// The shapes that an operation's inputs must have, in their order.
std::vector<std::vector<int64_t>> operationInputs(const Operation& o);
// Refuses sizes outside their ranges, and inputs of other shapes.
Status checkOperation(const Operation& o, const Inputs& inputs);
Status runOperation(const Operation& o, const Inputs& inputs, int threads, std::vector<float>& output);

}  // namespace parvis
