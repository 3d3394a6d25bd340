// The layers of a tokenizer of videos with their weights: what a loader is asked for, and how a frame runs through
// them, the same on every backend, which brings its own types of norms, filters and frames.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "parvis/model.h"

namespace parvis {

// What a convolution does to the sides of its frames.
struct VideoChange {
  int strideTime = 1, strideSpace = 1, expandTime = 1, expandSpace = 1;
};

template <class Norm, class Filter>
struct VideoConvolutionLayer {
  Filter convolution;
  Norm norm;  // before it, where `normed`
  bool normed = false;
  VideoChange change;
};

template <class Norm, class Filter>
struct VideoResidualLayer {
  Norm norm1, norm2;
  Filter conv1, conv2, shortcut;  // shortcut.outputs = 0: none
};

template <class Norm, class Filter>
using VideoLayerWeights = std::variant<VideoConvolutionLayer<Norm, Filter>, VideoResidualLayer<Norm, Filter>>;

// Calls plan.norm(part, role, channels) and plan.convolution(part, role, channels, outputs, kernel) for every part.
// Parts stay where they are afterwards.
template <class Plan, class Norm, class Filter>
void planVideoLayers(Plan& plan, std::vector<VideoLayerWeights<Norm, Filter>>& layers,
                     const std::vector<VideoLayer>& model, const std::string& role) {
  layers.resize(model.size());
  for (size_t i = 0; i < model.size(); i++) {
    const VideoLayer& l = model[i];
    const std::string name = role + "." + std::to_string(i);
    if (l.kind == VideoLayer::Kind::convolution) {
      auto& to = layers[i].template emplace<VideoConvolutionLayer<Norm, Filter>>();
      to.normed = l.normed;
      to.change = {l.strideTime, l.strideSpace, l.expandTime, l.expandSpace};
      plan.convolution(to.convolution, name, l.channels, l.outputs, l.kernel);
      if (l.normed) plan.norm(to.norm, name + ".norm", l.channels);
    } else {
      auto& to = layers[i].template emplace<VideoResidualLayer<Norm, Filter>>();
      plan.norm(to.norm1, name + ".norm1", l.channels);
      plan.convolution(to.conv1, name + ".conv1", l.channels, l.outputs, 3);
      plan.norm(to.norm2, name + ".norm2", l.outputs);
      plan.convolution(to.conv2, name + ".conv2", l.outputs, l.outputs, 3);
      if (l.channels != l.outputs) plan.convolution(to.shortcut, name + ".shortcut", l.channels, l.outputs, 1);
    }
  }
}

// Which filter of a layer a convolution is of: each keeps frames of its own.
enum class VideoFilter { first, second, shortcut };

// Runs a frame through layers[at] and those behind it; `sink` is given what comes out: no frame, one or several.
// run.ok(): go on? run.convolve(frame, at, which, filter, norm or null, change, residual or null, out): `out` [2] are
// the frames that this one completes, in their order; the others keep 0 channels.
template <class Run, class Frame, class Norm, class Filter, class Sink>
void runVideoLayers(Run& run, const std::vector<VideoLayerWeights<Norm, Filter>>& layers, size_t at, Frame frame,
                    const Sink& sink) {
  if (!run.ok()) return;
  if (at == layers.size()) return sink(frame);
  Frame out[2];
  if (const auto* r = std::get_if<VideoResidualLayer<Norm, Filter>>(&layers[at])) {
    Frame h[2], side[2];
    run.convolve(frame, at, VideoFilter::first, r->conv1, &r->norm1, {}, nullptr, h);
    if (r->shortcut.outputs > 0) {
      run.convolve(frame, at, VideoFilter::shortcut, r->shortcut, nullptr, {}, nullptr, side);
      frame = std::move(side[0]);
    }
    run.convolve(h[0], at, VideoFilter::second, r->conv2, &r->norm2, {}, &frame, out);
  } else {
    const auto& c = std::get<VideoConvolutionLayer<Norm, Filter>>(layers[at]);
    run.convolve(frame, at, VideoFilter::first, c.convolution, c.normed ? &c.norm : nullptr, c.change, nullptr, out);
  }
  frame = Frame();  // the layers behind need its memory
  for (Frame& one : out)
    if (one.channels > 0) runVideoLayers(run, layers, at + 1, std::move(one), sink);
}

}  // namespace parvis
