#include "picture-runner.h"

#include <algorithm>
#include <cstring>

namespace parvis::cuda {

namespace {

constexpr int threads = 256;
constexpr double maxAhead = 5e12;  // operations enqueued before the stream is waited for: some 20 ms of a large device

}  // namespace

// ---- memory -------------------------------------------------------------------------------------------------

size_t Arena::take(size_t bytes) {
  bytes = std::max<size_t>((bytes + 255) / 256 * 256, 256);
  size_t at = 0;
  auto next = used_.begin();
  for (; next != used_.end() && next->begin - at < bytes; ++next) at = next->end;
  used_.insert(next, {at, at + bytes});
  peak_ = std::max(peak_, at + bytes);
  return at;
}

void Arena::give(size_t at) {
  used_.erase(std::find_if(used_.begin(), used_.end(), [&](const Used& u) { return u.begin == at; }));
}

size_t PictureRunner::pictureBytes(int height, int width, int channels) const {
  return static_cast<size_t>(images_) * static_cast<size_t>(height) * static_cast<size_t>(width) *
         static_cast<size_t>(vq::pictureStride(channels)) * (element_ == Element::float32 ? 4 : 2);
}
size_t PictureRunner::sumBytes(int height, int width, int channels) const {
  return static_cast<size_t>(images_) * static_cast<size_t>(vq::sumSlots(height, width)) *
         static_cast<size_t>(vq::pictureStride(channels)) * 8;
}

DevicePicture PictureRunner::make(int height, int width, int channels) {
  DevicePicture p;
  p.height = height;
  p.width = width;
  p.channels = channels;
  p.place = take(pictureBytes(height, width, channels));
  return p;
}

// ---- the stream ---------------------------------------------------------------------------------------------

bool PictureRunner::ok() {
  if (cancel_.load(std::memory_order_relaxed)) fail(cancelled());
  return status.ok();
}

void PictureRunner::fail(Status s) {
  if (status.ok()) std::swap(status, s);
}

void PictureRunner::worked(double flops) {
  if (!base_ || !status.ok()) return;
  ahead_ += flops;
  if (ahead_ < maxAhead) return;
  ahead_ = 0;
  fail(device_.finish("running the tokenizer"));
}

void PictureRunner::copyIn(const ArenaBlock& to, const void* from, size_t bytes) {
  run(
      [&] {
        return LaunchRecord{"copy", "to the device", 0, static_cast<double>(bytes), 0};
      },
      [&](cudaStream_t stream) {
        return cudaMemcpyAsync(at<uint8_t>(to), from, bytes, cudaMemcpyHostToDevice, stream);
      });
}
void PictureRunner::copyOut(void* to, const ArenaBlock& from, size_t bytes) {
  const size_t place = std::exchange(outBytes_, outBytes_ + (bytes + 15) / 16 * 16);
  if (base_ && staging_ && outBytes_ <= staging_->bytes()) {
    staged_.push_back({to, staging_->data() + place, bytes});
    to = staging_->data() + place;
  }
  run(
      [&] {
        return LaunchRecord{"copy", "to the host", 0, static_cast<double>(bytes), 0};
      },
      [&](cudaStream_t stream) {
        return cudaMemcpyAsync(to, at<uint8_t>(from), bytes, cudaMemcpyDeviceToHost, stream);
      });
}

void PictureRunner::deliver() {
  for (const Staged& s : staged_) std::memcpy(s.to, s.from, s.bytes);
  staged_.clear();
}

// ---- convolution --------------------------------------------------------------------------------------------

PictureRunner::Factors PictureRunner::factors(const Picture& x, const VqNorm& n) {
  const size_t bytes = static_cast<size_t>(images_) * static_cast<size_t>(x.channels) * 4;
  Factors f{take(bytes), take(bytes)};
  ArenaBlock apart;
  if (!x.sums.taken()) apart = take(sumBytes(x.height, x.width, x.channels));
  const PictureShape picture = shape(x.height, x.width, x.channels);
  run([&] { return groupNormLaunch(picture, !apart.taken(), sizeOf(element_)); },
      [&](cudaStream_t stream) {
        float* const sums = at<float>(x.sums.taken() ? x.sums : apart);
        if (apart.taken()) {
          const cudaError_t e = vq::statistics(
              {at<uint8_t>(x.place), images_, x.height, x.width, x.channels, element_, sums, threads}, stream);
          if (e != cudaSuccess) return e;
        }
        return vq::groupNormFactors({sums, images_, x.height, x.width, x.channels, groups_, eps_, n.weight, n.bias,
                                     at<float>(f.scale), at<float>(f.shift), factorThreads},
                                    stream);
      });
  return f;
}

void PictureRunner::convolve(const Picture& x, const VqFilter& f, const Factors* factors, bool swish, Resample resample,
                             const Picture* residual, const ArenaBlock& y, const ArenaBlock* sums, bool floats) {
  vq::Convolution c{};
  c.images = images_;
  c.height = x.height;
  c.width = x.width;
  c.filter = f;
  c.resample = resample;
  c.swish = swish;
  c.floats = floats;
  const PictureShape from = shape(x.height, x.width, f.channels), to = shape(c.outHeight(), c.outWidth(), f.outputs);
  run(
      [&] {
        return convolutionLaunch({from, to, f.kernel, factors != nullptr, residual != nullptr}, sizeOf(element_));
      },
      [&](cudaStream_t stream) {
        c.x = at<uint8_t>(x.place);
        c.scale = factors ? at<float>(factors->scale) : nullptr;
        c.shift = factors ? at<float>(factors->shift) : nullptr;
        c.residual = residual ? at<uint8_t>(residual->place) : nullptr;
        c.y = at<uint8_t>(y);
        c.sums = sums ? at<float>(*sums) : nullptr;
        return vq::convolve(c, stream);
      });
  worked(2.0 * images_ * c.outHeight() * c.outWidth() * f.outputs * f.channels * f.taps());
}

DevicePicture PictureRunner::convolve(const Picture& x, const VqFilter& f, const VqNorm* norm, bool swish,
                                      Resample resample, const Picture* residual, bool summed) {
  vq::Convolution shape{};
  shape.height = x.height;
  shape.width = x.width;
  shape.resample = resample;
  Factors factors;
  if (norm) factors = this->factors(x, *norm);
  DevicePicture y = make(shape.outHeight(), shape.outWidth(), f.outputs);
  if (summed) y.sums = take(sumBytes(y.height, y.width, y.channels));
  convolve(x, f, norm ? &factors : nullptr, swish, resample, residual, y.place, summed ? &y.sums : nullptr, false);
  return y;
}

ArenaBlock PictureRunner::floats(const Picture& x, const ConvolutionLayer<VqNorm, VqFilter>& l) {
  Factors factors;
  if (l.normed) factors = this->factors(x, l.norm);
  ArenaBlock y = take(static_cast<size_t>(images_) * static_cast<size_t>(x.height) * static_cast<size_t>(x.width) *
                      static_cast<size_t>(l.convolution.outputs) * 4);
  convolve(x, l.convolution, l.normed ? &factors : nullptr, l.normed, Resample::none, nullptr, y, nullptr, true);
  return y;
}

// ---- layers -------------------------------------------------------------------------------------------------

DevicePicture PictureRunner::layer(Picture x, const ConvolutionLayer<VqNorm, VqFilter>& l, bool summed) {
  return convolve(x, l.convolution, l.normed ? &l.norm : nullptr, l.normed, l.resample, nullptr, summed);
}

DevicePicture PictureRunner::layer(Picture x, const ResidualLayer<VqNorm, VqFilter>& r, bool summed) {
  const Picture h = convolve(x, r.conv1, &r.norm1, true, Resample::none, nullptr, true);
  if (r.shortcut.outputs == 0) return convolve(h, r.conv2, &r.norm2, true, Resample::none, &x, summed);
  const Picture side = convolve(x, r.shortcut, nullptr, false, Resample::none, nullptr, false);
  x = Picture();
  return convolve(h, r.conv2, &r.norm2, true, Resample::none, &side, summed);
}

DevicePicture PictureRunner::layer(Picture x, const AttentionLayer<VqNorm, VqFilter>& a, bool summed) {
  const int positions =
      static_cast<int>(static_cast<int64_t>(x.height) * x.width);  // where that is too many, memory is refused before
  Picture out;
  {
    const Factors factors = this->factors(x, a.norm);
    const Picture q = make(x.height, x.width, x.channels), k = make(x.height, x.width, x.channels),
                  v = make(x.height, x.width, x.channels);
    convolve(x, a.q, &factors, false, Resample::none, nullptr, q.place, nullptr, false);
    convolve(x, a.k, &factors, false, Resample::none, nullptr, k.place, nullptr, false);
    convolve(x, a.v, &factors, false, Resample::none, nullptr, v.place, nullptr, false);
    out = make(x.height, x.width, x.channels);
    run([&] { return pixelAttentionLaunch(shape(x.height, x.width, x.channels), sizeOf(element_)); },
        [&](cudaStream_t stream) {
          return vq::attend({at<uint8_t>(q.place), at<uint8_t>(k.place), at<uint8_t>(v.place), at<uint8_t>(out.place),
                             images_, positions, x.channels, element_},
                            stream);
        });
    worked(4.0 * images_ * positions * static_cast<double>(positions) * x.channels);
  }
  return convolve(out, a.out, nullptr, false, Resample::none, &x, summed);
}

}  // namespace parvis::cuda
