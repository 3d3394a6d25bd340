// The tensors of a checkpoint file (or, for one operation by itself, in memory): found by name, checked against the shape that a backend expects, read row by row.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "file.h"
#include "parvis/model.h"

namespace parvis {

class Tensors {
 public:
  Status open(const std::string& file, const std::vector<TensorSource>& tensors);
  // Instead of a file, or beside it: a tensor in memory, row-major, which outlives this.
  void add(const std::string& name, std::vector<int64_t> shape, const float* data);
  // The tensor, after its shape is checked; null and a Status in `status` where it is absent or other.
  const TensorSource* find(const std::string& name, const std::vector<int64_t>& shape);
  // Rows [begin, end) of the tensor seen as a matrix [shape[0], rest], as float32. Any thread.
  Status rows(const TensorSource& tensor, int64_t begin, int64_t end, float* out) const;
  // The same as they are stored; only where contiguous(tensor).
  Status stored(const TensorSource& tensor, int64_t begin, int64_t end, void* out) const;
  static bool contiguous(const TensorSource& tensor);
  static int64_t rowElements(const TensorSource& tensor);
  Status status;

 private:
  File file_;
  std::unordered_map<std::string, TensorSource> byName_;
  std::unordered_map<std::string, const float*> inMemory_;
};

}  // namespace parvis
