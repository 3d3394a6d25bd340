#include "tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../common/launches.h"
#include "../common/pictures.h"
#include "launch-timer.h"
#include "resize.h"

namespace parvis::cpu {

// ---- loading ------------------------------------------------------------------------------------------------

void LayerPlan::norm(GroupNorm& n, const std::string& name, int channels) {
  n.channels = channels;
  loader_.vector(n.scale, name + ".weight", {channels}, false);
  loader_.vector(n.shift, name + ".bias", {channels}, false);
}

void LayerPlan::convolution(ConvolutionWeights& c, const std::string& name, int channels, int outputs, int kernel) {
  c.channels = channels;
  c.padded = roundUp(channels, inputStep(element_));
  c.outputs = outputs;
  c.kernel = kernel;
  loader_.convolution(c.w, name + ".weight", outputs, channels, {kernel, kernel}, c.padded);
  loader_.vector(c.bias, name + ".bias", {outputs}, false);
}

Status CpuTokenizer::load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                          const std::vector<WeightSource>& weights, const TokenizerModel& m, Precision precision,
                          const Cancel& cancel, std::shared_ptr<Tokenizer>& out) {
  auto t = std::make_shared<CpuTokenizer>();
  t->model_ = m;
  t->element_ = numbersOf(precision).activations;
  t->threads_ = std::move(threads);
  Tensors tensors;
  if (Status s = tensors.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(&tensors, precision);
  LayerPlan plan(loader, t->element_);
  planLayers(plan, t->encoder_, m.encoder, "encoder");
  planLayers(plan, t->decoder_, m.decoder, "decoder");
  loader.vector(t->codebookStored_, "codebook", {m.codebook, m.codeSize}, false);
  if (Status s = loader.load(t->memory_, *t->threads_, cancel); !s.ok()) return s;

  t->codebook_.assign(t->codebookStored_, t->codebookStored_ + static_cast<size_t>(m.codebook) * m.codeSize);
  for (int i = 0; i < m.codebook; i++) {
    if (i % 65536 == 0 && cancel.load(std::memory_order_relaxed)) return cancelled();
    float* row = t->codebook_.data() + static_cast<size_t>(i) * m.codeSize;
    double squares = 0;
    for (int c = 0; c < m.codeSize; c++) squares += static_cast<double>(row[c]) * row[c];
    t->codebookFinite_ = t->codebookFinite_ && std::isfinite(squares);
    const double inverse = 1.0 / std::max(std::sqrt(squares), 1e-12);
    for (int c = 0; c < m.codeSize; c++) row[c] = static_cast<float>(row[c] * inverse);
  }
  out = std::move(t);
  return {};
}

namespace {

// At the end of a call, whose pictures are gone by then.
struct Resting {
  Pool& pool;
  ~Resting() { pool.rest(); }
};

}  // namespace

// ---- tokens to pixels ---------------------------------------------------------------------------------------

Status CpuTokenizer::decodeOne(const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes, float* floats,
                               PictureRunner& run) const {
  Picture x = run.make(o.gridHeight, o.gridWidth, model_.codeSize);
  if (!run.ok()) return run.status;
  const int cells = o.gridHeight * o.gridWidth;
  const size_t size = static_cast<size_t>(model_.codeSize);
  timed(
      run.profile(), [&] { return codebookLookupLaunch(cells, model_.codeSize, elementSize(element_)); },
      [&] {
        for (int i = 0; i < cells; i++) {
          const float* row = codebook_.data() + static_cast<size_t>(tokens[i]) * size;
          std::memcpy(x.data() + static_cast<size_t>(i) * size, row, sizeof(float) * size);
        }
      });
  x = runLayers(run, std::move(x), decoder_, decoder_.size());
  if (!run.ok()) return run.status;
  Status written;
  timed(
      run.profile(),
      [&] {
        const PictureShape decoded{1, x.height, x.width, 3}, wanted{1, o.outHeight, o.outWidth, 3};
        return outputPixelsLaunch(decoded, wanted, bytes ? 1 : sizeof(float));
      },
      [&] { written = output(x, o, bytes, floats, run); });
  return written;
}

Status CpuTokenizer::output(const Picture& decoded, const DecodeOptions& o, uint8_t* bytes, float* floats,
                            PictureRunner& run) const {
  const Picture* x = &decoded;
  Picture resized;
  if (x->height != o.outHeight || x->width != o.outWidth) {
    resized = run.make(o.outHeight, o.outWidth, 3);
    if (!run.ok()) return run.status;
    resizeBicubic(x->data(), x->height, x->width, resized.data(), o.outHeight, o.outWidth, *threads_, &run.cancel());
    x = &resized;
  }
  if (!run.ok()) return run.status;
  constexpr size_t piece = 1u << 16;
  std::atomic<bool> finite{true};
  threads_->run(static_cast<int>((x->size() + piece - 1) / piece), [&](int task, int) {
    const size_t first = piece * static_cast<size_t>(task), count = std::min(piece, x->size() - first);
    const float* from = x->data() + first;
    if (!allFinite(from, count)) finite = false;
    if (floats) std::memcpy(floats + first, from, count * sizeof(float));
    if (bytes) toBytes(from, bytes + first, count);
  });
  return finite ? Status{} : pictureNotFinite();
}

Status CpuTokenizer::decode(const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes, float* floats,
                            const Cancel& cancel) {
  if (Status s = checkDecode(model_, tokens, o); !s.ok()) return s;
  const size_t cells = static_cast<size_t>(o.gridHeight) * o.gridWidth,
               pixels = static_cast<size_t>(o.outHeight) * o.outWidth * 3;
  PictureRunner run(*threads_, element_, model_.groups, model_.normEps, cancel, recording(), &pool_);
  const Resting resting{pool_};
  for (int i = 0; i < o.count; i++)
    if (Status s = decodeOne(tokens + cells * i, o, bytes ? bytes + pixels * i : nullptr,
                             floats ? floats + pixels * i : nullptr, run);
        !s.ok())
      return s;
  return {};
}

// ---- pixels to tokens ---------------------------------------------------------------------------------------

Status CpuTokenizer::encodeOne(const float* pixels, int height, int width, int32_t* tokens, PictureRunner& run) const {
  Picture x = run.make(height, width, 3);
  if (!run.ok()) return run.status;
  timed(
      run.profile(),
      [&] {
        return inputPixelsLaunch({1, height, width, 3}, elementSize(element_));
      },
      [&] { std::memcpy(x.data(), pixels, x.size() * sizeof(float)); });
  x = runLayers(run, std::move(x), encoder_, encoder_.size());
  if (!run.ok()) return run.status;
  if (!codebookFinite_ || !allFinite(x.data(), x.size())) return pictureNotFinite();
  timed(
      run.profile(), [&] { return nearestCodeLaunch(x.height * x.width, model_.codebook, model_.codeSize); },
      [&] { nearest(x, tokens, run.cancel()); });
  return run.ok() ? Status{} : run.status;
}

// Nearest row of length 1 = largest dot product; the length of z scales all of them alike.
void CpuTokenizer::nearest(const Picture& x, int32_t* tokens, const Cancel& cancel) const {
  const int size = model_.codeSize;
  threads_->run(x.height, [&](int row, int) {
    for (int i = row * x.width; i < (row + 1) * x.width && !cancel.load(std::memory_order_relaxed); i++) {
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
}

Status CpuTokenizer::encode(const float* pixels, int count, int height, int width, int32_t* tokens,
                            const Cancel& cancel) {
  if (Status s = checkEncode(model_, pixels, count, height, width); !s.ok()) return s;
  const int factor = model_.factor();
  const size_t size = static_cast<size_t>(height) * width * 3,
               cells = static_cast<size_t>(height / factor) * (width / factor);
  PictureRunner run(*threads_, element_, model_.groups, model_.normEps, cancel, recording(), &pool_);
  const Resting resting{pool_};
  for (int i = 0; i < count; i++)
    if (Status s = encodeOne(pixels + size * i, height, width, tokens + cells * i, run); !s.ok()) return s;
  return {};
}

}  // namespace parvis::cpu
