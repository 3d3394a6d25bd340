// How much memory a transformer and its sessions take on a device, and where in it what lies. Plain C++, so that builds
// without CUDA can tell it too.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "sizes.h"

namespace parvis::cuda {

// Places in one allocation, 256 bytes apart: add what is needed, allocate `bytes`, then ask for the pointers.
class Layout {
 public:
  size_t add(size_t bytes) { return std::exchange(bytes_, bytes_ + (bytes + 255) / 256 * 256); }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

// Up to sixteen: a power of two; then steps of a quarter to a half.
int roundedCount(int count);

// ---- weights --------------------------------------------------------------------------------------------------

size_t matrixBytes(WeightFormat format, int outputs, int inputs);
size_t gateUpBytes(WeightFormat format, int outputs, int inputs);
inline size_t tableBytes(Element element, int rows, int columns) {
  return static_cast<size_t>(rows) * static_cast<size_t>(columns) * sizeOf(element);
}
inline size_t vectorBytes(size_t count) { return (count + 15) / 16 * 16 * sizeof(float); }
size_t countOf(const std::vector<int64_t>& shape);

// A plan of loading (common/transformer.h) that only adds up what would be taken.
class WeightBytes {
 public:
  explicit WeightBytes(Precision precision) : element_(elementOf(precision)), format_(formatFor(precision)) {}
  template <class To>
  void matrix(To&, const std::string&, int outputs, int inputs) {
    layout_.add(matrixBytes(format_, outputs, inputs));
  }
  template <class To>
  void gateUp(To&, const std::string&, const std::string&, int outputs, int inputs) {
    layout_.add(gateUpBytes(format_, outputs, inputs));
  }
  template <class To>
  void table(To&, const std::string&, int rows, int columns) {
    layout_.add(tableBytes(element_, rows, columns));
  }
  template <class To>
  void vector(To&, const std::string&, const std::vector<int64_t>& shape, bool) {
    layout_.add(vectorBytes(countOf(shape)));
  }
  size_t bytes() const { return layout_.bytes(); }

 private:
  Element element_;
  WeightFormat format_;
  Layout layout_;
};

// Cosines and sines of all positions.
size_t angleBytes(const TransformerModel& model);

// ---- a session ------------------------------------------------------------------------------------------------

struct WorkspaceLayout {
  static constexpr int depth = 3;  // steps in flight: one running, one queued, one being prepared by the host

  WorkspaceLayout() = default;
  WorkspaceLayout(const TransformerModel& model, Element element, const SessionOptions& options);

  // Counts of a step, rounded up.
  int maxRows = 0, maxGroups = 0, maxGather = 0;
  int chunk = 0;                                                              // rows of logits that exist at a time
  ptrdiff_t xStride = 0, wideStride = 0, ffStride = 0, vocabularyStride = 0;  // elements of rows
  size_t cacheBytes = 0;                                                      // keys or values of one layer
  size_t counterBytes = 0;
  bool fusedNorm = false;  // the projections divide by the root of the squares' mean (kernels.cuh, NormInput)

  ptrdiff_t planInts = 0;  // of a seat: ints of the memory of its plan

  // Bytes from the start of the device's memory.
  size_t rows = 0, groups = 0, drawings = 0, gather = 0, counter = 0, nonFinite = 0, x = 0, normed = 0,
         normedSquares = 0, queries = 0, attended = 0, gated = 0, logits = 0, gathered = 0, gatheredSquares = 0,
         cache = 0, partial = 0, counters = 0, classIds = 0, seeds = 0, tokens = 0, logProbs = 0, kept = 0, plans = 0,
         seatPasses = 0, read = 0, ahead = 0;
  size_t bytes = 0;
  // The same of the host's page-locked memory: the ring of tables, then what seats have there.
  size_t flags = 0, entries = 0, known = 0, stagedPlans = 0, progress = 0;
  size_t hostBytes = 0;
  // Where tables of a step begin in their part of the ring, in ints; and the length of a part, with its end.
  int groupsAt = 0, drawingsAt = 0, gatherAt = 0, part = 0;
};

// What a sequence brings along, as it is copied to the device.
struct SeatEntry {
  uint64_t seed;
  int32_t classId;
};

}  // namespace parvis::cuda
