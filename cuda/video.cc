#include "video.h"

#include <algorithm>
#include <array>
#include <utility>

#include "../common/launches.h"
#include "../common/pictures.h"
#include "../common/videos.h"
#include "launch-timer.h"
#include "picture-runner.h"

namespace parvis::cuda {

namespace {

constexpr int threads = 256;
constexpr const char* doing = "running the tokenizer of videos";

// ---- loading ------------------------------------------------------------------------------------------------

class Plan {
 public:
  explicit Plan(Loader& loader) : loader_(loader) {}

  void norm(DeviceVideoNorm& n, const std::string& name, int channels) {
    n.channels = channels;
    loader_.vector(n.weight, name + ".weight", {channels}, false);
    loader_.vector(n.bias, name + ".bias", {channels}, false);
    loader_.vector(n.slope, name + ".slope", {channels}, false);
  }

  // Rows go to the device as they are stored, in float32, and are packed there.
  void convolution(video::Filter& f, const std::string& name, int channels, int outputs, int kernel) {
    f = {nullptr, nullptr, channels, outputs, kernel, loader_.element()};
    loader_.vector(f.bias, name + ".bias", {outputs}, false);
    const Weight* t = loader_.tensors().find(name + ".weight", {outputs, channels, kernel, kernel, kernel});
    if (!t) return;
    loader_.filter(f.data, f.bytes(), *t, 64, 1 << 10,
                   [&f](const float* rows, int first, int count, cudaStream_t stream) {
                     return video::packFilter(rows, first, count, f, threads, stream);
                   });
  }

 private:
  Loader& loader_;
};

// What the kernels can run; others are refused by name, not by a failing launch.
Status checkModel(const VideoTokenizerModel& m) {
  int widest = 0;
  for (const auto* layers : {&m.encoder, &m.decoder})
    for (const VideoLayer& l : *layers) widest = std::max({widest, l.channels, l.outputs / l.blocks()});
  const int most = factorThreads * m.groups;
  return widest <= most ? Status{}
                        : Status{Code::deviceUnavailable,
                                 "The CUDA backend cannot run this tokenizer: the channels of its "
                                 "widest layer are " +
                                     std::to_string(widest) + ", and at most " + std::to_string(most) +
                                     " are possible. Use device 'cpu'."};
}

}  // namespace

Status CudaVideoTokenizer::load(std::shared_ptr<Device> device, const CheckpointFile& file,
                                const std::vector<WeightSource>& weights, const VideoTokenizerModel& m,
                                Precision precision, const Cancel& cancel, std::shared_ptr<VideoTokenizer>& out) {
  if (Status s = device->use(); !s.ok()) return s;
  if (Status s = checkModel(m); !s.ok()) return s;
  auto t = std::make_shared<CudaVideoTokenizer>();
  t->model_ = m;
  t->element_ = elementOf(precision);
  t->device_ = std::move(device);
  Tensors tensors;
  if (Status s = tensors.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(tensors, precision);
  Plan plan(loader);
  planVideoLayers(plan, t->encoder_, m.encoder, "encoder");
  planVideoLayers(plan, t->decoder_, m.decoder, "decoder");
  if (Status s = loader.load(t->device_, t->memory_, cancel); !s.ok()) return s;
  out = std::move(t);
  return {};
}

namespace {

// ---- frames through layers ----------------------------------------------------------------------------------

struct DeviceFrame {
  uint8_t* data = nullptr;
  int height = 0, width = 0, channels = 0;
};

// One video on its way through the layers of one half. All memory is taken at the start: frames that wait for their
// successors, the results of each layer, and what a layer needs while it runs, which all layers share.
class Flow {
 public:
  Status open(std::shared_ptr<CudaVideoTokenizer> tokenizer, bool encoder, int height, int width) {
    tokenizer_ = std::move(tokenizer);
    layers_ = &tokenizer_->layers(encoder);
    height_ = height, width_ = width;
    const VideoTokenizerModel& m = tokenizer_->model();
    const int channels = encoder ? 3 : static_cast<int>(m.levels.size());
    if (Status s = tokenizer_->device()->use(); !s.ok()) return s;
    Layout layout;
    input_ = layout.add(frameBytes(height, width, channels));
    upload_ = layout.add(static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(channels) * 4);
    pasts_.resize(2 * layers_->size());
    results_.resize(layers_->size());
    size_t scratch = 0, staged = 0, sums = 0, widest = 0;
    for (size_t i = 0; i < layers_->size(); i++) {
      const auto normed = [&](int h, int w, int c) {
        sums = std::max(sums, static_cast<size_t>(vq::sumSlots(h, w)) * static_cast<size_t>(vq::pictureStride(c)) * 8);
        widest = std::max(widest, static_cast<size_t>(c));
      };
      const auto past = [&](Past& p, const video::Filter& f, int stride) {
        p.bytes = stagedBytes(height, width, f.channels, f.kernel == 1 ? 0 : stride == 1 ? 2 : 1);
        if (f.kernel == 1) staged = std::max(staged, p.bytes);
        else
          for (size_t& at : p.at) at = layout.add(p.bytes);
      };
      if (const auto* r = std::get_if<VideoResidualLayer<DeviceVideoNorm, video::Filter>>(&(*layers_)[i])) {
        past(pasts_[2 * i], r->conv1, 1);
        past(pasts_[2 * i + 1], r->conv2, 1);
        if (r->shortcut.outputs > 0) staged = std::max(staged, stagedBytes(height, width, r->shortcut.channels, 0));
        normed(height, width, r->conv1.channels);
        normed(height, width, r->conv2.channels);
        scratch = std::max(scratch, frameBytes(height, width, r->conv1.outputs));
        results_[i][0] = layout.add(frameBytes(height, width, r->conv2.outputs));
        continue;
      }
      const auto& c = std::get<VideoConvolutionLayer<DeviceVideoNorm, video::Filter>>((*layers_)[i]);
      past(pasts_[2 * i], c.convolution, c.change.strideSpace);
      if (c.normed) normed(height, width, c.convolution.channels);
      height = height / c.change.strideSpace * c.change.expandSpace;
      width = width / c.change.strideSpace * c.change.expandSpace;
      const int part = c.convolution.outputs / (c.change.expandTime * c.change.expandSpace * c.change.expandSpace);
      // The last layer leaves floats, and is read before the next frame comes.
      const bool last = i + 1 == layers_->size();
      for (int k = 0; k < c.change.expandTime; k++)
        results_[i][k] =
            layout.add(last ? static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(part) * 4
                            : frameBytes(height, width, part));
    }
    hidden_ = layout.add(scratch);
    side_ = layout.add(scratch);
    staged_ = layout.add(staged);
    sums_ = layout.add(sums);
    factors_ = layout.add(widest * 8);
    return DeviceMemory::allocate(tokenizer_->device(), layout.bytes(),
                                  {"The frames of a video",
                                   "Free memory of the device, ask for smaller frames, or use "
                                   "device 'cpu'."},
                                  memory_);
  }

  // pixels [height, width, channels] of one frame; sink(frame): the floats of a frame that came out, on the device.
  template <class Sink>
  Status push(const float* pixels, const Sink& sink, const Cancel& cancel) {
    cancel_ = &cancel;
    if (!status.ok()) return status;  // a frame before this one failed: what is kept of it is of no use
    if (Status s = tokenizer_->device()->use(); !s.ok()) return s;
    LaunchTimer timer(tokenizer_->profile());
    timer_ = &timer;
    const video::Filter& first = filterOf(0);
    DeviceFrame frame{at(input_), height_, width_, first.channels};
    const size_t cells = static_cast<size_t>(height_) * static_cast<size_t>(width_);
    run(
        [&] {
          return LaunchRecord{"copy", "to the device", 0, static_cast<double>(cells) * first.channels * 4, 0};
        },
        [&](cudaStream_t stream) {
          return cudaMemcpyAsync(at(upload_), pixels, cells * static_cast<size_t>(first.channels) * 4,
                                 cudaMemcpyHostToDevice, stream);
        });
    run(
        [&] {
          return inputPixelsLaunch({1, height_, width_, first.channels}, item());
        },
        [&](cudaStream_t stream) {
          return vq::input({reinterpret_cast<const float*>(at(upload_)), cells, first.channels, tokenizer_->element(),
                            frame.data, threads},
                           stream);
        });
    runVideoLayers(*this, *layers_, 0, frame, sink);
    // In any case: what was enqueued reads memory of the caller.
    const Status finished = tokenizer_->device()->finish(doing);
    fail(finished);
    if (status.ok()) fail(timer.collect());
    timer_ = nullptr;
    return status;
  }

  void copyOut(float* to, const DeviceFrame& frame) {
    const size_t bytes =
        static_cast<size_t>(frame.height) * static_cast<size_t>(frame.width) * static_cast<size_t>(frame.channels) * 4;
    run(
        [&] {
          return LaunchRecord{"copy", "to the host", 0, static_cast<double>(bytes), 0};
        },
        [&](cudaStream_t stream) { return cudaMemcpyAsync(to, frame.data, bytes, cudaMemcpyDeviceToHost, stream); });
  }

  const CudaVideoTokenizer& tokenizer() const { return *tokenizer_; }

  void fail(Status s) {  // the first failure stays
    if (status.ok()) std::swap(status, s);
  }

  // ---- what runVideoLayers calls

  bool ok() {
    if (cancel_->load(std::memory_order_relaxed)) fail(cancelled());
    return status.ok();
  }

  void convolve(const DeviceFrame& x, size_t at, VideoFilter which, const video::Filter& f, const DeviceVideoNorm* norm,
                const VideoChange& change, const DeviceFrame* residual, DeviceFrame (&y)[2]) {
    Past none, &past = which == VideoFilter::shortcut ? none : pasts_[2 * at + (which == VideoFilter::second ? 1 : 0)];
    const bool isLast = at + 1 == layers_->size();
    const int index = past.frames++;
    const bool filtered = f.kernel == 3, wanted = index % change.strideTime == 0;
    if (!ok() || (!filtered && !wanted)) return;
    if (norm) factors(x, *norm);
    const int border = filtered ? (change.strideSpace == 1 ? 2 : 1) : 0;
    uint8_t* const staged = filtered ? this->at(past.at[index % 3]) : this->at(staged_);
    run(
        [&] {
          return inputPixelsLaunch({1, x.height, x.width, x.channels}, item());
        },
        [&](cudaStream_t stream) {
          const float* const scale = norm ? factorsAt() : nullptr;
          return video::stage({x.data, x.height, x.width, x.channels, tokenizer_->element(), scale,
                               norm ? scale + norm->channels : nullptr, norm ? norm->slope : nullptr, filtered ? 1 : 0,
                               border, staged, threads},
                              stream);
        });
    if (!wanted) return;
    const int height = x.height / change.strideSpace, width = x.width / change.strideSpace;
    const int part = f.outputs / (change.expandTime * change.expandSpace * change.expandSpace);
    for (int i = 0; i < change.expandTime; i++) {
      if (index == 0 && i + 1 < change.expandTime) continue;  // before the first frame
      uint8_t* const data = this->at(which == VideoFilter::shortcut ? side_
                                     : isHidden(at, which)          ? hidden_
                                                                    : results_[at][static_cast<size_t>(i)]);
      y[i] = {data, height * change.expandSpace, width * change.expandSpace, part};
    }
    // The first frame is its own past.
    const auto before = [&](int frames) { return this->at(past.at[std::max(index - frames, 0) % 3]); };
    const video::Convolution c{{filtered ? before(2) : staged, filtered ? before(1) : nullptr, staged},
                               x.width + border,
                               change.strideSpace,
                               height,
                               width,
                               f,
                               residual ? residual->data : nullptr,
                               change.expandTime,
                               change.expandSpace,
                               isLast,
                               {y[0].data, y[1].data}};
    run(
        [&] {
          const int outputs = index == 0 ? f.outputs / change.expandTime : f.outputs;
          return convolutionLaunch({{1, x.height, x.width, f.channels},
                                    {1, height, width, outputs},
                                    f.kernel,
                                    norm != nullptr,
                                    residual != nullptr,
                                    f.kernel},
                                   item());
        },
        [&](cudaStream_t stream) { return video::convolve(c, stream); });
  }

  Status status;

 private:
  struct Past {
    int frames = 0;  // that came so far
    size_t bytes = 0;
    size_t at[3] = {0, 0, 0};  // staged frames, in turn
  };

  uint8_t* at(size_t place) const { return memory_.data() + place; }
  float* factorsAt() const { return reinterpret_cast<float*>(at(factors_)); }
  size_t item() const { return sizeOf(tokenizer_->element()); }
  size_t frameBytes(int height, int width, int channels) const {
    return static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(vq::pictureStride(channels)) *
           item();
  }
  size_t stagedBytes(int height, int width, int channels, int border) const {
    return static_cast<size_t>(height + border) * static_cast<size_t>(width + border) *
           static_cast<size_t>(video::stagedStride(channels)) * item();
  }
  const video::Filter& filterOf(size_t i) const {
    using Convolution = VideoConvolutionLayer<DeviceVideoNorm, video::Filter>;
    const auto* c = std::get_if<Convolution>(&(*layers_)[i]);
    return c ? c->convolution : std::get<VideoResidualLayer<DeviceVideoNorm, video::Filter>>((*layers_)[i]).conv1;
  }
  // The result of a residual unit's first filter, which its second one reads.
  bool isHidden(size_t i, VideoFilter which) const {
    return which == VideoFilter::first &&
           std::holds_alternative<VideoResidualLayer<DeviceVideoNorm, video::Filter>>((*layers_)[i]);
  }

  template <class Describe, class Body>
  void run(Describe&& describe, Body&& body) {
    if (!ok()) return;
    const cudaStream_t stream = tokenizer_->device()->stream();
    fail(statusOf(timer_->timed(stream, describe, [&] { return body(stream); }), doing));
  }

  void factors(const DeviceFrame& x, const DeviceVideoNorm& n) {
    run(
        [&] {
          return groupNormLaunch({1, x.height, x.width, x.channels}, false, item());
        },
        [&](cudaStream_t stream) {
          float* const sums = reinterpret_cast<float*>(at(sums_));
          const cudaError_t e =
              vq::statistics({x.data, 1, x.height, x.width, x.channels, tokenizer_->element(), sums, threads}, stream);
          if (e != cudaSuccess) return e;
          const VideoTokenizerModel& m = tokenizer_->model();
          return vq::groupNormFactors({sums, 1, x.height, x.width, x.channels, m.groups, m.normEps, n.weight, n.bias,
                                       factorsAt(), factorsAt() + x.channels, factorThreads},
                                      stream);
        });
  }

  std::shared_ptr<CudaVideoTokenizer> tokenizer_;
  const CudaVideoTokenizer::Layers* layers_ = nullptr;
  DeviceMemory memory_;
  int height_ = 0, width_ = 0;  // of what is pushed
  size_t input_ = 0, upload_ = 0, hidden_ = 0, side_ = 0, staged_ = 0, sums_ = 0, factors_ = 0;
  std::vector<Past> pasts_;  // two a layer
  std::vector<std::array<size_t, 2>> results_;
  const Cancel* cancel_ = nullptr;
  LaunchTimer* timer_ = nullptr;
};

// ---- tokens to pixels

class CudaVideoDecoder : public VideoDecoder {
 public:
  CudaVideoDecoder(int rows, int columns) : rows_(rows), columns_(columns) {}
  Status open(std::shared_ptr<CudaVideoTokenizer> tokenizer) {
    return flow_.open(std::move(tokenizer), false, rows_, columns_);
  }

  Status decode(const int32_t* tokens, uint8_t* bytes, float* floats, const Cancel& cancel) override {
    const VideoTokenizerModel& m = flow_.tokenizer().model();
    const size_t cells = static_cast<size_t>(rows_) * static_cast<size_t>(columns_),
                 space = static_cast<size_t>(m.factorSpace()), frame = cells * space * space * 3;
    std::vector<float> values(cells * m.levels.size());
    if (Status s = codesToValues(m, tokens, rows_ * columns_, values.data()); !s.ok()) return s;
    const bool first = std::exchange(first_, false);
    std::vector<float> pixels(frame * static_cast<size_t>(first ? 1 : m.factorTime()));
    float* to = pixels.data();
    if (Status s = flow_.push(
            values.data(), [&](const DeviceFrame& out) { flow_.copyOut(to, out), to += frame; }, cancel);
        !s.ok())
      return s;
    if (!allFinite(pixels.data(), pixels.size())) flow_.fail(pictureNotFinite());
    if (!flow_.status.ok()) return flow_.status;
    if (floats) std::copy(pixels.begin(), pixels.end(), floats);
    if (bytes) pixelsToBytes(pixels.data(), pixels.size(), bytes);
    return {};
  }

 private:
  Flow flow_;
  int rows_, columns_;
  bool first_ = true;
};

// ---- pixels to tokens

class CudaVideoEncoder : public VideoEncoder {
 public:
  CudaVideoEncoder(int rows, int columns) : rows_(rows), columns_(columns) {}
  Status open(std::shared_ptr<CudaVideoTokenizer> tokenizer) {
    const int factor = tokenizer->model().factorSpace();
    return flow_.open(std::move(tokenizer), true, rows_ * factor, columns_ * factor);
  }

  Status encode(const float* pixels, int32_t* tokens, bool& completed, const Cancel& cancel) override {
    const VideoTokenizerModel& m = flow_.tokenizer().model();
    const size_t cells = static_cast<size_t>(rows_) * static_cast<size_t>(columns_),
                 space = static_cast<size_t>(m.factorSpace());
    if (Status s = checkFrame(pixels, cells * space * space * 3); !s.ok()) return s;
    std::vector<float> z(cells * m.levels.size());
    bool came = false;
    completed = false;
    if (Status s = flow_.push(
            pixels, [&](const DeviceFrame& out) { flow_.copyOut(z.data(), out), came = true; }, cancel);
        !s.ok())
      return s;
    if (!came) return {};
    if (!allFinite(z.data(), z.size())) flow_.fail(pictureNotFinite());
    if (!flow_.status.ok()) return flow_.status;
    completed = true;
    valuesToCodes(m, z.data(), rows_ * columns_, tokens);
    return {};
  }

 private:
  Flow flow_;
  int rows_, columns_;
};

template <class Half, class Out>
Status create(const std::shared_ptr<CudaVideoTokenizer>& tokenizer, int rows, int columns, std::unique_ptr<Out>& out) {
  if (Status s = checkVideoSides(tokenizer->model(), rows, columns); !s.ok()) return s;
  auto half = std::make_unique<Half>(rows, columns);
  if (Status s = half->open(tokenizer); !s.ok()) return s;
  out = std::move(half);
  return {};
}

}  // namespace

Status CudaVideoTokenizer::createDecoder(int rows, int columns, std::unique_ptr<VideoDecoder>& out) {
  return create<CudaVideoDecoder>(std::static_pointer_cast<CudaVideoTokenizer>(shared_from_this()), rows, columns, out);
}

Status CudaVideoTokenizer::createEncoder(int rows, int columns, std::unique_ptr<VideoEncoder>& out) {
  return create<CudaVideoEncoder>(std::static_pointer_cast<CudaVideoTokenizer>(shared_from_this()), rows, columns, out);
}

}  // namespace parvis::cuda
