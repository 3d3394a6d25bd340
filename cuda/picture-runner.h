// PictureRunner on pictures of the VQ tokenizer, enqueued one after the other: the CUDA side of what cpu/picture.h is.
// Pictures lie in one allocation whose size a dry run of the same operations finds out first, so that nothing is taken
// piece by piece and a picture that does not fit is refused before any work. Memory goes back to the arena as soon as
// the last reader is enqueued: there is one stream, so whatever comes later runs later.
#pragma once

#include <vector>

#include "../common/launches.h"
#include "../common/picture-layers.h"
#include "device.h"
#include "launch-timer.h"
#include "parvis/step.h"
#include "vq.cuh"

namespace parvis::cuda {

// Places in one allocation, taken and given back in any order, the first gap that fits.
class Arena {
 public:
  size_t take(size_t bytes);
  void give(size_t at);
  size_t peak() const { return peak_; }

 private:
  struct Used {
    size_t begin, end;
  };
  std::vector<Used> used_;  // in order
  size_t peak_ = 0;
};

// A borrowed place; goes back when destroyed.
class ArenaBlock {
 public:
  ArenaBlock() = default;
  ArenaBlock(Arena* arena, size_t bytes) : arena_(arena), at_(arena->take(bytes)) {}
  ArenaBlock(ArenaBlock&& other) noexcept : arena_(std::exchange(other.arena_, nullptr)), at_(other.at_) {}
  ArenaBlock& operator=(ArenaBlock&& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(at_, other.at_);
    return *this;
  }
  ~ArenaBlock() {
    if (arena_) arena_->give(at_);
  }
  bool taken() const { return arena_ != nullptr; }
  size_t at() const { return at_; }

 private:
  Arena* arena_ = nullptr;
  size_t at_ = 0;
};

constexpr int factorThreads = 512;  // of a group norm: at least the channels of a group

struct VqNorm {
  const float* weight = nullptr;  // [channels]
  const float* bias = nullptr;
  int channels = 0;
};
using VqFilter = vq::Filter;  // outputs = 0: none

struct DevicePicture {
  ArenaBlock place, sums;  // sums: for the norm after it, where its producer wrote them
  int height = 0, width = 0, channels = 0;
};

// Runs operations until one fails; the rest then do nothing, and `status` says why. All images of a pass together.
class PictureRunner {
 public:
  using Picture = DevicePicture;
  // base: the allocation; null: a dry run, for arena.peak(). profile: where launches are recorded, or null.
  PictureRunner(Arena& arena, uint8_t* base, Device& device, Element element, int groups, float eps, int images,
                const Cancel& cancel, Profile* profile = nullptr)
      : arena_(arena), base_(base), device_(device), element_(element), groups_(groups), eps_(eps), images_(images),
        cancel_(cancel), timer_(profile) {}
  Status status;

  bool ok();  // false after a failure or a cancellation
  ArenaBlock take(size_t bytes) { return ArenaBlock(&arena_, bytes); }
  template <class T>
  T* at(const ArenaBlock& p) const {
    return reinterpret_cast<T*>(base_ + p.at());
  }
  Picture make(int height, int width, int channels);
  size_t sumBytes(int height, int width, int channels) const;
  // Host memory of the caller, that stays until the stream is done.
  void copyIn(const ArenaBlock& to, const void* from, size_t bytes);
  void copyOut(void* to, const ArenaBlock& from, size_t bytes);
  // What copyOut was asked for so far.
  size_t outBytes() const { return outBytes_; }
  // Page-locked memory, through which copies to the host go as far as it reaches: the device writes it by itself.
  void stageIn(const HostMemory& memory) { staging_ = &memory; }
  // Once the stream is done: what was staged gets to where it was to go.
  void deliver();
  // Runs `body` (which returns a cudaError_t) unless this is a dry run or something failed. `describe`: a function that
  // returns the LaunchRecord of a profile.
  template <class Describe, class Body>
  void run(Describe&& describe, Body&& body) {
    if (!base_ || !ok()) return;
    const cudaStream_t stream = device_.stream();
    fail(statusOf(timer_.timed(stream, describe, [&] { return body(stream); }), "running the tokenizer"));
  }
  // Once the stream is done: completes the profile.
  Status collect() { return timer_.collect(); }

  // summed: a norm will read the result.
  Picture layer(Picture x, const ConvolutionLayer<VqNorm, VqFilter>& l, bool summed);
  Picture layer(Picture x, const ResidualLayer<VqNorm, VqFilter>& l, bool summed);
  Picture layer(Picture x, const AttentionLayer<VqNorm, VqFilter>& l, bool summed);
  // The last layer of a network: float32 [images, height, width, outputs].
  ArenaBlock floats(const Picture& x, const ConvolutionLayer<VqNorm, VqFilter>& l);
  Element element() const { return element_; }
  int images() const { return images_; }
  PictureShape shape(int height, int width, int channels) const { return {images_, height, width, channels}; }

 private:
  struct Factors {
    ArenaBlock scale, shift;
  };
  Factors factors(const Picture& x, const VqNorm& n);
  // norm: null for none, else group norm; swish after it. residual: same shape as the result, or null.
  Picture convolve(const Picture& x, const VqFilter& f, const VqNorm* norm, bool swish, Resample resample,
                   const Picture* residual, bool summed);
  void convolve(const Picture& x, const VqFilter& f, const Factors* factors, bool swish, Resample resample,
                const Picture* residual, const ArenaBlock& y, const ArenaBlock* sums, bool floats);
  void fail(Status s);  // the first failure stays
  void worked(double flops);
  size_t pictureBytes(int height, int width, int channels) const;

  Arena& arena_;
  uint8_t* base_;
  Device& device_;
  Element element_;
  int groups_;
  float eps_;
  int images_;
  const Cancel& cancel_;
  LaunchTimer timer_;
  struct Staged {
    void* to;
    const uint8_t* from;
    size_t bytes;
  };
  const HostMemory* staging_ = nullptr;
  std::vector<Staged> staged_;
  size_t outBytes_ = 0;  // as the staging memory has them: each copy 16 bytes aligned
  double ahead_ = 0;
};

}  // namespace parvis::cuda
