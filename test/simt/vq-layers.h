// LlamaGen's VQ tokenizers as lists of layers, for the programs that run without TypeScript; lib/models/vq.ts is the
// same for Node. And which weights such a list has.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../../common/picture-layers.h"

namespace vq_layers {

struct Sizes {
  int baseChannels, residualBlocks, zChannels, codebook, codeSize, groups;
  std::vector<int> multipliers;
};

inline parvis::TokenizerModel model(const Sizes& s) {
  using Kind = parvis::TokenizerLayer::Kind;
  using parvis::Resample;
  using Layers = std::vector<parvis::TokenizerLayer>;
  const auto convolution = [](Layers& to, int channels, int outputs, int kernel, bool normed = false,
                              Resample resample = Resample::none) {
    to.push_back({Kind::convolution, channels, outputs, kernel, normed, resample});
  };
  const auto residual = [](Layers& to, int channels, int outputs) {
    to.push_back({Kind::residual, channels, outputs});
  };
  const auto attention = [](Layers& to, int channels) { to.push_back({Kind::attention, channels, channels}); };
  const int coarsest = s.baseChannels * s.multipliers.back(), levels = static_cast<int>(s.multipliers.size());
  const auto middle = [&](Layers& to) {
    residual(to, coarsest, coarsest);
    attention(to, coarsest);
    residual(to, coarsest, coarsest);
  };
  const auto levelsOf = [&](Layers& to, int channels, int blocks, Resample resample) {
    const bool down = resample == Resample::down;
    for (int i = 0; i < levels; i++) {
      const int level = down ? i : levels - 1 - i;
      const int width = s.baseChannels * s.multipliers[static_cast<size_t>(level)];
      for (int block = 0; block < blocks; block++) {
        residual(to, channels, width);
        channels = width;
        if (level == levels - 1) attention(to, channels);
      }
      if (i < levels - 1) convolution(to, channels, channels, 3, false, resample);
    }
    return channels;
  };
  parvis::TokenizerModel m;
  m.codebook = s.codebook, m.codeSize = s.codeSize, m.groups = s.groups;
  convolution(m.encoder, 3, s.baseChannels, 3);
  levelsOf(m.encoder, s.baseChannels, s.residualBlocks, Resample::down);
  middle(m.encoder);
  convolution(m.encoder, coarsest, s.zChannels, 3, true);
  convolution(m.encoder, s.zChannels, s.codeSize, 1);
  convolution(m.decoder, s.codeSize, s.zChannels, 1);
  convolution(m.decoder, s.zChannels, coarsest, 3);
  middle(m.decoder);
  const int finest = levelsOf(m.decoder, coarsest, s.residualBlocks + 1, Resample::up);
  convolution(m.decoder, finest, 3, 3, true);
  return m;
}

// Calls add(role, shape) for each weight.
template <class Add>
void eachWeight(const parvis::TokenizerModel& m, Add&& add) {
  struct Part {
    int outputs = 0;
  };
  struct Plan {
    Add& add;
    void norm(Part&, const std::string& role, int channels) {
      add(role + ".weight", std::vector<int64_t>{channels});
      add(role + ".bias", std::vector<int64_t>{channels});
    }
    void convolution(Part&, const std::string& role, int channels, int outputs, int kernel) {
      add(role + ".weight", std::vector<int64_t>{outputs, channels, kernel, kernel});
      add(role + ".bias", std::vector<int64_t>{outputs});
    }
  } plan{add};
  std::vector<parvis::PictureLayer<Part, Part>> layers;
  parvis::planLayers(plan, layers, m.encoder, "encoder");
  parvis::planLayers(plan, layers, m.decoder, "decoder");
  add("codebook", std::vector<int64_t>{m.codebook, m.codeSize});
}

}  // namespace vq_layers
