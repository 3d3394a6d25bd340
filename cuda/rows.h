// How rows of activations are multiplied and attended: which kernels, by how many rows there are and in what precision.
#pragma once

#include "../common/launches.h"
#include "device.h"
#include "launch-timer.h"
#include "loader.h"

namespace parvis::cuda {

constexpr int rowThreads = 256;
int samplingThreads(int vocabulary);

// Input rows of a projection that follows a norm. RMSNorm in bfloat16: what makers of x leave, rows times the norm's
// weight and sums of squares (kernels.cuh, NormInput). Else normalised rows, and no sums.
struct NormedRows {
  void* elements;  // [rows, stride]
  ptrdiff_t stride;
  float* squares;  // [rows, squaresStride(dim)], or null
  NormInput normInput(const float* weight) const {
    return squares ? NormInput{weight, static_cast<uint16_t*>(elements), stride, squares} : NormInput{};
  }
};

// Rows of the residual stream that are normalised: [any, stride].
struct Residual {
  float* x;
  ptrdiff_t stride;
  int dim;
};

// How: weights [dim], and biases [dim] of a LayerNorm, both with zeroes to a multiple of 16.
struct RowNorm {
  NormKind kind;
  const float *weight, *bias;
  float eps;
};

// Enqueues the operations of a step, one after the other, until one fails; `status` then says how.
class Launcher {
 public:
  // profile: where launches are recorded, or null; way: what they become
  Launcher(const Device& device, Element element, Profile* profile = nullptr, Launches way = Launches::kernels)
      : device_(device), stream_(device.steps(way)), element_(element), timer_(profile) {}
  cudaError_t status = cudaSuccess;
  // Once the stream is done: completes the profile.
  Status collect() { return timer_.collect(); }

  void take(const TakeStep& t) {
    run([&] { return LaunchRecord{"step tables", "", 0, 0, 0}; }, [&] { return takeStep(t, stream_); });
  }
  void compose(const ComposePass& c) {
    run([&] { return LaunchRecord{"step tables", "", 0, 0, 0}; }, [&] { return composePass(c, stream_); });
  }
  void embed(const Embedding& e) {
    run([&] { return embeddingLaunch(e.rows.count, e.dim, item()); }, [&] { return cuda::embed(e, stream_); });
  }
  // `from` [rows]: which rows of x; null: the first ones. Where makers of x have left everything (RMSNorm in bfloat16,
  // no `from`) nothing is launched.
  void norm(const Residual& x, const int32_t* from, int rows, const RowNorm& norm, const NormedRows& to);
  // The rows themselves become their LayerNorm; what a norm that follows needs of them is left in `to`.
  void normInPlace(const Residual& x, int rows, const RowNorm& norm, const float* nextWeight, const NormedRows& to);
  // p.rows rows of `from`, which follow a norm. Up to maxSkinnyRows rows stream the packed weights, more go through
  // tiles: a row has the same bits in both.
  void project(const NormedRows& from, float eps, Projection p, const Matrix& w);
  // The same of rows that follow no norm.
  void project(const void* elements, ptrdiff_t stride, Projection p, const Matrix& w);
  // Groups of up to maxSplitQueries queries a key/value head are split over the keys, larger ones go by tiles of
  // queries; maxSmall, maxLarge: queries of the largest of either, 0 where there is none.
  // seen: for the profile alone
  void attend(Attention a, int maxSmall, int maxLarge, const TransformerModel& model, const SeenSlots& seen);
  // Predictions of this mode.
  void predict(const Sampling& s, Mode mode) {
    run([&] { return drawLaunch(s.predictions, s.rows, s.vocabulary); },
        [&] { return mode == Mode::score ? score(s, stream_) : sample(s, mode, stream_); });
  }

 private:
  template <class Describe, class Launch>
  void run(Describe&& describe, Launch&& launch) {
    if (ok()) status = timer_.timed(stream_.stream, describe, launch);
  }
  size_t item() const { return sizeOf(element_); }
  bool ok() const { return status == cudaSuccess; }
  void multiply(Projection p, const Matrix& w);
  const Device& device_;
  StepStream stream_;
  Element element_;
  LaunchTimer timer_;
};

}  // namespace parvis::cuda
