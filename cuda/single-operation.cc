#include "single-operation.h"

#include <algorithm>

#include "../common/floats.h"
#include "replay.h"
#include "single.h"

namespace parvis::cuda {

Status refused(const std::string& why) { return {Code::invalidOption, "The CUDA backend cannot run this operation: " + why + "."}; }

// ---- for all kinds ---------------------------------------------------------------------------------------------

Status Single::input(size_t which, const float*& out) {
  out = at(staging_);
  const size_t bytes = countOf(which) * 4;
  if (run.inputs.empty()) return statusOf(fill(at(staging_), bytes, stream()), running);
  return bytes == 0 ? Status{} : statusOf(cudaMemcpyAsync(at(staging_), run.inputs[which].data(), bytes, cudaMemcpyHostToDevice, stream()), copying);
}

Status Single::rowsOf(size_t which, size_t groups, size_t rows, int width, Element as, void* to, size_t places, ptrdiff_t stride, float scale) {
  const float* from;
  if (Status s = input(which, from); !s.ok()) return s;
  return statusOf(scatter({from, static_cast<int>(groups), static_cast<int>(rows), width, scale, as, to, static_cast<int>(places), stride}, rowThreads, stream()), running);
}

Status Single::readRows(const void* from, Element as, size_t rows, int width, ptrdiff_t stride, std::vector<float>& out) {
  std::vector<uint8_t> all(rows * static_cast<size_t>(stride) * sizeOf(as));
  if (Status s = statusOf(cudaMemcpyAsync(all.data(), from, all.size(), cudaMemcpyDeviceToHost, stream()), "reading results"); !s.ok()) return s;
  if (Status s = device_->finish(running); !s.ok()) return s;
  out.resize(rows * static_cast<size_t>(width));
  for (size_t r = 0; r < rows; r++)
    parvis::widen(all.data() + r * static_cast<size_t>(stride) * sizeOf(as), as == Element::float32 ? DType::float32 : DType::bfloat16, out.data() + r * static_cast<size_t>(width), static_cast<size_t>(width));
  return {};
}

Status Single::launched(cudaError_t e) const {
  if (e != cudaErrorInvalidValue && e != cudaErrorInvalidConfiguration) return statusOf(e, running);
  cudaGetLastError();
  return refused("no kernel is built for its sizes");
}

// ---- a run ------------------------------------------------------------------------------------------------------

Status Single::allocate() {
  // What no device holds is refused before any product of sizes could overflow.
  constexpr double most = static_cast<double>(size_t{1} << 44);  // of floats
  double all = 0;
  size_t largest = 0;
  for (size_t i = 0; i < shapes_.size(); i++) {
    double count = run.copies;
    for (const int64_t d : shapes_[i]) count *= static_cast<double>(d);
    all += count;
    if (all <= most) largest = std::max(largest, countOf(i) * 4);
  }
  if (all > most) layout_.add(size_t{1} << 58);
  else {
    staging_ = layout_.add(largest);
    plan();
  }
  return DeviceMemory::allocate(device_, layout_.bytes(), {"The numbers of an operation", "Free memory of the device, or take smaller sizes."}, memory_);
}

Status Single::measure(OperationResult& out) {
  if (Status s = check(); !s.ok()) return s;
  if (Status s = allocate(); !s.ok()) return s;
  const auto stopped = [&] { return cancel_.load(std::memory_order_relaxed); };
  for (int copy = 0; copy < run.copies; copy++) {
    if (stopped()) return Status{Code::cancelled, "Cancelled."};
    if (Status s = prepare(copy); !s.ok()) return s;
  }
  if (Status s = device_->finish(running); !s.ok()) return s;
  if (!run.inputs.empty()) {
    if (Status s = once(0); !s.ok()) return s;
    if (Status s = read(out.output); !s.ok()) return s;
  }
  if (run.warmup + run.repeats == 0) return {};
  if (stopped()) return Status{Code::cancelled, "Cancelled."};
  if (Status s = turn(); !s.ok()) return s;  // a capture is no time for loading kernels
  if (Status s = device_->finish(running); !s.ok()) return s;
  Replay replay(*device_);
  if (Status s = replay.capture([&] { return turn(); }); !s.ok()) return s;
  for (int i = -run.warmup; i < run.repeats; i++) {
    if (stopped()) return Status{Code::cancelled, "Cancelled."};
    double ms = 0;
    if (Status s = replay.run(ms); !s.ok()) return s;
    if (i >= 0) out.ms.push_back(ms / run.copies);
  }
  return {};
}

Status runSingle(const std::shared_ptr<Device>& device, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out) {
  if (Status s = checkOperation(operation, run); !s.ok()) return s;
  if (Status s = device->use(); !s.ok()) return s;
  const bool pictures = operation.kind == Operation::Kind::convolution || operation.kind == Operation::Kind::spatialAttention;
  return (pictures ? singleOfPictures : singleOfRows)(device, operation, run, cancel)->measure(out);
}

}  // namespace parvis::cuda
