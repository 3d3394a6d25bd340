// What a VQ tokenizer consists of, under the names of the official checkpoints, and in which order its parts run: the
// same on every backend, which brings its own types of norms, convolutions and pictures.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "parvis/model.h"

namespace parvis {

template <class Norm, class Convolution>
struct VqResidual {
  Norm norm1, norm2;
  Convolution conv1, conv2, shortcut;  // shortcut.outputs = 0: none
};

template <class Norm, class Convolution>
struct VqAttention {
  Norm norm;
  Convolution q, k, v, out;
};

template <class Norm, class Convolution>
struct VqLevel {
  std::vector<VqResidual<Norm, Convolution>> residuals;
  std::vector<VqAttention<Norm, Convolution>> attentions;  // one after each residual block, or none
  Convolution resample;                                    // outputs = 0: none
};

template <class Norm, class Convolution>
struct VqHalf {  // encoder or decoder
  Convolution in, out;
  VqResidual<Norm, Convolution> mid0, mid2;
  VqAttention<Norm, Convolution> mid1;
  std::vector<VqLevel<Norm, Convolution>> levels;
  Norm norm;
};

template <class Norm, class Convolution>
struct VqParts {
  VqHalf<Norm, Convolution> encoder, decoder;
  Convolution quant, postQuant;
};

// ---- names and sizes ----------------------------------------------------------------------------------------

// Calls on.norm(part, name, channels) and on.convolution(part, name, channels, outputs, kernel) for every part, e.g.
// with decoder.conv_blocks.0.res.1.norm1. Parts stay where they are afterwards.
template <class On, class Norm, class Convolution>
class VqNames {
 public:
  explicit VqNames(On& on) : on_(on) {}

  void all(VqParts<Norm, Convolution>& parts, const TokenizerModel& m) {
    const int levels = m.levels(), coarsest = m.baseChannels * m.multipliers.back();
    auto& e = parts.encoder;
    on_.convolution(e.in, "encoder.conv_in", 3, m.baseChannels, 3);
    e.levels.resize(static_cast<size_t>(levels));
    int channels = m.baseChannels;
    for (int i = 0; i < levels; i++)
      level(e.levels[static_cast<size_t>(i)], "encoder.conv_blocks." + std::to_string(i), channels,
            m.baseChannels * m.multipliers[static_cast<size_t>(i)], m.residualBlocks, i == levels - 1,
            i == levels - 1 ? nullptr : ".downsample.conv");
    middle(e, "encoder", coarsest);
    on_.norm(e.norm, "encoder.norm_out", coarsest);
    on_.convolution(e.out, "encoder.conv_out", coarsest, m.zChannels, 3);

    auto& d = parts.decoder;
    on_.convolution(d.in, "decoder.conv_in", m.zChannels, coarsest, 3);
    middle(d, "decoder", coarsest);
    d.levels.resize(static_cast<size_t>(levels));
    channels = coarsest;
    for (int i = 0; i < levels; i++)  // the decoder's block 0 is the coarsest level
      level(d.levels[static_cast<size_t>(i)], "decoder.conv_blocks." + std::to_string(i), channels,
            m.baseChannels * m.multipliers[static_cast<size_t>(levels - 1 - i)], m.residualBlocks + 1, i == 0,
            i == levels - 1 ? nullptr : ".upsample.conv");
    on_.norm(d.norm, "decoder.norm_out", channels);
    on_.convolution(d.out, "decoder.conv_out", channels, 3, 3);

    on_.convolution(parts.quant, "quant_conv", m.zChannels, m.codeSize, 1);
    on_.convolution(parts.postQuant, "post_quant_conv", m.codeSize, m.zChannels, 1);
  }

 private:
  void residual(VqResidual<Norm, Convolution>& r, const std::string& name, int channels, int outputs) {
    on_.norm(r.norm1, name + ".norm1", channels);
    on_.convolution(r.conv1, name + ".conv1", channels, outputs, 3);
    on_.norm(r.norm2, name + ".norm2", outputs);
    on_.convolution(r.conv2, name + ".conv2", outputs, outputs, 3);
    if (channels != outputs) on_.convolution(r.shortcut, name + ".nin_shortcut", channels, outputs, 1);
  }
  void attention(VqAttention<Norm, Convolution>& a, const std::string& name, int channels) {
    on_.norm(a.norm, name + ".norm", channels);
    on_.convolution(a.q, name + ".q", channels, channels, 1);
    on_.convolution(a.k, name + ".k", channels, channels, 1);
    on_.convolution(a.v, name + ".v", channels, channels, 1);
    on_.convolution(a.out, name + ".proj_out", channels, channels, 1);
  }
  void middle(VqHalf<Norm, Convolution>& h, const std::string& name, int channels) {
    residual(h.mid0, name + ".mid.0", channels, channels);
    attention(h.mid1, name + ".mid.1", channels);
    residual(h.mid2, name + ".mid.2", channels, channels);
  }
  void level(VqLevel<Norm, Convolution>& l, const std::string& name, int& channels, int outputs, int blocks,
             bool attend, const char* resample) {
    l.residuals.resize(static_cast<size_t>(blocks));
    l.attentions.resize(static_cast<size_t>(attend ? blocks : 0));
    for (size_t i = 0; i < l.residuals.size(); i++) {
      residual(l.residuals[i], name + ".res." + std::to_string(i), channels, outputs);
      channels = outputs;
      if (attend) attention(l.attentions[i], name + ".attn." + std::to_string(i), channels);
    }
    if (resample) on_.convolution(l.resample, name + resample, channels, channels, 3);
  }
  On& on_;
};

template <class On, class Norm, class Convolution>
void visitVq(On& on, VqParts<Norm, Convolution>& parts, const TokenizerModel& model) {
  VqNames<On, Norm, Convolution>(on).all(parts, model);
}

// ---- order --------------------------------------------------------------------------------------------------

// `run` has residual(picture, part), attention(picture, part) and convolve(picture, part, norm, swish, resample).
template <class Run, class Picture, class Norm, class Convolution>
Picture runVqMiddle(Run& run, Picture x, const VqHalf<Norm, Convolution>& h) {
  x = run.residual(std::move(x), h.mid0);
  x = run.attention(std::move(x), h.mid1);
  return run.residual(std::move(x), h.mid2);
}

template <class Run, class Picture, class Norm, class Convolution>
Picture runVqLevels(Run& run, Picture x, const VqHalf<Norm, Convolution>& h, typename Run::Resample resample) {
  for (const auto& l : h.levels) {
    for (size_t i = 0; i < l.residuals.size(); i++) {
      x = run.residual(std::move(x), l.residuals[i]);
      if (i < l.attentions.size()) x = run.attention(std::move(x), l.attentions[i]);
    }
    if (l.resample.outputs > 0) x = run.convolve(x, l.resample, nullptr, false, resample);
  }
  return x;
}

}  // namespace parvis
