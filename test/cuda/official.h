// The paper's models with random weights, and PAR's real schedule, for the programs that run on a device without
// TypeScript: shapes.cc compares backends with them, bench/cuda/measure.cc measures. All tensors point into one small
// file of random numbers, each at a place of its own (rows of the embedding that equal rows of the head would make
// every draw a repetition). lib/models/shapes.ts and lib/models/random-weights.ts are the same for Node.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "parvis/backend.h"

#include "../../common/transformer.h"
#include "../simt/company.h"
#include "../simt/vq-layers.h"

namespace official {

using company::Line;
using company::Table;

constexpr int grid = 24, tokens = grid * grid, classes = 1000, vocabulary = 16384;

struct Size {
  const char* name;
  int layers, dim, heads;
};
constexpr Size sizes[] = {
    {"B", 12, 768, 12}, {"L", 24, 1024, 16}, {"XL", 36, 1280, 20}, {"XXL", 48, 1536, 24}, {"3B", 24, 3200, 32}};

inline const Size* sizeOf(const std::string& name) {
  for (const Size& s : sizes)
    if (name == s.name) return &s;
  return nullptr;
}

// layers 0: as in the paper. Special vectors for n up to 16; fewer are used where n is less.
inline parvis::TransformerModel model(const Size& s, int layers = 0) {
  parvis::TransformerModel m;
  m.layers = layers > 0 ? layers : s.layers;
  m.dim = s.dim, m.heads = m.kvHeads = s.heads, m.headSize = s.dim / s.heads;
  m.rotationPairs[1] = m.rotationPairs[2] = m.headSize / 4;
  m.feedForward = (2 * 4 * s.dim / 3 + 255) / 256 * 256;
  m.vocabulary = vocabulary, m.classes = classes, m.specials = 15;
  return m;
}

inline parvis::TokenizerModel vq16() { return vq_layers::model({128, 2, 256, 16384, 8, 32, {1, 1, 2, 2, 4}}); }

// ---- tensors --------------------------------------------------------------------------------------------------

using Shapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// A plan of loading (common/transformer.h) that only notes what would be loaded.
struct Roles {
  Shapes list;
  template <class To>
  void matrix(To&, const std::string& role, int64_t outputs, int64_t inputs) {
    list.push_back({role, {outputs, inputs}});
  }
  template <class To>
  void gateUp(To&, const std::string& gate, const std::string& up, int64_t outputs, int64_t inputs) {
    list.push_back({gate, {outputs, inputs}});
    list.push_back({up, {outputs, inputs}});
  }
  template <class To>
  void table(To&, const std::string& role, int64_t rows, int64_t columns) {
    list.push_back({role, {rows, columns}});
  }
  template <class To>
  void vector(To&, const std::string& role, std::vector<int64_t> shape, bool) {
    list.push_back({role, std::move(shape)});
  }
};
struct NoTransformer {
  struct Place {
    int weight, bias;
  };
  struct Layer {
    Place attentionNorm, qkv, attentionOutput, feedForwardNorm, up, down;
  };
  std::vector<Layer> layers_;
  Place embeddingNorm_, sharedNorm_, sharedKeysValues_, finalNorm_;
  int classes_, tokens_, specials_, positions_, head_;
};

inline Shapes tensorsOf(const parvis::TransformerModel& m) {
  Roles roles;
  NoTransformer nothing;
  parvis::planTransformer(roles, nothing, m);
  return roles.list;
}

inline Shapes tensorsOf(const parvis::TokenizerModel& m) {
  Shapes list;
  vq_layers::eachWeight(m, [&](const std::string& role, std::vector<int64_t> shape) { list.push_back({role, shape}); });
  return list;
}

// A temporary file of bfloat16: magnitudes of 0.016 to 0.031 with random signs, then ones for the norms.
class Weights {
 public:
  explicit Weights(const Shapes& shapes) {
    constexpr uint64_t places = 1 << 20, ones = 8192;
    size_t most = 0;
    for (const auto& [name, shape] : shapes) most = std::max(most, count(shape));
    std::vector<uint16_t> data(most + places, 0);
    uint64_t state = 1;
    for (uint16_t& v : data) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      v = static_cast<uint16_t>((state >> 63 << 15) | 121u << 7 | (state >> 50 & 127));
    }
    data.resize(data.size() + ones, 0x3f80);
    char name[] = "/tmp/parvis-official-XXXXXX";
    const int descriptor = mkstemp(name);
    std::FILE* f = descriptor < 0 ? nullptr : fdopen(descriptor, "wb");
    good_ = f && std::fwrite(data.data(), 2, data.size(), f) == data.size();
    if (f && std::fclose(f) != 0) good_ = false;
    file = name;
    uint64_t next = 0;
    for (const auto& [name_, shape] : shapes) {
      next = (next + 40503 * 16) % places;
      const uint64_t offset = 2 * (isNorm(name_) ? most + places : next / 16 * 16);
      weights.push_back({name_, {{name_, parvis::DType::bfloat16, shape, offset, {}}}});
    }
  }
  Weights(const Weights&) = delete;
  ~Weights() { unlink(file.c_str()); }
  bool good() const { return good_; }  // the file is whole
  std::string file;
  std::vector<parvis::WeightSource> weights;

 private:
  static size_t count(const std::vector<int64_t>& shape) {
    size_t n = 1;
    for (const int64_t d : shape) n *= static_cast<size_t>(d);
    return n;
  }
  static bool isNorm(const std::string& name) {
    for (const char* end : {"Norm.weight", "norm.weight", "norm1.weight", "norm2.weight"}) {
      const std::string e = end;
      if (name.size() >= e.size() && name.compare(name.size() - e.size(), e.size(), e) == 0) return true;
    }
    return false;
  }
  bool good_ = false;
};

// ---- the schedule ---------------------------------------------------------------------------------------------

// Slot `slot` of PAR with n tokens a step: what it reads, where that lies in the picture, what it sees and predicts.
inline Line rowOf(int n, int slot) {
  int side = 1;
  while (side * side < n) side++;
  const int region = grid / side;
  const int group = slot / n, place = slot % n;
  const int input = slot == 0    ? parvis::classInput
                    : slot < n   ? slot - 1
                    : group > 1  ? slot - n
                    : place == 0 ? n - 1
                                 : -1 - place;
  Line r{input, slot, -1, -1, slot < n ? slot + 1 : (group + 1) * n, slot};
  if (input >= 0) {
    const int inside = input / n, of = input % n;
    r.row = of / side * region + inside / region;
    r.column = of % side * region + inside % region;
  }
  return r;
}

// Slots begin .. end as PAR takes them: the first n one by one, then n at a time.
inline std::vector<Table> steps(int n, int begin = 0, int end = tokens) {
  std::vector<Table> all;
  for (int slot = begin; slot < end; slot++) {
    if (slot < n || slot % n == 0) all.emplace_back();
    all.back().push_back(rowOf(n, slot));
  }
  return all;
}

// Slots 0 .. end in one step that predicts nothing: fills the cache.
inline Table prefix(int n, int end) {
  Table rows;
  for (int slot = 0; slot < end; slot++) {
    rows.push_back(rowOf(n, slot));
    rows.back().predicts = -1;
  }
  return rows;
}

}  // namespace official
