#include "replay.h"

namespace parvis::cuda {

static const char* const capturing = "capturing launches";
static const char* const replaying = "replaying launches";

Replay::~Replay() {
  if (exec_) {
    (void)device_.finish(replaying);
    cudaGraphExecDestroy(exec_);
  }
  if (from_) cudaEventDestroy(from_);
  if (to_) cudaEventDestroy(to_);
}

Status Replay::begin() { return statusOf(cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeThreadLocal), capturing); }

Status Replay::end(bool keep) {
  cudaGraph_t graph = nullptr;
  cudaError_t e = cudaStreamEndCapture(device_.stream(), &graph);  // whatever happened: the stream is used again
  if (e == cudaSuccess && keep) e = cudaGraphInstantiate(&exec_, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  return statusOf(e, capturing);
}

Status Replay::run(double& ms) {
  const cudaStream_t stream = device_.stream();
  for (cudaEvent_t* event : {&from_, &to_})
    if (!*event)
      if (Status s = statusOf(cudaEventCreateWithFlags(event, cudaEventBlockingSync), "making an event"); !s.ok()) return s;
  cudaError_t e = cudaEventRecord(from_, stream);
  if (e == cudaSuccess) e = cudaGraphLaunch(exec_, stream);
  if (e == cudaSuccess) e = cudaEventRecord(to_, stream);
  if (e == cudaSuccess) e = cudaEventSynchronize(to_);
  float elapsed = 0;
  if (e == cudaSuccess) e = cudaEventElapsedTime(&elapsed, from_, to_);
  ms = static_cast<double>(elapsed);
  return statusOf(e, replaying);
}

}  // namespace parvis::cuda
