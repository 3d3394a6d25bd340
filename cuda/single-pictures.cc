// Operations on pictures of the VQ tokenizer: convolutions and spatial attention, with the group norms before them.
#include "operations.h"
#include "single.h"

namespace parvis::cuda {

namespace {

// Pictures lie in an arena, as the tokenizer's do. Each run takes them anew, and finds them: nothing else is taken between
// runs, so the same calls get the same places.
class SinglePictures : public Single {
 public:
  using Single::Single;

 protected:
  using Resample = Operations::Resample;
  struct Taken {
    DevicePicture x, residual;
  };
  virtual DevicePicture enqueue(Operations& on, Taken taken, int copy) = 0;
  virtual bool normed() const = 0;
  virtual size_t residualInput() const { return 0; }  // 0: none

  int outHeight() const { return resampled(o.height); }
  int outWidth() const { return resampled(o.width); }
  Resample resample() const { return o.resample == Operation::Resample::up ? Resample::up : o.resample == Operation::Resample::down ? Resample::down : Resample::none; }

  Status check() const override {
    if (normed() && o.channels / o.groups > mostGroup) return refused("a group has " + std::to_string(o.channels / o.groups) + " channels, more than " + std::to_string(mostGroup));
    return {};
  }
  void planPictures(int outputs) {
    outputs_ = outputs;
    Arena arena;
    Operations dry = operations(arena, nullptr);
    enqueue(dry, take(dry), 0);
    arena_ = layout_.add(arena.peak());
  }
  // The sums of a norm come with a picture: whatever produced it has written them.
  Status preparePictures() {
    Arena arena;
    Operations on = operations(arena, at<uint8_t>(arena_));
    const Taken taken = take(on);
    if (Status s = put(on, taken.x, 0); !s.ok()) return s;
    if (taken.x.sums.taken())
      on.run([] { return LaunchRecord(); },
             [&](cudaStream_t stream) { return vq::statistics({on.at<uint8_t>(taken.x.place), o.images, o.height, o.width, o.channels, element(), on.at<float>(taken.x.sums), rowThreads}, stream); });
    if (residualInput() == 0 || !on.going()) return on.status;
    return put(on, taken.residual, residualInput());
  }
  // A convolution's weights and bias, the inputs `which` and `which` + 1, at `place`: the filter, then [outputs up to 16] floats.
  static size_t filterBytes(const VqFilter& f) { return (f.bytes() + 255) / 256 * 256 + static_cast<size_t>(rowStride(f.outputs)) * 4; }
  static VqFilter filterAt(VqFilter f, uint8_t* place) {
    if (!place) return f;  // there is no memory yet
    f.data = place;
    f.bias = reinterpret_cast<const float*>(place + (f.bytes() + 255) / 256 * 256);
    return f;
  }
  Status putFilter(const VqFilter& f, size_t which) {
    const float* from;
    if (Status s = input(which, from); !s.ok()) return s;
    if (Status s = launched(vq::packFilter(from, 0, f.outputs, f, rowThreads, stream())); !s.ok()) return s;
    return rowsOf(which + 1, 1, f.outputs, Element::float32, const_cast<float*>(f.bias), rowStride(f.outputs));
  }
  Status putNorm(const VqNorm& n, size_t which) {
    if (Status s = rowsOf(which, 1, n.channels, Element::float32, const_cast<float*>(n.weight), n.channels); !s.ok()) return s;
    return rowsOf(which + 1, 1, n.channels, Element::float32, const_cast<float*>(n.bias), n.channels);
  }

 private:
  static constexpr int mostGroup = 512;

  int resampled(int side) const { return o.resample == Operation::Resample::up ? 2 * side : o.resample == Operation::Resample::down ? side / 2 : side; }
  Operations operations(Arena& arena, uint8_t* base) const {
    Operations on(arena, base, *device_, element(), std::max(1, o.groups), o.eps, o.images, cancel_);
    on.waits = false;
    return on;
  }
  Taken take(Operations& on) const {
    Taken t;
    t.x = on.make(o.height, o.width, o.channels);
    if (normed()) t.x.sums = on.take(on.sumBytes(o.height, o.width, o.channels));
    if (residualInput() != 0) t.residual = on.make(outHeight(), outWidth(), outputs_);
    return t;
  }
  Status put(Operations& on, const DevicePicture& to, size_t which) {
    const float* from;
    if (Status s = input(which, from); !s.ok()) return s;
    const size_t pixels = static_cast<size_t>(o.images) * static_cast<size_t>(to.height) * static_cast<size_t>(to.width);
    return launched(vq::input({from, pixels, to.channels, element(), on.at<uint8_t>(to.place), rowThreads}, stream()));
  }
  Status once(int copy) override {
    Arena arena;
    Operations on = operations(arena, at<uint8_t>(arena_));
    const DevicePicture y = enqueue(on, take(on), copy);
    result_ = y.place.at();
    return on.going() ? Status{} : on.status;
  }
  Status read(std::vector<float>& out) override {
    const size_t pixels = static_cast<size_t>(o.images) * static_cast<size_t>(outHeight()) * static_cast<size_t>(outWidth());
    return readRows(at<uint8_t>(arena_) + result_, element(), pixels, outputs_, vq::pictureStride(outputs_), out);
  }
  int outputs_ = 0;
  size_t arena_ = 0, result_ = 0;
};

class SingleConvolution : public SinglePictures {
 public:
  using SinglePictures::SinglePictures;

 private:
  bool normed() const override { return o.groups > 0; }
  size_t residualInput() const override { return !o.residual ? 0 : normed() ? 5 : 3; }
  VqFilter filter() const { return {nullptr, nullptr, o.channels, o.outputs, o.kernel, element()}; }
  VqFilter filter(int copy) const { return filterAt(filter(), at<uint8_t>(weights_ + each_ * static_cast<size_t>(copy))); }
  VqNorm norm() const { return {at(norm_), at(norm_ + static_cast<size_t>(o.channels) * 4), o.channels}; }

  Status check() const override {
    if (o.swish && !normed()) return refused("swish comes after a norm, and it has none");
    if (o.resample != Operation::Resample::none && normed()) return refused("a convolution that resamples has no norm before it");
    return SinglePictures::check();
  }
  void plan() override {
    norm_ = layout_.add(normed() ? static_cast<size_t>(o.channels) * 8 : 0);
    each_ = filterBytes(filter());
    weights_ = addCopies(each_);
    planPictures(o.outputs);
  }
  Status prepare(int copy) override {
    if (Status s = putFilter(filter(copy), 1); !s.ok() || copy > 0) return s;
    if (normed())
      if (Status s = putNorm(norm(), 3); !s.ok()) return s;
    return preparePictures();
  }
  DevicePicture enqueue(Operations& on, Taken taken, int copy) override {
    const VqNorm n = norm();
    return on.convolve(taken.x, filter(copy), normed() ? &n : nullptr, o.swish, resample(), o.residual ? &taken.residual : nullptr);
  }
  size_t norm_ = 0, weights_ = 0, each_ = 0;
};

class SingleSpatialAttention : public SinglePictures {
 public:
  using SinglePictures::SinglePictures;

 private:
  bool normed() const override { return true; }
  VqFilter filter() const { return {nullptr, nullptr, o.channels, o.channels, 1, element()}; }
  VqFilter filter(int copy, int which) const { return filterAt(filter(), at<uint8_t>(weights_ + each_ * static_cast<size_t>(copy) + filterBytes(filter()) * static_cast<size_t>(which))); }
  VqNorm norm() const { return {at(norm_), at(norm_ + static_cast<size_t>(o.channels) * 4), o.channels}; }

  Status check() const override {
    if (o.channels > vq::mostAttentionChannels) return refused("it has more than " + std::to_string(vq::mostAttentionChannels) + " channels");
    return SinglePictures::check();
  }
  void plan() override {
    norm_ = layout_.add(static_cast<size_t>(o.channels) * 8);
    each_ = 4 * filterBytes(filter());
    weights_ = addCopies(each_);
    planPictures(o.channels);
  }
  Status prepare(int copy) override {
    for (int i = 0; i < 4; i++)
      if (Status s = putFilter(filter(copy, i), static_cast<size_t>(3 + 2 * i)); !s.ok()) return s;
    if (copy > 0) return {};
    if (Status s = putNorm(norm(), 1); !s.ok()) return s;
    return preparePictures();
  }
  DevicePicture enqueue(Operations& on, Taken taken, int copy) override {
    return on.attention(std::move(taken.x), {norm(), filter(copy, 0), filter(copy, 1), filter(copy, 2), filter(copy, 3)});
  }
  size_t norm_ = 0, weights_ = 0, each_ = 0;
};

}  // namespace

std::unique_ptr<Single> singleOfPictures(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel) {
  if (o.kind == Operation::Kind::convolution) return std::make_unique<SingleConvolution>(std::move(device), o, run, cancel);
  return std::make_unique<SingleSpatialAttention>(std::move(device), o, run, cancel);
}

}  // namespace parvis::cuda
