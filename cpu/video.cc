#include "video.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "../common/launches.h"
#include "../common/pictures.h"
#include "../common/videos.h"
#include "launch-timer.h"

namespace parvis::cpu {

// ---- loading ------------------------------------------------------------------------------------------------

namespace {

class Plan {
 public:
  Plan(Loader& loader, Element element) : loader_(loader), element_(element) {}

  void norm(VideoNorm& n, const std::string& name, int channels) {
    n.norm.channels = channels;
    loader_.vector(n.norm.scale, name + ".weight", {channels}, false);
    loader_.vector(n.norm.shift, name + ".bias", {channels}, false);
    loader_.vector(n.slope, name + ".slope", {channels}, false);
  }

  void convolution(ConvolutionWeights& c, const std::string& name, int channels, int outputs, int kernel) {
    c.channels = channels;
    c.padded = roundUp(channels, inputStep(element_));
    c.outputs = outputs;
    c.kernel = kernel;
    loader_.convolution(c.w, name + ".weight", outputs, channels, {kernel, kernel, kernel}, c.padded);
    loader_.vector(c.bias, name + ".bias", {outputs}, false);
  }

 private:
  Loader& loader_;
  Element element_;
};

}  // namespace

Status CpuVideoTokenizer::load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                               const std::vector<WeightSource>& weights, const VideoTokenizerModel& m,
                               Precision precision, const Cancel& cancel, std::shared_ptr<VideoTokenizer>& out) {
  auto t = std::make_shared<CpuVideoTokenizer>();
  t->model_ = m;
  t->element_ = numbersOf(precision).activations;
  t->threads_ = std::move(threads);
  Tensors tensors;
  if (Status s = tensors.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(&tensors, precision);
  Plan plan(loader, t->element_);
  planVideoLayers(plan, t->encoder_, m.encoder, "encoder");
  planVideoLayers(plan, t->decoder_, m.decoder, "decoder");
  if (Status s = loader.load(t->memory_, *t->threads_, cancel); !s.ok()) return s;
  out = std::move(t);
  return {};
}

// ---- frames through layers ----------------------------------------------------------------------------------

namespace {

// What a convolution keeps of the frames before: as its filter reads them.
struct Past {
  int frames = 0;    // that came so far
  Buffer before[2];  // the one before the last, the last; empty before they came
};

// One video on its way through the layers of one half.
class Flow {
 public:
  Flow(std::shared_ptr<CpuVideoTokenizer> tokenizer, bool encoder)
      : tokenizer_(std::move(tokenizer)), layers_(tokenizer_->layers(encoder)),
        run_(std::make_unique<PictureRunner>(tokenizer_->threads(), tokenizer_->element(), tokenizer_->model().groups,
                                             tokenizer_->model().normEps, never_)),
        pasts_(2 * layers_.size()) {}

  // Runs a frame through all layers; `sink` is given what comes out, none, one or several frames.
  Status push(const std::function<Picture(PictureRunner&)>& make, const std::function<void(Picture&)>& sink,
              const Cancel& cancel) {
    cancel_ = &cancel;
    profile_ = tokenizer_->profile();
    if (run_->ok()) {
      Picture frame = make(*run_);
      runVideoLayers(*this, layers_, 0, std::move(frame), sink);
    }
    if (run_->status.ok() && cancelledNow()) run_->status = cancelled();
    return run_->status;
  }

  const CpuVideoTokenizer& tokenizer() const { return *tokenizer_; }

  bool ok() {
    if (run_->status.ok() && cancelledNow()) run_->status = cancelled();
    return run_->status.ok();
  }

  void convolve(const Picture& x, size_t at, VideoFilter which, const ConvolutionWeights& c, const VideoNorm* norm,
                const VideoChange& change, const Picture* residual, Picture (&y)[2]) {
    if (!ok()) return;
    Past none, &past = which == VideoFilter::shortcut ? none : pasts_[2 * at + (which == VideoFilter::second ? 1 : 0)];
    const size_t item = elementSize(tokenizer_->element());
    PictureRunner::Factors factors;
    if (norm)
      timed(
          profile_,
          [&] {
            return groupNormLaunch({1, x.height, x.width, x.channels}, false, item);
          },
          [&] { run_->statistics(x, norm->norm, factors); });
    const int index = past.frames++;
    const bool filtered = c.kernel == 3, wanted = index % change.strideTime == 0;
    if (!filtered && !wanted) return;
    // The border: a pixel around; where every other pixel is read, above and to the left only.
    const int before = filtered ? 1 : 0, border = filtered ? (change.strideSpace == 1 ? 2 : 1) : 0;
    const ptrdiff_t row = static_cast<ptrdiff_t>(x.width + border) * c.padded;
    const size_t rowBytes = static_cast<size_t>(row) * item;
    const bool direct = !filtered && !norm && tokenizer_->element() == Element::float32 && c.padded == x.channels;
    Buffer staged;
    if (!direct) {
      if (!(run_->status = run_->pool().take((x.height + border) * rowBytes + 256, staged)).ok()) return;
      stage(x, c, norm ? &factors : nullptr, norm ? norm->slope : nullptr, before, border, staged);
      if (!ok()) return;
    }
    if (wanted) {
      const void* now = direct ? static_cast<const void*>(x.data()) : staged.data();
      const void* last = past.before[1].data() ? past.before[1].data() : now;
      const void* earlier = past.before[0].data() ? past.before[0].data() : last;
      const int height = x.height / change.strideSpace, width = x.width / change.strideSpace;
      const int part = c.outputs / (change.expandTime * change.expandSpace * change.expandSpace);
      for (int i = 0; i < change.expandTime; i++) {
        if (index == 0 && i + 1 < change.expandTime) continue;  // before the first frame
        y[i] = run_->make(height * change.expandSpace, width * change.expandSpace, part);
      }
      if (!ok()) return;
      const auto target = [](const Picture& p) { return p.channels > 0 ? p.data() : nullptr; };
      const Convolution work{{filtered ? earlier : now, last, now},
                             filtered ? 3 : 1,
                             row,
                             c.padded,
                             c.kernel,
                             change.strideSpace,
                             c.w.data,
                             c.outputs,
                             c.bias,
                             residual ? residual->data() : nullptr,
                             {target(y[0]), target(y[1])},
                             width,
                             change.expandTime,
                             change.expandSpace};
      timed(
          profile_,
          [&] {
            const int outputs = index == 0 ? c.outputs / change.expandTime : c.outputs;
            return convolutionLaunch({{1, x.height, x.width, c.channels},
                                      {1, height, width, outputs},
                                      c.kernel,
                                      norm != nullptr,
                                      residual != nullptr,
                                      c.kernel},
                                     item);
          },
          [&] { multiply(work, c.w, height, rowBytes, tokenizer_->threads(), *cancel_); });
    }
    if (filtered) {
      // The first frame is its own past.
      past.before[0] = std::move(past.before[1]);
      past.before[1] = std::move(staged);
    }
  }

 private:
  bool cancelledNow() const { return cancel_->load(std::memory_order_relaxed); }

  // A frame as the filter reads it: normed, in the multiplied type, its edges repeated around it.
  void stage(const Picture& x, const ConvolutionWeights& c, const PictureRunner::Factors* factors, const float* slope,
             int before, int border, Buffer& to) {
    const size_t item = elementSize(tokenizer_->element()), pixelBytes = static_cast<size_t>(c.padded) * item;
    const size_t rowBytes = pixelBytes * (x.width + border);
    const auto kernel = kernels().stage[static_cast<int>(tokenizer_->element())];
    Threads& threads = tokenizer_->threads();
    const int rows = x.height + border, block = std::max(1, std::min(8, rows / (threads.count() * 4)));
    threads.run((rows + block - 1) / block, [&](int task, int) {
      if (cancelledNow()) return;
      for (int r = task * block; r < std::min(rows, (task + 1) * block); r++) {
        uint8_t* out = to.data() + rowBytes * r;
        const int source = std::clamp(r - before, 0, x.height - 1);
        kernel({x.data() + static_cast<size_t>(source) * x.width * x.channels, x.width, x.channels,
                factors ? factors->scale.data() : nullptr, factors ? factors->shift.data() : nullptr, slope != nullptr,
                slope, 1, out + pixelBytes * before, c.padded});
        uint8_t* const first = out + pixelBytes * before;
        uint8_t* const last = first + pixelBytes * (x.width - 1);
        if (before > 0) std::memcpy(out, first, pixelBytes);
        if (border > before) std::memcpy(last + pixelBytes, last, pixelBytes);
      }
    });
  }

  std::shared_ptr<CpuVideoTokenizer> tokenizer_;
  const CpuVideoTokenizer::Layers& layers_;
  const Cancel never_{false};  // of the runner, which outlives each call
  std::unique_ptr<PictureRunner> run_;
  std::vector<Past> pasts_;  // two a layer; their memory goes back to the runner's pool
  const Cancel* cancel_ = nullptr;
  Profile* profile_ = nullptr;
};

// ---- tokens to pixels

class CpuVideoDecoder : public VideoDecoder {
 public:
  CpuVideoDecoder(std::shared_ptr<CpuVideoTokenizer> tokenizer, int rows, int columns)
      : flow_(std::move(tokenizer), false), rows_(rows), columns_(columns) {}

  Status decode(const int32_t* tokens, uint8_t* bytes, float* floats, const Cancel& cancel) override {
    const VideoTokenizerModel& m = flow_.tokenizer().model();
    const int channels = static_cast<int>(m.levels.size());
    std::vector<float> values(static_cast<size_t>(rows_) * columns_ * channels);
    if (Status s = codesToValues(m, tokens, rows_ * columns_, values.data()); !s.ok()) return s;
    bool finite = true;
    Status s = flow_.push(
        [&](PictureRunner& run) {
          Picture x = run.make(rows_, columns_, channels);
          if (run.ok()) std::memcpy(x.data(), values.data(), values.size() * sizeof(float));
          return x;
        },
        [&](Picture& frame) {
          const size_t size = frame.size();
          finite = finite && allFinite(frame.data(), size);
          if (floats) {
            std::memcpy(floats, frame.data(), size * sizeof(float));
            floats += size;
          }
          if (bytes) {
            pixelsToBytes(frame.data(), size, bytes);
            bytes += size;
          }
        },
        cancel);
    if (s.ok() && !finite) s = pictureNotFinite();
    return s;
  }

 private:
  Flow flow_;
  int rows_, columns_;
};

// ---- pixels to tokens

class CpuVideoEncoder : public VideoEncoder {
 public:
  CpuVideoEncoder(std::shared_ptr<CpuVideoTokenizer> tokenizer, int rows, int columns)
      : flow_(std::move(tokenizer), true), rows_(rows), columns_(columns) {}

  Status encode(const float* pixels, int32_t* tokens, bool& completed, const Cancel& cancel) override {
    const VideoTokenizerModel& m = flow_.tokenizer().model();
    const int factor = m.factorSpace(), height = rows_ * factor, width = columns_ * factor;
    if (Status s = checkFrame(pixels, static_cast<size_t>(height) * width * 3); !s.ok()) return s;
    bool finite = true;
    completed = false;
    Status s = flow_.push(
        [&](PictureRunner& run) {
          Picture x = run.make(height, width, 3);
          if (run.ok()) std::memcpy(x.data(), pixels, x.size() * sizeof(float));
          return x;
        },
        [&](Picture& z) {
          finite = finite && allFinite(z.data(), z.size());
          completed = true;
          if (finite) valuesToCodes(m, z.data(), z.height * z.width, tokens);
        },
        cancel);
    if (s.ok() && !finite) s = pictureNotFinite();
    return s;
  }

 private:
  Flow flow_;
  int rows_, columns_;
};

}  // namespace

Status CpuVideoTokenizer::createDecoder(int rows, int columns, std::unique_ptr<VideoDecoder>& out) {
  if (Status s = checkVideoSides(model_, rows, columns); !s.ok()) return s;
  out =
      std::make_unique<CpuVideoDecoder>(std::static_pointer_cast<CpuVideoTokenizer>(shared_from_this()), rows, columns);
  return {};
}

Status CpuVideoTokenizer::createEncoder(int rows, int columns, std::unique_ptr<VideoEncoder>& out) {
  if (Status s = checkVideoSides(model_, rows, columns); !s.ok()) return s;
  out =
      std::make_unique<CpuVideoEncoder>(std::static_pointer_cast<CpuVideoTokenizer>(shared_from_this()), rows, columns);
  return {};
}

}  // namespace parvis::cpu
