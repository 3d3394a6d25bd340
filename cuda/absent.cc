// Stands in for the CUDA backend in builds without it.
#include "parvis/backend.h"
#include "parvis/cuda.h"

namespace parvis {

static const char* const reason = "this build has no CUDA code";

bool cudaCompiled() { return false; }

CudaProbe probeCuda() {
  CudaProbe probe;
  probe.reason = reason;
  return probe;
}

Status cudaMemory(int, CudaMemory&) {
  return {Code::deviceUnavailable, std::string("No CUDA device can be used: ") + reason + "."};
}

std::unique_ptr<Backend> createCudaBackend(int) { return nullptr; }

}  // namespace parvis
