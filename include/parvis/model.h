// What the seam knows of a model: sizes, flags, and where each weight lies in a file. Weights have roles, not the names
// of any checkpoint. No kernel reads a file and no backend guesses a size: TypeScript worked all of it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "format.h"

namespace parvis {

enum class DType { float32, float16, bfloat16, int8 };

constexpr size_t byteSize(DType type) { return type == DType::float32 ? 4 : type == DType::int8 ? 1 : 2; }

// One tensor in a checkpoint file, row-major unless `strides` says otherwise.
struct TensorSource {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;           // bytes from the start of the file to element [0, 0, ...]
  std::vector<int64_t> strides;  // elements; empty: contiguous
  // Of an int8 matrix [rows, inputs], which is contiguous: bytes to its scales, float32 [rows, ceil(inputs /
  // scaleInputs)].
  uint64_t scales = 0;
};

// A weight of a model, by what it is for ("layers.3.qkv"): one tensor of the file, or several that are stacked by rows.
struct WeightSource {
  std::string role;
  std::vector<TensorSource> parts;
};

// A checkpoint file, and (where `known`) what the system said of it when its header was read: another file that has
// taken its place, and one that has been written to since, are refused.
struct CheckpointFile {
  CheckpointFile() = default;
  CheckpointFile(std::string path) : path(std::move(path)) {}
  CheckpointFile(const char* path) : path(path) {}
  std::string path;
  bool known = false;
  uint64_t device = 0, inode = 0, size = 0, modified = 0;  // nanoseconds since 1970
};

// How rows are normalised.
enum class NormKind {
  rms,    // x / rms(x) * weight
  layer,  // (x - mean(x)) / deviation(x) * weight + bias
};
enum class Activation {
  swiglu,  // silu(gate x) * up x
  gelu,    // gelu(up x), by the error function
};

// A decoder of pre-norm blocks: x += attention(norm(x)), x += feedForward(norm(x)). Its weights, by role:
//   classes [classes + 1, dim]  (last row: no class)      tokens [vocabulary + textTokens, dim]
//   specials [specials, dim]                          positions [positions, dim]
//   embeddingNorm                                         where embeddingNorm
//   layers.i.attentionNorm, layers.i.feedForwardNorm, finalNorm
//   layers.i.qkv [(heads + 2 kvHeads) headSize, dim]      layers.i.attentionOutput [dim, heads headSize]
//   layers.i.gate, layers.i.up [feedForward, dim]         (gate: swiglu)
//   layers.i.down [dim, feedForward]                      head [vocabulary, dim]
// A norm has `.weight` [dim] and, of kind `layer`, `.bias`; a projection `.weight` and, with `bias`, `.bias` [outputs].
// The head has no bias.
//   With cross layers a step has two stacks (ARPG, 2503.10568). Rows with a slot run through the layers. What comes out
// of those becomes keys and values of one more cache, which all cross layers share. Rows without a slot are queries:
// they run through the cross layers, see the shared cache and not each other, and they alone predict. More weights:
//   shared.norm, shared.keysValues [2 kvHeads headSize, dim]
//   crossLayers.i.attentionNorm, .attentionOutput, .feedForwardNorm, .gate, .up, .down: as those of a layer
//   crossLayers.i.queries [heads headSize, dim]
struct TransformerModel {
  int layers = 0, crossLayers = 0, dim = 0, heads = 0, kvHeads = 0, headSize = 0, feedForward = 0;
  int vocabulary = 0, classes = 0;
  int textTokens = 0;           // that a sequence may begin with, numbered behind the vocabulary; none is ever drawn
  int specials = 0;             // vectors that rows may read in place of a token
  bool rotateSpecials = false;  // they are rotated by the row's cell, head by head, as queries are
  int positions = 0;            // rows of the table of learned positions; 0: there is none
  NormKind norm = NormKind::rms;
  Activation activation = Activation::swiglu;
  bool bias = false;           // of the projections of a layer
  bool embeddingNorm = false;  // LayerNorm of the embeddings, learned positions included, whatever the other norms are
  // Pairs of elements of a head that frame, row and column of a cell rotate, in this order; pairs beyond them stay as
  // they are.
  int rotationPairs[3] = {0, 0, 0};
  float normEps = 1e-5f, ropeBase = 10000.0f;
};

enum class Resample { none, down, up };

// A layer of a tokenizer on a picture [height, width, channels]. Its weights, behind the role of the layer; each
// convolution and norm has `.weight` and `.bias`:
//   convolution: its own, and norm where it is normed     attention: norm, q, k, v, out
//   residual: norm1, conv1, norm2, conv2, and shortcut where channels and outputs differ
struct TokenizerLayer {
  enum class Kind {
    convolution,
    residual,   // two 3x3 convolutions, each behind a group norm and swish; the input is added
    attention,  // of all pixels to each other, one head, behind a group norm; the input is added
  };
  Kind kind = Kind::convolution;
  int channels = 0, outputs = 0;
  // Of a convolution:
  int kernel = 3;                      // side of the filter, 1 or 3
  bool normed = false;                 // a group norm and swish come first
  Resample resample = Resample::none;  // of the picture before a 3x3 convolution

  bool readsNormed() const { return kind != Kind::convolution || normed; }
};

// A tokenizer of pictures: layers `encoder.i` from 3 channels to codeSize, the weight `codebook` [codebook, codeSize],
// whose rows are normalised to length 1, and layers `decoder.i` back to 3 channels.
struct TokenizerModel {
  int codebook = 0, codeSize = 0, groups = 32;
  float normEps = 1e-6f;
  std::vector<TokenizerLayer> encoder, decoder;

  // Pixels a token, each way.
  int factor() const {
    int factor = 1;
    for (const TokenizerLayer& l : decoder) factor *= l.resample == Resample::up ? 2 : 1;
    return factor;
  }
};

// A layer of a causal tokenizer of videos, on frames [height, width, channels] that come one after another. Edges are
// replicated: a filter of 3 reads this frame and the two before it, and in a frame one pixel each way. Its weights,
// behind the role of the layer; each convolution has `.weight` and `.bias`, each norm these two and `.slope`
// [channels], of the swish x sigmoid(slope x) behind it:
//   convolution: its own, and norm where it is normed
//   residual: norm1, conv1, norm2, conv2, and shortcut where channels and outputs differ
struct VideoLayer {
  enum class Kind {
    convolution,
    residual,  // two filters of 3, each behind a group norm of each frame and swish; the input is added
  };
  Kind kind = Kind::convolution;
  int channels = 0, outputs = 0;
  // Of a convolution:
  int kernel = 3;                       // side of the filter in time and space, 1 or 3
  bool normed = false;                  // a group norm of each frame and swish come first
  int strideTime = 1, strideSpace = 1;  // 2: at every other frame, the first one included; at every other pixel
  int expandTime = 1, expandSpace = 1;  // 2: the outputs of a pixel become 2 frames, 2 x 2 pixels. The block is the
                                        // outer part of an output's number; of the first frame the earlier half is gone

  int blocks() const { return expandTime * expandSpace * expandSpace; }
  bool readsNormed() const { return kind != Kind::convolution || normed; }
};

// A tokenizer of videos: layers `encoder.i` from 3 channels to one channel for each level, finite scalar quantisation
// (Mentzer et al. 2023) in place of a codebook, and layers `decoder.i` back to 3 channels. Pixels are 0..1.
struct VideoTokenizerModel {
  std::vector<int> levels;
  int groups = 32;
  float normEps = 1e-5f;
  std::vector<VideoLayer> encoder, decoder;

  int codes() const {
    int codes = 1;
    for (const int level : levels) codes *= level;
    return codes;
  }
  // Frames that follow a latent frame behind the first one, and pixels a token, each way.
  int factorTime() const {
    int factor = 1;
    for (const VideoLayer& l : decoder) factor *= l.expandTime;
    return factor;
  }
  int factorSpace() const {
    int factor = 1;
    for (const VideoLayer& l : decoder) factor *= l.expandSpace;
    return factor;
  }
};

}  // namespace parvis
