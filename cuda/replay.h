// Launches captured once, then replayed between two events: what the device takes for them, without the host's gaps.
#pragma once

#include "device.h"

namespace parvis::cuda {

class Replay {
 public:
  explicit Replay(Device& device) : device_(device) {}
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;
  ~Replay();
  // `enqueue` returns a Status. It has run before: kernels are loaded when they are first used, and a capture is no time for
  // that. Nor for anything that waits.
  template <class Enqueue>
  Status capture(Enqueue&& enqueue) {
    if (Status s = begin(); !s.ok()) return s;
    Status enqueued = enqueue();
    Status ended = end(enqueued.ok());
    return enqueued.ok() ? ended : enqueued;
  }
  // Once, to its end.
  Status run(double& ms);

 private:
  Status begin();
  Status end(bool keep);
  Device& device_;
  cudaGraphExec_t exec_ = nullptr;
  cudaEvent_t from_ = nullptr, to_ = nullptr;
};

}  // namespace parvis::cuda
