// From a checkpoint file to weights on the device: rows go through a small page-locked ring to a small device buffer as
// they are stored, and a kernel puts them where and how they belong. Nothing but the weights themselves is ever whole
// in memory, on either side. The work is collected first, so that all memory is planned before any is taken.
#pragma once

#include <functional>
#include <memory>

#include "../common/tensors.h"
#include "device.h"
#include "kernels.cuh"
#include "parvis/step.h"

namespace parvis::cuda {

// What helps where a model does not fit (Purpose).
inline std::string modelCure(Element element) {
  return std::string("Free memory of the device, ") +
         (element == Element::float32 ? "use precision 'bfloat16', " : "") + "or use device 'cpu'.";
}

// A matrix of a projection: packed in bfloat16 and int8, row by row as in the checkpoint in float32.
struct Matrix {
  WeightFormat format = WeightFormat::float32;
  void* data = nullptr;
  const float* bias = nullptr;  // [outputs], and zeroes to a multiple of 16; null: none
  int outputs = 0, inputs = 0;
  bool paired = false;  // gates [outputs / 2, inputs], then ups
  int pairs() const { return (outputs + 1) / 2; }
  // Of a weight, with its share of a scale.
  double numberBytes() const {
    return format == WeightFormat::float32 ? 4 : format == WeightFormat::bfloat16 ? 2 : 1 + 4.0 / scaleInputs;
  }
  Packed packed() const { return {data, pairs(), inputs, format}; }
  Packing plain() const {
    const float* from = static_cast<const float*>(data);
    const ptrdiff_t stride = paired ? inputs : 2 * static_cast<ptrdiff_t>(inputs);
    return {from,        from + (paired ? static_cast<ptrdiff_t>(pairs()) * inputs : inputs),
            stride,      pairs(),
            outputs / 2, Element::float32};
  }
};

// The two-part ring. next() gives a part that is free again; send() enqueues its copy to the device; done() is called
// after the kernels that read the device's copy have been enqueued.
class Staging {
 public:
  Status allocate(std::shared_ptr<Device> device, size_t partBytes, const std::string& cure);
  size_t partBytes() const { return partBytes_; }
  Status next(uint8_t*& host, uint8_t*& device);
  Status send(size_t bytes);
  Status done();

 private:
  std::shared_ptr<Device> device_;
  HostMemory host_;
  DeviceMemory memory_;
  Event events_[2];
  size_t partBytes_ = 0;
  int part_ = 0;
};

class Loader {
 public:
  Loader(Tensors& tensors, Precision precision)
      : tensors_(tensors), element_(elementOf(precision)), format_(formatFor(precision)) {}

  // Each adds a plan and sets the pointer later, when memory exists. Targets must stay where they are until load().
  void matrix(Matrix& to, const std::string& name, int outputs, int inputs);
  void gateUp(Matrix& to, const std::string& gate, const std::string& up, int outputs, int inputs);
  void table(const void*& to, const std::string& name, int rows, int columns);  // elements
  // float32, zeroes up to a multiple of 16. `rounded`: to the precision of the weights first.
  void vector(const float*& to, const std::string& name, std::vector<int64_t> shape, bool rounded);
  // The rows of a filter, float32 on the device, to where `pack` puts them: `unit` rows at a time or a multiple of
  // that, at most `units` times as many.
  using PackRows = std::function<cudaError_t(const float* rows, int first, int count, cudaStream_t stream)>;
  void filter(void*& to, size_t bytes, const Weight& weight, int unit, int units, PackRows pack);
  // Anything else: `bytes` at *target, filled by `run` through the staging ring. maxRowBytes: the least a part must
  // hold.
  struct Plan {
    size_t bytes;
    const void** target;
    size_t partBytes;
    std::function<Status(uint8_t* target, Staging& staging, cudaStream_t stream, const Cancel& cancel)> run;
  };
  void add(Plan plan) { plans_.push_back(std::move(plan)); }

  Tensors& tensors() { return tensors_; }
  Element element() const { return element_; }
  // Returns when everything is on the device.
  Status load(std::shared_ptr<Device> device, DeviceMemory& memory, const Cancel& cancel);

 private:
  Tensors& tensors_;
  Element element_;
  WeightFormat format_;
  std::vector<Plan> plans_;
};

}  // namespace parvis::cuda
