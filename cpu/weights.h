// From a checkpoint file to packed weights, once: each thread reads the rows of one panel, converts them where the file
// has them in another type, and packs them, so that a page is first touched by a thread that may later read it, and
// nothing but the packed weights and a panel's worth of rows a thread is ever in memory.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "../common/tensors.h"
#include "kernels.h"
#include "parvis/model.h"
#include "parvis/step.h"
#include "platform.h"
#include "threads.h"

namespace parvis::cpu {

inline size_t panelBytes(WeightFormat format, int inputs) {
  if (format == WeightFormat::int8)
    return static_cast<size_t>(scaleGroups(inputs)) * (scaleInputs + sizeof(float)) * panelOutputs;
  return static_cast<size_t>((inputs + groupInputs(format) - 1) / groupInputs(format)) * groupBytes;
}

struct Matrix {
  WeightFormat format = WeightFormat::float32;
  uint8_t* data = nullptr;      // packed (kernels.h)
  float* bias = nullptr;        // [outputs rounded up to 32] or null
  int outputs = 0, inputs = 0;  // real sizes
  int panels = 0;
  size_t panelBytes() const { return cpu::panelBytes(format, inputs); }
  size_t bytes() const { return panelBytes() * panels; }
  // Bytes of one number, with its share of a scale.
  double numberBytes() const {
    return static_cast<double>(panelBytes()) / (static_cast<double>(inputs) * panelOutputs);
  }
};

inline int roundUp(int n, int to) { return (n + to - 1) / to * to; }
Matrix matrixShape(int outputs, int inputs, WeightFormat format);

// rows: [valid, stride] floats with `inputs` used -> one panel; the rest of the panel becomes zero.
void packPanel(const float* rows, ptrdiff_t stride, int valid, int inputs, WeightFormat format, uint8_t* panel);

// The work of loading, collected first (so that all memory is planned before any is taken), then run in parallel.
class Loader {
 public:
  // weights null: nothing will be loaded, and only bytes() is asked for.
  Loader(Tensors* weights, Precision precision) : weights_(weights), numbers_(numbersOf(precision)) {}

  // Each adds a plan and sets the pointer later, when memory exists.
  void matrix(Matrix& to, const std::string& name, int outputs, int inputs);
  void gateUp(Matrix& to, const std::string& gate, const std::string& up, int outputs, int inputs);
  // [outputs, channels, taps...] -> packed [outputs, taps... paddedChannels]
  void convolution(Matrix& to, const std::string& name, int outputs, int channels, const std::vector<int64_t>& taps,
                   int paddedChannels);
  // rounded: to what a file of the same precision has
  void vector(float*& to, const std::string& name, std::vector<int64_t> shape, bool rounded);
  void table(void*& to, const std::string& name, int rows, int columns);  // kept elements

  Status load(Memory& memory, Threads& threads, const Cancel& cancel);
  size_t bytes() const;  // of everything that was added

 private:
  const Weight* find(const std::string& role, const std::vector<int64_t>& shape) {
    return weights_ ? weights_->find(role, shape) : nullptr;
  }
  struct Plan {
    size_t bytes;
    void** target;
    int tasks;
    int64_t scratch;  // floats
    std::function<Status(uint8_t* base, int task, float* scratch)> run;
  };
  void add(Plan plan) { plans_.push_back(std::move(plan)); }
  Tensors* weights_;
  Numbers numbers_;
  std::vector<Plan> plans_;
};

}  // namespace parvis::cpu
