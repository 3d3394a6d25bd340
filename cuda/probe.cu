// Asks the driver for devices. Static cudart only: the addon loads, and this answers, on a machine without a driver.
#include "parvis/cuda.h"
#include "platform.cuh"

namespace parvis {

static std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

CudaProbe probeCuda() {
  CudaProbe probe;
  probe.compiled = true;
  int devices = 0;
  cudaDriverGetVersion(&probe.driver);
  cudaRuntimeGetVersion(&probe.runtime);
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (probe.driver == 0) probe.reason = "no NVIDIA driver was found";
  else if (status == cudaErrorInsufficientDriver)
    probe.reason = "the NVIDIA driver supports CUDA " + version(probe.driver) + " and this build needs " + version(probe.runtime);
  else if (status != cudaSuccess) probe.reason = std::string("the NVIDIA driver reports: ") + cudaGetErrorString(status);
  else probe.reason = "this version of parvis has no CUDA backend yet";
  return probe;
}

Status cudaMemory(int, CudaMemory&) { return {Code::deviceUnavailable, "No CUDA device can be used."}; }

}  // namespace parvis
