// What the seam knows of a model: sizes, and where each tensor lies in a file. Names are those of the official
// checkpoints. No kernel reads a file and no backend guesses a size: TypeScript worked all of it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace parvis {

enum class DType { float32, float16, bfloat16 };
enum class Precision { float32, bfloat16 };  // of weights and multiplied activations; sums are float32

constexpr size_t byteSize(DType type) { return type == DType::float32 ? 4 : 2; }

// One tensor in a checkpoint file, row-major unless `strides` says otherwise.
struct TensorSource {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;           // bytes from the start of the file to element [0, 0, ...]
  std::vector<int64_t> strides;  // elements; empty: contiguous
};

// A checkpoint file, and (where `known`) what the system said of it when its header was read: another file that has taken its
// place, and one that has been written to since, are refused.
struct CheckpointFile {
  CheckpointFile() = default;
  CheckpointFile(std::string path) : path(std::move(path)) {}
  CheckpointFile(const char* path) : path(path) {}
  std::string path;
  bool known = false;
  uint64_t device = 0, inode = 0, size = 0, modified = 0;  // nanoseconds since 1970
};

// LlamaGen / PAR transformer: pre-norm blocks, RMSNorm, SwiGLU, 2-D rotary embedding, no biases.
//   cls_embedding.embedding_table.weight            [classes + 1, dim]   (last row: unconditional)
//   tok_embeddings.weight                           [vocabulary, dim]
//   spe_tok_embeddings.special_embeddings.weight    [transitions, dim]   (absent where transitions = 0)
//   layers.i.attention.wqkv.weight                  [(heads + 2 kvHeads) headSize, dim]
//   layers.i.attention.wo.weight                    [dim, heads headSize]
//   layers.i.feed_forward.w1|w3.weight              [feedForward, dim]
//   layers.i.feed_forward.w2.weight                 [dim, feedForward]
//   layers.i.attention_norm|ffn_norm.weight         [dim]
//   norm.weight [dim], output.weight [vocabulary, dim]
struct TransformerModel {
  int layers = 0, dim = 0, heads = 0, kvHeads = 0, headSize = 0, feedForward = 0;
  int vocabulary = 0, classes = 0, transitions = 0;
  float normEps = 1e-5f, ropeBase = 10000.0f;
};

// VQ tokenizer; level i has baseChannels * multipliers[i] channels, i = 0 the finest.
struct TokenizerModel {
  int baseChannels = 0, residualBlocks = 0, zChannels = 0, codebook = 0, codeSize = 0, groups = 32;
  std::vector<int> multipliers;
  float normEps = 1e-6f;

  int levels() const { return static_cast<int>(multipliers.size()); }
  int factor() const { return 1 << (levels() - 1); }  // pixels a token, each way
};

}  // namespace parvis
