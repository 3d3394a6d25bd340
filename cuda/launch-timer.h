// Times launches with events of their stream, where there is a profile to record them in.
#pragma once

#include <vector>

#include "device.h"
#include "parvis/profile.h"

namespace parvis::cuda {

class LaunchTimer {
 public:
  explicit LaunchTimer(Profile* profile) : profile_(profile) {}
  LaunchTimer(const LaunchTimer&) = delete;
  ~LaunchTimer();
  // Calls launch(), which enqueues and returns a cudaError_t. `describe` returns a LaunchRecord without its time, and
  // is called only where there is a profile.
  template <class Describe, class Launch>
  cudaError_t timed(cudaStream_t stream, Describe&& describe, Launch&& launch) {
    if (!profile_) return launch();
    Timed timed{describe(), nullptr, nullptr};
    cudaError_t e = record(timed.from, stream);
    if (e == cudaSuccess) e = launch();
    if (e == cudaSuccess) e = record(timed.to, stream);
    timed_.push_back(std::move(timed));
    return e;
  }
  // Once the stream is done: what was launched goes to the profile.
  Status collect();

 private:
  struct Timed {
    LaunchRecord record;
    cudaEvent_t from, to;
  };
  static cudaError_t record(cudaEvent_t& event, cudaStream_t stream);
  Profile* profile_;
  std::vector<Timed> timed_;
};

}  // namespace parvis::cuda
