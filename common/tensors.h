// The tensors of a checkpoint file: found by name, checked against the shape that a backend expects, read row by row.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "file.h"
#include "parvis/model.h"
#include "parvis/step.h"

namespace parvis {

// A weight whose shape was checked: parts that are stacked by rows, each a matrix [shape[0], rest].
struct Weight {
  std::string role;
  std::vector<TensorSource> parts;
  int64_t rows() const;
  int64_t rowElements() const;
  // Do all parts lie row by row, in one type? Then `type` is what they are stored in.
  bool uniform() const;
  // Are all parts int8?
  bool quantized() const;
  DType type() const { return parts[0].dtype; }
};

class Tensors {
 public:
  // cancel: looked at while a tensor is read that does not lie row by row.
  Status open(const CheckpointFile& file, const std::vector<WeightSource>& weights, const Cancel& cancel);
  // The weight, after its shape is checked; null and a Status in `status` where it is absent or other, or where its
  // elements lie so far apart that reading it would take much more than it holds.
  const Weight* find(const std::string& role, const std::vector<int64_t>& shape);
  // Rows [begin, end) as float32. Any thread.
  Status rows(const Weight& weight, int64_t begin, int64_t end, float* out) const;
  // The same as they are stored; only where the weight is uniform.
  Status stored(const Weight& weight, int64_t begin, int64_t end, void* out) const;
  // Rows [begin, end) of a quantized weight: integers [rows, inputs], scales [rows, ceil(inputs / scaleInputs)].
  Status quantized(const Weight& weight, int64_t begin, int64_t end, int8_t* out, float* scales) const;
  // After the last read: was the file written to meanwhile?
  Status unchanged() const { return file_.unchanged(); }
  // Bytes that are in memory, beside the results, while tensors are read that do not lie row by row (transposed ones,
  // parts of wider ones): each is read once, piece by piece, and its copy is kept until all of its rows were asked for.
  size_t copyBytes() const;
  Status status;

 private:
  struct Copy {
    const TensorSource* tensor;
    std::unique_ptr<uint8_t[]> data;
    int64_t rowsLeft;  // not asked for yet
  };
  Status rowsOf(const TensorSource& part, int64_t begin, int64_t end, float* out) const;
  Status storedOf(const TensorSource& part, int64_t begin, int64_t end, void* out) const;
  Status scalesOf(const TensorSource& part, int64_t begin, int64_t end, float* out) const;
  Status straighten(const TensorSource& tensor, std::shared_ptr<Copy>& out) const;
  // A copy whose `rows` have been asked for: it is dropped after its last ones.
  void used(const std::shared_ptr<Copy>& copy, int64_t rows) const;

  File file_;
  const Cancel* cancel_ = nullptr;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<Copy>> copies_;  // the last used one last
  std::vector<size_t> strided_;                        // bytes of those that were asked for
  std::unordered_map<std::string, Weight> byRole_;
};

}  // namespace parvis
