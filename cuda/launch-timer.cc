#include "launch-timer.h"

namespace parvis::cuda {

LaunchTimer::~LaunchTimer() {
  for (const Timed& t : timed_)
    for (const cudaEvent_t event : {t.from, t.to})
      if (event) cudaEventDestroy(event);
}

cudaError_t LaunchTimer::record(cudaEvent_t& event, cudaStream_t stream) {
  const cudaError_t e = cudaEventCreateWithFlags(&event, cudaEventDefault);
  return e == cudaSuccess ? cudaEventRecord(event, stream) : e;
}

Status LaunchTimer::collect() {
  for (Timed& t : timed_) {
    float ms = 0;
    if (Status s = statusOf(cudaEventElapsedTime(&ms, t.from, t.to), "timing a launch"); !s.ok()) return s;
    t.record.ms = static_cast<double>(ms);
    profile_->push_back(t.record);
  }
  return {};
}

}  // namespace parvis::cuda
