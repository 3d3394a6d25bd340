// One operation by itself (single-operation.h): what surrounds the kernels, and is the same for all kinds: numbers, given or
// random, in the layouts of the kernels; copies of weights and caches; the clock. Every operation runs the kernels of sessions
// (rows.h) and of the tokenizer (operations.h), chosen by their code: single-rows.cc, single-pictures.cc.
#pragma once

#include "parvis/backend.h"
#include "rows.h"

namespace parvis::cuda {

inline constexpr const char* running = "running an operation";
inline constexpr const char* copying = "copying numbers to the device";
Status refused(const std::string& why);

class Single {
 public:
  Single(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel)
      : device_(std::move(device)), o(o), run(run), cancel_(cancel), shapes_(operationInputs(o)), element_(o.precision == Precision::float32 ? Element::float32 : Element::bfloat16) {}
  virtual ~Single() = default;
  Status measure(OperationResult& out);

 protected:
  virtual Status check() const { return {}; }
  virtual void plan() = 0;                           // adds to layout_ whatever it needs
  virtual Status prepare(int copy) = 0;              // enqueues the weights of a copy; whatever copies share with the first
  virtual Status once(int copy) = 0;                 // enqueues the operation
  virtual Status read(std::vector<float>& out) = 0;

  cudaStream_t stream() const { return device_->stream(); }
  Element element() const { return element_; }
  size_t item() const { return sizeOf(element_); }
  template <class T = float>
  T* at(size_t place) const { return memory_.data() ? reinterpret_cast<T*>(memory_.data() + place) : nullptr; }
  // One for every copy, side by side.
  size_t addCopies(size_t& bytes) {
    bytes = (bytes + 255) / 256 * 256;
    return layout_.add(bytes * static_cast<size_t>(run.copies));
  }
  size_t countOf(size_t input) const {
    size_t count = 1;
    for (const int64_t d : shapes_[input]) count *= static_cast<size_t>(d);
    return count;
  }

  // An input on the device as it was given, or random numbers in its place; there until the next one is asked for.
  Status input(size_t which, const float*& out);
  // The same as rows `stride` apart, of each group `places`.
  Status rowsOf(size_t which, size_t groups, size_t rows, int width, Element as, void* to, size_t places, ptrdiff_t stride, float scale = 1);
  Status rowsOf(size_t which, size_t rows, int width, Element as, void* to, ptrdiff_t stride) { return rowsOf(which, 1, rows, width, as, to, rows, stride); }
  Status readRows(const void* from, Element as, size_t rows, int width, ptrdiff_t stride, std::vector<float>& out);
  // Sizes that no kernel is built for are the caller's affair, and leave the device as it is.
  Status launched(cudaError_t e) const;

  std::shared_ptr<Device> device_;
  const Operation& o;
  const OperationRun& run;
  const Cancel& cancel_;
  Layout layout_;
  DeviceMemory memory_;

 private:
  Status allocate();
  Status turn() {
    for (int copy = 0; copy < run.copies; copy++)
      if (Status s = once(copy); !s.ok()) return s;
    return {};
  }
  std::vector<std::vector<int64_t>> shapes_;
  Element element_;
  size_t staging_ = 0;
};

// By the operation's kind: rows of a transformer, or pictures.
std::unique_ptr<Single> singleOfRows(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel);
std::unique_ptr<Single> singleOfPictures(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel);

}  // namespace parvis::cuda
