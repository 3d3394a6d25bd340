#include "tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "resize.h"

namespace parvis::cpu {

// ---- loading ------------------------------------------------------------------------------------------------

namespace {

// Names and sizes of the official checkpoints, e.g. decoder.conv_blocks.0.res.1.norm1.weight.
class Names {
 public:
  Names(Loader& loader, Element element) : loader_(loader), element_(element) {}

  void norm(GroupNorm& n, const std::string& name, int channels) {
    n.channels = channels;
    loader_.vector(n.scale, name + ".weight", {channels}, false);
    loader_.vector(n.shift, name + ".bias", {channels}, false);
  }
  void convolution(ConvolutionWeights& c, const std::string& name, int channels, int outputs, int kernel) {
    c.channels = channels;
    c.padded = roundUp(channels, inputStep(element_));
    c.outputs = outputs;
    c.kernel = kernel;
    loader_.convolution(c.w, name + ".weight", outputs, channels, kernel, c.padded);
    loader_.vector(c.bias, name + ".bias", {outputs}, false);
  }
  void residual(Residual& r, const std::string& name, int channels, int outputs) {
    norm(r.norm1, name + ".norm1", channels);
    convolution(r.conv1, name + ".conv1", channels, outputs, 3);
    norm(r.norm2, name + ".norm2", outputs);
    convolution(r.conv2, name + ".conv2", outputs, outputs, 3);
    if (channels != outputs) convolution(r.shortcut, name + ".nin_shortcut", channels, outputs, 1);
  }
  void attention(SelfAttention& a, const std::string& name, int channels) {
    norm(a.norm, name + ".norm", channels);
    convolution(a.q, name + ".q", channels, channels, 1);
    convolution(a.k, name + ".k", channels, channels, 1);
    convolution(a.v, name + ".v", channels, channels, 1);
    convolution(a.out, name + ".proj_out", channels, channels, 1);
  }
  void middle(Half& h, const std::string& name, int channels) {
    residual(h.mid0, name + ".mid.0", channels, channels);
    attention(h.mid1, name + ".mid.1", channels);
    residual(h.mid2, name + ".mid.2", channels, channels);
  }
  void level(Level& l, const std::string& name, int& channels, int outputs, int blocks, bool attend, const char* resample) {
    l.residuals.resize(blocks);
    l.attentions.resize(attend ? blocks : 0);
    for (int i = 0; i < blocks; i++) {
      residual(l.residuals[i], name + ".res." + std::to_string(i), channels, outputs);
      channels = outputs;
      if (attend) attention(l.attentions[i], name + ".attn." + std::to_string(i), channels);
    }
    if (resample) convolution(l.resample, name + resample, channels, channels, 3);
  }

 private:
  Loader& loader_;
  Element element_;
};

}  // namespace

Status CpuTokenizer::load(std::shared_ptr<Threads> threads, const std::string& file, const std::vector<TensorSource>& tensors, const TokenizerModel& m,
                          Precision precision, const Cancel& cancel, std::shared_ptr<Tokenizer>& out) {
  auto t = std::make_shared<CpuTokenizer>();
  t->model_ = m;
  t->element_ = precision == Precision::float32 ? Element::float32 : Element::bfloat16;
  t->threads_ = std::move(threads);
  Tensors weights;
  if (Status s = weights.open(file, tensors); !s.ok()) return s;
  Loader loader(weights, t->element_);
  Names names(loader, t->element_);
  const int levels = m.levels(), coarsest = m.baseChannels * m.multipliers.back();

  Half& e = t->encoder_;
  names.convolution(e.in, "encoder.conv_in", 3, m.baseChannels, 3);
  e.levels.resize(levels);
  int channels = m.baseChannels;
  for (int i = 0; i < levels; i++)
    names.level(e.levels[i], "encoder.conv_blocks." + std::to_string(i), channels, m.baseChannels * m.multipliers[i], m.residualBlocks, i == levels - 1,
                i == levels - 1 ? nullptr : ".downsample.conv");
  names.middle(e, "encoder", coarsest);
  names.norm(e.norm, "encoder.norm_out", coarsest);
  names.convolution(e.out, "encoder.conv_out", coarsest, m.zChannels, 3);

  Half& d = t->decoder_;
  names.convolution(d.in, "decoder.conv_in", m.zChannels, coarsest, 3);
  names.middle(d, "decoder", coarsest);
  d.levels.resize(levels);
  channels = coarsest;
  for (int i = 0; i < levels; i++)  // the decoder's block 0 is the coarsest level
    names.level(d.levels[i], "decoder.conv_blocks." + std::to_string(i), channels, m.baseChannels * m.multipliers[levels - 1 - i], m.residualBlocks + 1, i == 0,
                i == levels - 1 ? nullptr : ".upsample.conv");
  names.norm(d.norm, "decoder.norm_out", channels);
  names.convolution(d.out, "decoder.conv_out", channels, 3, 3);

  loader.vector(t->codebookStored_, "quantize.embedding.weight", {m.codebook, m.codeSize}, false);
  names.convolution(t->quant_, "quant_conv", m.zChannels, m.codeSize, 1);
  names.convolution(t->postQuant_, "post_quant_conv", m.codeSize, m.zChannels, 1);
  if (Status s = loader.load(t->memory_, *t->threads_, cancel); !s.ok()) return s;

  t->codebook_.assign(t->codebookStored_, t->codebookStored_ + static_cast<size_t>(m.codebook) * m.codeSize);
  for (int i = 0; i < m.codebook; i++) {
    float* row = t->codebook_.data() + static_cast<size_t>(i) * m.codeSize;
    double squares = 0;
    for (int c = 0; c < m.codeSize; c++) squares += static_cast<double>(row[c]) * row[c];
    const double inverse = 1.0 / std::max(std::sqrt(squares), 1e-12);
    for (int c = 0; c < m.codeSize; c++) row[c] = static_cast<float>(row[c] * inverse);
  }
  out = std::move(t);
  return {};
}

// ---- tokens to pixels ---------------------------------------------------------------------------------------

Status CpuTokenizer::decodeOne(const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes, float* floats, Operations& run) const {
  using Resample = Operations::Resample;
  Picture x = run.make(o.gridHeight, o.gridWidth, model_.codeSize);
  if (!run.going()) return run.status;
  for (int i = 0; i < o.gridHeight * o.gridWidth; i++)
    std::memcpy(x.data() + static_cast<size_t>(i) * model_.codeSize, codebook_.data() + static_cast<size_t>(tokens[i]) * model_.codeSize, sizeof(float) * model_.codeSize);
  x = run.convolve(x, postQuant_, nullptr, false);
  x = run.convolve(x, decoder_.in, nullptr, false);
  x = run.residual(std::move(x), decoder_.mid0);
  x = run.attention(std::move(x), decoder_.mid1);
  x = run.residual(std::move(x), decoder_.mid2);
  for (const Level& l : decoder_.levels) {
    for (size_t i = 0; i < l.residuals.size(); i++) {
      x = run.residual(std::move(x), l.residuals[i]);
      if (i < l.attentions.size()) x = run.attention(std::move(x), l.attentions[i]);
    }
    if (l.resample.outputs > 0) x = run.convolve(x, l.resample, nullptr, false, Resample::up);
  }
  x = run.convolve(x, decoder_.out, &decoder_.norm, true);
  if (x.height != o.outHeight || x.width != o.outWidth) {
    Picture resized = run.make(o.outHeight, o.outWidth, 3);
    if (!run.going()) return run.status;
    resizeBicubic(x.data(), x.height, x.width, resized.data(), o.outHeight, o.outWidth, *threads_);
    x = std::move(resized);
  }
  if (!run.going()) return run.status;
  if (floats) std::memcpy(floats, x.data(), x.size() * sizeof(float));
  if (bytes) toBytes(x.data(), bytes, x.size());
  return {};
}

Status CpuTokenizer::decode(const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes, float* floats, const Cancel& cancel) {
  if (o.count < 1 || o.gridHeight < 1 || o.gridWidth < 1 || o.outHeight < 1 || o.outWidth < 1 || o.gridHeight > 4096 || o.gridWidth > 4096 || o.outHeight > 65536 || o.outWidth > 65536)
    return {Code::invalidOption, "A picture's grid and size must be positive."};
  const size_t cells = static_cast<size_t>(o.gridHeight) * o.gridWidth, pixels = static_cast<size_t>(o.outHeight) * o.outWidth * 3;
  for (size_t i = 0; i < cells * o.count; i++)
    if (tokens[i] < 0 || tokens[i] >= model_.codebook)
      return {Code::invalidOption, "Token " + std::to_string(tokens[i]) + " is outside the codebook, 0.." + std::to_string(model_.codebook - 1) + "."};
  Operations run(*threads_, element_, model_.groups, model_.normEps, cancel);
  for (int i = 0; i < o.count; i++)
    if (Status s = decodeOne(tokens + cells * i, o, bytes ? bytes + pixels * i : nullptr, floats ? floats + pixels * i : nullptr, run); !s.ok()) return s;
  return {};
}

// ---- pixels to tokens ---------------------------------------------------------------------------------------

Status CpuTokenizer::encodeOne(const float* pixels, int height, int width, int32_t* tokens, Operations& run) const {
  Picture x = run.make(height, width, 3);
  if (!run.going()) return run.status;
  std::memcpy(x.data(), pixels, x.size() * sizeof(float));
  x = run.convolve(x, encoder_.in, nullptr, false);
  for (const Level& l : encoder_.levels) {
    for (size_t i = 0; i < l.residuals.size(); i++) {
      x = run.residual(std::move(x), l.residuals[i]);
      if (i < l.attentions.size()) x = run.attention(std::move(x), l.attentions[i]);
    }
    if (l.resample.outputs > 0) x = run.convolve(x, l.resample, nullptr, false, Operations::Resample::down);
  }
  x = run.residual(std::move(x), encoder_.mid0);
  x = run.attention(std::move(x), encoder_.mid1);
  x = run.residual(std::move(x), encoder_.mid2);
  x = run.convolve(x, encoder_.out, &encoder_.norm, true);
  x = run.convolve(x, quant_, nullptr, false);
  if (!run.going()) return run.status;
  // Nearest row of length 1 = largest dot product; the length of z scales all of them alike.
  const int size = model_.codeSize;
  threads_->run(x.height, [&](int row, int) {
    for (int i = row * x.width; i < (row + 1) * x.width; i++) {
      const float* z = x.data() + static_cast<size_t>(i) * size;
      double most = -INFINITY;
      int32_t nearest = 0;
      for (int e = 0; e < model_.codebook; e++) {
        double dot = 0;
        for (int c = 0; c < size; c++) dot += static_cast<double>(z[c]) * codebook_[static_cast<size_t>(e) * size + c];
        if (dot > most) {
          most = dot;
          nearest = e;
        }
      }
      tokens[i] = nearest;
    }
  });
  return {};
}

Status CpuTokenizer::encode(const float* pixels, int count, int height, int width, int32_t* tokens, const Cancel& cancel) {
  const int factor = model_.factor();
  if (count < 1 || height < factor || width < factor || height % factor || width % factor || height > 65536 || width > 65536)
    return {Code::invalidOption, "A picture to encode must be a multiple of " + std::to_string(factor) + " pixels wide and high."};
  const size_t size = static_cast<size_t>(height) * width * 3, cells = static_cast<size_t>(height / factor) * (width / factor);
  for (size_t i = 0; i < size * count; i++)
    if (!std::isfinite(pixels[i])) return {Code::invalidOption, "A picture to encode has a pixel that is not finite."};
  Operations run(*threads_, element_, model_.groups, model_.normEps, cancel);
  for (int i = 0; i < count; i++)
    if (Status s = encodeOne(pixels + size * i, height, width, tokens + cells * i, run); !s.ok()) return s;
  return {};
}

}  // namespace parvis::cpu
