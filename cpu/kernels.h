// The operations that are compiled once for each instruction set (cpu/isa/unit.cc) and picked at run time. Raw
// pointers in, nothing out; no allocation, no threads: a caller splits the work by panels, rows or heads.
//
// One inner loop serves projections, convolutions and attention: rows of activations against a packed matrix.
// Packed matrix [outputs, inputs]: panels of 32 outputs; in a panel, group g holds inputs g*step .. g*step+step-1
// (step: 1 for float32, 2 for bfloat16, 4 for int8) of all 32 outputs, i.e. 128 contiguous bytes a group in any format:
// of float32 and bfloat16 output by output, of int8 input by input. Before the groups of each 64 inputs of int8 stand
// 32 scales. A panel is read front to back, so a product of few rows runs at the speed of memory. Rows and panels are
// padded with zeros (outputs to 32, inputs to the step, of int8 to 64). The order of sums over inputs never depends on
// how many rows or threads there are: pictures are the same bytes in any batch.
//
// Activations are float32 where the instruction set has no products of bfloat16: then numbers of matrices and caches
// are widened on their way into a product, and nothing else is rounded. A filter of a tokenizer is multiplied with
// thousands of pixels each time it is read, so there it is float32 at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "parvis/format.h"
#include "parvis/products.h"
#include "parvis/rule.h"

namespace parvis::cpu {

constexpr int panelOutputs = 32;
constexpr int groupBytes = 128;

enum class Element { float32, bfloat16 };
constexpr int inputStep(Element e) { return e == Element::float32 ? 1 : 2; }
// Inputs of a group of a packed matrix.
constexpr int groupInputs(WeightFormat f) {
  return f == WeightFormat::float32 ? 1 : f == WeightFormat::bfloat16 ? 2 : 4;
}
constexpr size_t elementSize(Element e) { return e == Element::float32 ? 4 : 2; }
constexpr WeightFormat formatOf(Element e) {
  return e == Element::float32 ? WeightFormat::float32 : WeightFormat::bfloat16;
}

// What a precision comes to on this machine.
struct Numbers {
  WeightFormat weights = WeightFormat::float32;  // of matrices
  Element kept = Element::float32;               // of tables of vectors and key/value caches
  Element activations = Element::float32;        // and of all that a tokenizer has
};
Numbers numbersOf(Precision precision);

enum class Epilogue {
  store,   // y = product + bias
  add,     // y += product + bias
  swiglu,  // panel = 16 gates, 16 ups: out = silu(gate) * up, elements, 16 a panel; there is no bias
  gelu,    // out = gelu(product + bias), elements, 32 a panel
};

struct Matmul {
  const void* x;  // [rows, xStride] elements, padded with zeros to the inputs of a group
  ptrdiff_t xStride;
  int rows;
  const uint8_t* w;  // packed
  int inputs;
  Epilogue epilogue;
  const float* bias;  // [outputs rounded up to 32] or null
  float* y;           // [rows, yStride], yStride >= outputs rounded up to 32 (store, add)
  void* out;          // [rows, yStride] elements (swiglu, gelu)
  ptrdiff_t yStride;
};

// Convolution of an NHWC picture that already has its border, or of one frame of a video. Output row `oy` reads input
// rows oy*stride + tap.
struct Convolution {
  const void* x[3];  // each [height + border, xRow / channels, channels] elements: the frames that the taps of time
                     // read, in their order; of a picture the first one alone
  int frames;        // 1 or 3
  ptrdiff_t xRow;    // elements an input row
  int channels;      // padded to the input step
  int kernel;        // 1 or 3
  int stride;
  const uint8_t* w;  // packed [outputs, frames * kernel * kernel * channels]
  int outputs;
  const float* bias;      // [outputs]
  const float* residual;  // [height, width, outputs] or null
  float* y[2];            // [height, width, outputs]; or depth to space, whose second frame is y[1]. Null: not wanted
  int width;              // of the output, before depth to space
  // Depth to space: output o of a pixel is output o mod part of block o / part = (time * space + row) * space + column,
  // where part = outputs / (time * space * space) is a multiple of 32.
  int time = 1, space = 1;
};

struct CacheHead {  // key and value cache of one layer, stream and key/value head
  uint8_t* keys;    // packed [slots, headSize]
  uint8_t* values;  // packed [headSize, slots]
  int slots;        // capacity, a multiple of 32
};

struct AttentionRow {
  int32_t slot;     // -1: key and value are not kept
  int32_t cell[3];  // positions along the axes of rotation; -1: none
  int32_t sees;
};

// Which pairs of a head turn along which axis: the first pairs[0] along axis 0, and so on; the rest does not turn.
struct Rotation {
  int pairs[3];
  const float* cosine;  // [positions, 2 * rotated pairs]: (c, c) for each pair
  const float* sine;    // (-s, s)
};

struct Attention {
  const float* qkv;  // [rows, qkvStride]: queries of all heads, keys, values
  ptrdiff_t qkvStride;
  const AttentionRow* rows;
  int count;
  int headSize;
  int queryHeads;     // query heads of this key/value head
  ptrdiff_t q, k, v;  // offsets of the first query head, the key and the value in a row
  CacheHead cache;
  Rotation rotation;
  void* out;  // [rows, outStride] elements; the first query head's part
  ptrdiff_t outStride;
  void* scratch;  // attentionScratch bytes
};

struct Norm {
  bool layer;  // LayerNorm; else RMSNorm
  const float* x;
  const float* weight;
  const float* bias;  // [dim] (LayerNorm)
  void* out;          // elements
  int dim;
  float eps;
};

// Group normalisation + swish (or neither) of one picture row into a staging buffer with a border.
struct Stage {
  const float* x;  // [width, channels]
  int width, channels;
  const float* scale;  // [channels] or null: copy
  const float* shift;
  bool swish;
  const float* slope;  // [channels] or null: swish is x sigmoid(slope x)
  int repeat;          // 1 or 2: each pixel this often (nearest upsampling)
  void* out;           // [width * repeat, outChannels] elements
  int outChannels;
};

struct Draw {
  const float* conditional;    // [vocabulary]
  const float* unconditional;  // [vocabulary] or null
  int vocabulary;
  SamplingRule rule;
  float guidance;
  uint64_t seed;
  uint32_t index;
  float* logits;      // [vocabulary] scratch: the guided logits afterwards
  uint64_t* weights;  // [vocabulary] scratch
};

struct Kernels {
  const char* isa;
  Element activations;  // of all formats but float32
  // By the format of the matrix or of the cache.
  void (*matmul[weightFormats])(const Matmul&, int panelBegin, int panelEnd);
  void (*attend[2])(const Attention&);
  // By the type of activations.
  void (*convolve[2])(const Convolution&, int panelBegin, int panelEnd, int rowBegin, int rowEnd);
  void (*attendPlain[2])(const void* q, ptrdiff_t qStride, int queries, int width, const CacheHead&, int keys,
                         float scale, float* out, ptrdiff_t outStride, void* scratch);
  void (*norm[2])(const Norm&);
  void (*stage[2])(const Stage&);
  void (*sums)(const float* x, int pixels, int channels, double* sum, double* squares);  // adds to both [channels]
  uint32_t (*read)(const uint8_t* p, size_t bytes);
  float (*multiply[2])(const void* x, const uint8_t* w, int rounds);  // rows of 64 groups in cache
  int multiplied[2];                                                  // products of a round
  void (*toElements[2])(const float* from, void* to, size_t count);
  void (*addProducts)(const Products&);
};

struct Sampler {
  int32_t (*draw)(const Draw&);  // token, or -1 where no logit is finite
  bool (*score)(const Draw&, int32_t token, float* logProb);
  void (*guide)(const Draw&);  // guided logits only
};

// Bytes of scratch for `attend` and `attendPlain` over so many slots.
size_t attentionScratch(int slots, int headSize);

const Kernels& kernels();
const Sampler& sampler();

}  // namespace parvis::cpu
