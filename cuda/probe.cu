// Asks the driver for devices. Static cudart only: the addon loads, and this answers, on a machine without a driver.
#include <cuda_runtime_api.h>

#include "parvis/cuda.h"

namespace parvis {

static std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

CudaProbe probeCuda() {
  CudaProbe probe;
  probe.compiled = true;
  cudaDriverGetVersion(&probe.driver);
  cudaRuntimeGetVersion(&probe.runtime);
  const cudaError_t status = cudaGetDeviceCount(&probe.devices);
  if (status == cudaSuccess && probe.devices > 0) return probe;
  probe.devices = 0;
  if (probe.driver == 0) probe.reason = "no NVIDIA driver was found";
  else if (status == cudaErrorInsufficientDriver)
    probe.reason = "the NVIDIA driver supports CUDA " + version(probe.driver) + " and this build needs " + version(probe.runtime);
  else probe.reason = std::string("the NVIDIA driver reports: ") + cudaGetErrorString(status);
  return probe;
}

}  // namespace parvis
