// PictureRunner on pictures [height, width, channels]: each is one or two parallel passes. Memory is borrowed from a
// pool, since a full-size picture is 75 MB and fresh pages cost more than the work.
#pragma once

#include <memory>
#include <vector>

#include "../common/picture-layers.h"
#include "kernels.h"
#include "parvis/profile.h"
#include "parvis/step.h"
#include "platform.h"
#include "threads.h"
#include "weights.h"

namespace parvis::cpu {

struct GroupNorm {
  float* scale = nullptr;  // [channels]
  float* shift = nullptr;
  int channels = 0;
};

struct ConvolutionWeights {
  Matrix w;
  float* bias = nullptr;
  int channels = 0, padded = 0, outputs = 0, kernel = 0;
};

class Pool;

// A borrowed buffer; goes back when destroyed.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Pool* pool, Memory memory) : pool_(pool), memory_(std::move(memory)) {}
  Buffer(Buffer&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), memory_(std::move(other.memory_)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Buffer();
  uint8_t* data() const { return memory_.data(); }
  float* floats() const { return reinterpret_cast<float*>(memory_.data()); }

 private:
  Pool* pool_ = nullptr;
  Memory memory_;
};

class Pool {
 public:
  Status take(size_t bytes, Buffer& out);
  // All buffers are back for a while: those that were taken since the last time are kept, for work of the same kind.
  // Pages that are new to the process cost as much as the work on them, on virtual machines most of all.
  void rest();

 private:
  friend class Buffer;
  struct Free {
    Memory memory;
    bool used;  // since the last rest
  };
  void give(Memory memory) { free_.push_back({std::move(memory), true}); }
  std::vector<Free> free_;
};

struct Picture {
  Buffer buffer;
  int height = 0, width = 0, channels = 0;
  float* data() const { return buffer.floats(); }
  size_t size() const { return static_cast<size_t>(height) * width * channels; }
};

// A convolution by all threads. height: of its output; rowBytes: of a row of its input.
void multiply(const Convolution& work, const Matrix& w, int height, size_t rowBytes, Threads& threads,
              const Cancel& cancel);

// Runs operations until one fails; the rest then do nothing, and `status` says why.
class PictureRunner {
 public:
  // profile: where launches are recorded, or null. pool: outlives the runner; null: one of its own
  PictureRunner(Threads& threads, Element element, int groups, float eps, const Cancel& cancel,
                Profile* profile = nullptr, Pool* pool = nullptr)
      : threads_(threads), element_(element), groups_(groups), eps_(eps), cancel_(cancel), profile_(profile),
        pool_(pool ? *pool : own_) {}
  Status status;

  Picture make(int height, int width, int channels);
  // norm: null for none, else group norm; swish after it. residual: same shape as the result, or null.
  Picture convolve(const Picture& x, const ConvolutionWeights& c, const GroupNorm* norm, bool swish,
                   Resample resample = Resample::none, const Picture* residual = nullptr);
  // summed is of no use here: a norm reads its picture anew.
  Picture layer(Picture x, const ConvolutionLayer<GroupNorm, ConvolutionWeights>& l, bool summed);
  Picture layer(Picture x, const ResidualLayer<GroupNorm, ConvolutionWeights>& l, bool summed);
  Picture layer(Picture x, const AttentionLayer<GroupNorm, ConvolutionWeights>& l, bool summed);
  // What a group norm comes to: norm(x) = scale x + shift, of each channel.
  struct Factors {
    std::vector<float> scale, shift;
  };
  void statistics(const Picture& x, const GroupNorm& n, Factors& factors);
  bool ok();  // false after a failure or a cancellation
  const Cancel& cancel() const { return cancel_; }
  Profile* profile() const { return profile_; }
  Pool& pool() { return pool_; }

 private:
  // Into y, of y's size. factors: null for no norm.
  void convolve(const Picture& x, const ConvolutionWeights& c, const Factors* factors, bool swish, Resample resample,
                const Picture* residual, Picture& y);
  // Queries, keys and values are pictures of one shape, and so is `out`.
  void attend(const Picture& q, const Picture& k, const Picture& v, Picture& out);
  Threads& threads_;
  Element element_;
  int groups_;
  float eps_;
  const Cancel& cancel_;
  Profile* profile_;
  Pool own_;
  Pool& pool_;
};

}  // namespace parvis::cpu
