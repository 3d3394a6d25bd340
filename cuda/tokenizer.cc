#include "tokenizer.h"

#include <algorithm>

#include "../common/pictures.h"

namespace parvis::cuda {

namespace {

constexpr int threads = 256;
constexpr int maxTogether = 16;                   // images of a pass: more make nothing faster
constexpr size_t maxScratch = size_t{512} << 20;  // of a pass of several images, and kept between calls: taking and
                                                  // clearing memory costs as much as half a picture
constexpr size_t maxStaged = size_t{16} << 20;    // of a pass, in page-locked memory that is kept

// ---- loading ------------------------------------------------------------------------------------------------

// Rows of a convolution go to the device as they are stored, in float32, and are packed there.
class LayerPlan {
 public:
  explicit LayerPlan(Loader& loader) : loader_(loader) {}

  void norm(VqNorm& n, const std::string& name, int channels) {
    n.channels = channels;
    loader_.vector(n.weight, name + ".weight", {channels}, false);
    loader_.vector(n.bias, name + ".bias", {channels}, false);
  }
  void convolution(VqFilter& f, const std::string& name, int channels, int outputs, int kernel) {
    f = {nullptr, nullptr, channels, outputs, kernel, loader_.element()};
    loader_.vector(f.bias, name + ".bias", {outputs}, false);
    const Weight* t = loader_.tensors().find(name + ".weight", {outputs, channels, kernel, kernel});
    if (!t) return;
    loader_.filter(f.data, f.bytes(), *t, f.superTile(), 1 << 16,
                   [&f](const float* rows, int first, int count, cudaStream_t stream) {
                     return vq::packFilter(rows, first, count, f, threads, stream);
                   });
  }

 private:
  Loader& loader_;
};

// What the kernels can run; others are refused by name, not by a failing launch.
Status checkModel(const TokenizerModel& m, Precision precision, const Device& device) {
  const auto refuse = [](const std::string& what, int found, int most) {
    return Status{Code::deviceUnavailable, "The CUDA backend cannot run this tokenizer: " + what + " " +
                                               std::to_string(found) + ", and at most " + std::to_string(most) +
                                               " are possible. Use device 'cpu'."};
  };
  int widest = 0, normed = 0, attended = 0;  // channels
  for (const auto* layers : {&m.encoder, &m.decoder})
    for (const TokenizerLayer& l : *layers) {
      widest = std::max(widest, l.channels);
      if (l.readsNormed()) normed = std::max(normed, l.channels);
      if (l.kind == TokenizerLayer::Kind::residual) normed = std::max(normed, l.outputs);
      if (l.kind == TokenizerLayer::Kind::attention) attended = std::max(attended, l.channels);
    }
  widest = std::max(widest, normed);
  if (m.codeSize > vq::maxCodeSize) return refuse("the numbers of a code are", m.codeSize, vq::maxCodeSize);
  if (attended > vq::maxAttentionChannels)
    return refuse("the channels of its attention are", attended, vq::maxAttentionChannels);
  if (const int most = factorThreads * m.groups; normed > most)
    return refuse("the channels of its widest norm are", normed, most);
  if (precision == Precision::float32) return {};
  const int most = vq::channelLimit(device.sharedLimit());
  return widest > most ? refuse("the channels of its widest layer are", widest, most) : Status{};
}

}  // namespace

Status CudaTokenizer::load(std::shared_ptr<Device> device, const CheckpointFile& file,
                           const std::vector<WeightSource>& weights, const TokenizerModel& m, Precision precision,
                           const Cancel& cancel, std::shared_ptr<Tokenizer>& out) {
  if (Status s = device->use(); !s.ok()) return s;
  if (Status s = checkModel(m, precision, *device); !s.ok()) return s;
  auto t = std::make_shared<CudaTokenizer>();
  t->model_ = m;
  t->element_ = elementOf(precision);
  t->device_ = std::move(device);
  Tensors tensors;
  if (Status s = tensors.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(tensors, precision);
  LayerPlan plan(loader);
  planLayers(plan, t->encoder_, m.encoder, "encoder");
  planLayers(plan, t->decoder_, m.decoder, "decoder");
  loader.vector(t->codebook_, "codebook", {m.codebook, m.codeSize}, false);
  if (Status s = loader.load(t->device_, t->memory_, cancel); !s.ok()) return s;
  // The codebook lies in memory_, which is ours to write.
  if (Status s = statusOf(
          vq::normaliseRows(const_cast<float*>(t->codebook_), m.codebook, m.codeSize, threads, t->device_->stream()),
          "loading weights");
      !s.ok())
    return s;
  // NaN is never the nearest, so that encoding would not notice such rows.
  std::vector<float> codebook(static_cast<size_t>(m.codebook) * static_cast<size_t>(m.codeSize));
  if (Status s = statusOf(cudaMemcpyAsync(codebook.data(), t->codebook_, codebook.size() * sizeof(float),
                                          cudaMemcpyDeviceToHost, t->device_->stream()),
                          "loading weights");
      !s.ok())
    return s;
  if (Status s = t->device_->finish("loading weights"); !s.ok()) return s;
  t->codebookFinite_ = allFinite(codebook.data(), codebook.size());
  t->device_->keeps(t.get());
  out = std::move(t);
  return {};
}

CudaTokenizer::~CudaTokenizer() {
  if (device_) device_->forgets(this);
}

bool CudaTokenizer::reclaim() {
  const std::lock_guard<std::mutex> hold(scratchLock_);
  if (busy_ || !scratch_.data()) return false;
  scratch_.freeIdle();  // the call that used it has waited for what it enqueued
  return true;
}

size_t CudaTokenizer::reclaimableBytes() {
  const std::lock_guard<std::mutex> hold(scratchLock_);
  return busy_ ? 0 : scratch_.bytes();
}

// ---- passes -------------------------------------------------------------------------------------------------

template <class Pass>
Status CudaTokenizer::passes(int count, const Cancel& cancel, Pass&& pass) {
  const auto use = [this](bool busy) {
    const std::lock_guard<std::mutex> hold(scratchLock_);
    busy_ = busy;
  };
  use(true);
  Status status = usedPasses(count, cancel, pass);
  use(false);
  return status;
}

template <class Pass>
Status CudaTokenizer::usedPasses(int count, const Cancel& cancel, Pass&& pass) {
  size_t out = 0;  // bytes of a pass to the host
  const auto need = [&](int images) {
    Arena arena;
    PictureRunner dry(arena, nullptr, *device_, element_, model_.groups, model_.normEps, images, cancel);
    pass(dry, 0);
    out = std::max(out, dry.outBytes());
    return arena.peak();
  };
  // The last pass may be of fewer images, whose gaps differ.
  const auto needs = [&](int together) {
    return std::max(need(together), count % together == 0 ? 0 : need(count % together));
  };
  int together = std::min(count, maxTogether);
  while (together > 1 && needs(together) > maxScratch) together /= 2;
  for (;;) {
    const size_t bytes = needs(together);
    if (scratch_.bytes() >= bytes) break;
    scratch_ = DeviceMemory();
    Status s = DeviceMemory::allocate(
        device_, bytes,
        {"The tokenizer's pictures", "Free memory of the device, ask for a smaller picture, or use device 'cpu'."},
        scratch_);
    if (s.ok()) break;
    if (s.code != Code::outOfMemory || together == 1) return s;
    together /= 2;
  }
  if (out <= maxStaged && out > staging_.bytes()) {
    HostMemory more;
    if (HostMemory::allocate(out, more).ok()) staging_ = std::move(more);  // without it copies take a little longer
  }
  Status status;
  for (int first = 0; first < count && status.ok(); first += together) {
    Arena arena;
    PictureRunner run(arena, scratch_.data(), *device_, element_, model_.groups, model_.normEps,
                      std::min(together, count - first), cancel, recording());
    run.stageIn(staging_);
    pass(run, first);
    // Also after a failure: the caller's memory may be in use.
    const Status finished = device_->finish("running the tokenizer");
    status = run.ok() ? finished : run.status;
    if (status.ok()) status = run.collect();
    if (status.ok()) run.deliver();
  }
  if (scratch_.bytes() > maxScratch) scratch_ = DeviceMemory();
  return status;
}

static const auto& lastLayer(const std::vector<PictureLayer<VqNorm, VqFilter>>& layers) {
  return std::get<ConvolutionLayer<VqNorm, VqFilter>>(layers.back());
}

// ---- tokens to pixels ---------------------------------------------------------------------------------------

void CudaTokenizer::decodePass(PictureRunner& run, const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes,
                               float* floats, int* nonFinite) const {
  const int cells = o.gridHeight * o.gridWidth * run.images();
  DevicePicture x = run.make(o.gridHeight, o.gridWidth, model_.codeSize);
  {
    const ArenaBlock list = run.take(static_cast<size_t>(cells) * 4);
    run.copyIn(list, tokens, static_cast<size_t>(cells) * 4);
    run.run([&] { return codebookLookupLaunch(cells, model_.codeSize, sizeOf(element_)); },
            [&](cudaStream_t stream) {
              return vq::lookup({codebook_, model_.codeSize, run.at<int32_t>(list), cells, element_,
                                 run.at<uint8_t>(x.place), threads},
                                stream);
            });
  }
  x = runLayers(run, std::move(x), decoder_, decoder_.size() - 1);
  const int height = x.height, width = x.width;
  const ArenaBlock rgb = run.floats(x, lastLayer(decoder_));
  x = DevicePicture();
  const size_t values = static_cast<size_t>(run.images()) * static_cast<size_t>(o.outHeight) *
                        static_cast<size_t>(o.outWidth) * 3,
               size = values * (bytes ? 1 : 4);
  const ArenaBlock out = run.take(size), flag = run.take(sizeof(int));
  run.run(
      [&] {
        const PictureShape decoded = run.shape(height, width, 3), wanted = run.shape(o.outHeight, o.outWidth, 3);
        return outputPixelsLaunch(decoded, wanted, bytes ? 1 : sizeof(float));
      },
      [&](cudaStream_t stream) {
        const cudaError_t e = cudaMemsetAsync(run.at<int>(flag), 0, sizeof(int), stream);
        if (e != cudaSuccess) return e;
        return vq::output(
            {run.at<float>(rgb), run.images(), height, width, o.outHeight, o.outWidth,
             bytes ? nullptr : run.at<float>(out), bytes ? run.at<uint8_t>(out) : nullptr, threads, run.at<int>(flag)},
            stream);
      });
  run.copyOut(bytes ? static_cast<void*>(bytes) : floats, out, size);
  run.copyOut(nonFinite, flag, sizeof(int));
}

Status CudaTokenizer::decode(const int32_t* tokens, const DecodeOptions& o, uint8_t* bytes, float* floats,
                             const Cancel& cancel) {
  if (Status s = device_->use(); !s.ok()) return s;
  if (Status s = checkDecode(model_, tokens, o); !s.ok()) return s;
  const size_t cells = static_cast<size_t>(o.gridHeight) * static_cast<size_t>(o.gridWidth),
               values = static_cast<size_t>(o.outHeight) * static_cast<size_t>(o.outWidth) * 3;
  std::vector<int> nonFinite(static_cast<size_t>(o.count));  // of each pass, where its first picture is
  if (Status s = passes(o.count, cancel,
                        [&](PictureRunner& run, int first) {
                          const size_t i = static_cast<size_t>(first);
                          decodePass(run, tokens + cells * i, o, bytes ? bytes + values * i : nullptr,
                                     floats ? floats + values * i : nullptr, nonFinite.data() + i);
                        });
      !s.ok())
    return s;
  return std::find(nonFinite.begin(), nonFinite.end(), 1) == nonFinite.end() ? Status{} : pictureNotFinite();
}

// ---- pixels to tokens ---------------------------------------------------------------------------------------

void CudaTokenizer::encodePass(PictureRunner& run, const float* pixels, int height, int width, int32_t* tokens) const {
  const size_t all = static_cast<size_t>(run.images()) * static_cast<size_t>(height) * static_cast<size_t>(width);
  DevicePicture x = run.make(height, width, 3);
  {
    const ArenaBlock stored = run.take(all * 12);
    run.copyIn(stored, pixels, all * 12);
    run.run([&] { return inputPixelsLaunch(run.shape(height, width, 3), sizeOf(element_)); },
            [&](cudaStream_t stream) {
              return vq::input({run.at<float>(stored), all, 3, element_, run.at<uint8_t>(x.place), threads}, stream);
            });
  }
  x = runLayers(run, std::move(x), encoder_, encoder_.size() - 1);
  const size_t cells = static_cast<size_t>(run.images()) * static_cast<size_t>(x.height) * static_cast<size_t>(x.width);
  const ArenaBlock z = run.floats(x, lastLayer(encoder_));
  const ArenaBlock list = run.take(cells * 4);
  // Nearest row of length 1 = largest product; the length of z scales all of them alike.
  run.run([&] { return nearestCodeLaunch(static_cast<int>(cells), model_.codebook, model_.codeSize); },
          [&](cudaStream_t stream) {
            return vq::nearest({codebook_, model_.codebook, model_.codeSize, run.at<float>(z), static_cast<int>(cells),
                                run.at<int32_t>(list), threads},
                               stream);
          });
  run.copyOut(tokens, list, cells * 4);
}

Status CudaTokenizer::encode(const float* pixels, int count, int height, int width, int32_t* tokens,
                             const Cancel& cancel) {
  if (Status s = device_->use(); !s.ok()) return s;
  if (Status s = checkEncode(model_, pixels, count, height, width); !s.ok()) return s;
  const size_t factor = static_cast<size_t>(model_.factor()),
               values = static_cast<size_t>(height) * static_cast<size_t>(width) * 3,
               cells = static_cast<size_t>(height) / factor * (static_cast<size_t>(width) / factor);
  if (!codebookFinite_) return pictureNotFinite();
  if (Status s = passes(count, cancel,
                        [&](PictureRunner& run, int first) {
                          const size_t i = static_cast<size_t>(first);
                          encodePass(run, pixels + values * i, height, width, tokens + cells * i);
                        });
      !s.ok())
    return s;
  const int32_t* end = tokens + cells * static_cast<size_t>(count);
  return std::find(static_cast<const int32_t*>(tokens), end, -1) == end ? Status{} : pictureNotFinite();
}

}  // namespace parvis::cuda
