// The layers of a tokenizer with their weights: what a loader is asked for, and in which order they run, the same on
// every backend, which brings its own types of norms, convolutions and pictures.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "parvis/model.h"

namespace parvis {

template <class Norm, class Convolution>
struct ConvolutionLayer {
  Convolution convolution;
  Norm norm;  // before it, where `normed`
  bool normed = false;
  Resample resample = Resample::none;
};

template <class Norm, class Convolution>
struct ResidualLayer {
  Norm norm1, norm2;
  Convolution conv1, conv2, shortcut;  // shortcut.outputs = 0: none
};

template <class Norm, class Convolution>
struct AttentionLayer {
  Norm norm;
  Convolution q, k, v, out;
};

template <class Norm, class Convolution>
using PictureLayer = std::variant<ConvolutionLayer<Norm, Convolution>, ResidualLayer<Norm, Convolution>,
                                  AttentionLayer<Norm, Convolution>>;

// Calls plan.norm(part, role, channels) and plan.convolution(part, role, channels, outputs, kernel) for every part.
// Parts stay where they are afterwards.
template <class Plan, class Norm, class Convolution>
void planLayers(Plan& plan, std::vector<PictureLayer<Norm, Convolution>>& layers,
                const std::vector<TokenizerLayer>& model, const std::string& role) {
  layers.resize(model.size());
  for (size_t i = 0; i < model.size(); i++) {
    const TokenizerLayer& l = model[i];
    const std::string name = role + "." + std::to_string(i);
    switch (l.kind) {
      case TokenizerLayer::Kind::convolution: {
        auto& to = layers[i].template emplace<ConvolutionLayer<Norm, Convolution>>();
        to.normed = l.normed;
        to.resample = l.resample;
        plan.convolution(to.convolution, name, l.channels, l.outputs, l.kernel);
        if (l.normed) plan.norm(to.norm, name + ".norm", l.channels);
        break;
      }
      case TokenizerLayer::Kind::residual: {
        auto& to = layers[i].template emplace<ResidualLayer<Norm, Convolution>>();
        plan.norm(to.norm1, name + ".norm1", l.channels);
        plan.convolution(to.conv1, name + ".conv1", l.channels, l.outputs, 3);
        plan.norm(to.norm2, name + ".norm2", l.outputs);
        plan.convolution(to.conv2, name + ".conv2", l.outputs, l.outputs, 3);
        if (l.channels != l.outputs) plan.convolution(to.shortcut, name + ".shortcut", l.channels, l.outputs, 1);
        break;
      }
      case TokenizerLayer::Kind::attention: {
        auto& to = layers[i].template emplace<AttentionLayer<Norm, Convolution>>();
        plan.norm(to.norm, name + ".norm", l.channels);
        plan.convolution(to.q, name + ".q", l.channels, l.channels, 1);
        plan.convolution(to.k, name + ".k", l.channels, l.channels, 1);
        plan.convolution(to.v, name + ".v", l.channels, l.channels, 1);
        plan.convolution(to.out, name + ".out", l.channels, l.channels, 1);
        break;
      }
    }
  }
}

// Does a layer begin with a norm?
template <class Norm, class Convolution>
bool readsNormed(const PictureLayer<Norm, Convolution>& layer) {
  const auto* convolution = std::get_if<ConvolutionLayer<Norm, Convolution>>(&layer);
  return !convolution || convolution->normed;
}

// Runs layers [0, count). `run.layer(picture, layer, summed)` runs one; summed: a norm reads its result.
template <class Run, class Picture, class Norm, class Convolution>
Picture runLayers(Run& run, Picture x, const std::vector<PictureLayer<Norm, Convolution>>& layers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const bool summed = i + 1 < layers.size() && readsNormed(layers[i + 1]);
    x = std::visit([&](const auto& layer) { return run.layer(std::move(x), layer, summed); }, layers[i]);
  }
  return x;
}

}  // namespace parvis
