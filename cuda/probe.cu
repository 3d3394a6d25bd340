// Asks the driver for devices. Static cudart only: the addon loads, and this answers, on a machine without a driver.
// No context is taken before cudaMemory, which is why memory in use is asked for apart from the devices.
#include "architectures.h"
#include "device.h"
#include "parvis/cuda.h"
#include "platform.cuh"

#ifndef PARVIS_CUDA_ARCHITECTURES
#define PARVIS_CUDA_ARCHITECTURES ""
#endif

namespace parvis {

using cuda::deviceText;
using cuda::versionText;

bool cudaCompiled() { return true; }

CudaProbe probeCuda() {
  CudaProbe probe;
  probe.compiled = true;
  probe.architectures = PARVIS_CUDA_ARCHITECTURES;
  if (cudaDriverGetVersion(&probe.driver) != cudaSuccess) probe.driver = 0;
  cudaRuntimeGetVersion(&probe.runtime);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (probe.driver == 0) probe.reason = "no NVIDIA driver was found";
  else if (status == cudaErrorInsufficientDriver)
    probe.reason = "the NVIDIA driver supports CUDA " + versionText(probe.driver) + " and this build needs " +
                   versionText(probe.runtime);
  else if (status != cudaSuccess && status != cudaErrorNoDevice)
    probe.reason = std::string("the NVIDIA driver reports: ") + cudaGetErrorString(status);
  if (!probe.reason.empty()) return probe;
  for (int i = 0; status == cudaSuccess && i < count; i++) {
    CudaDevice device;
    cudaDeviceProp properties{};
    const cudaError_t e = cudaGetDeviceProperties(&properties, i);
    if (e == cudaSuccess) {
      device.name = properties.name;
      device.major = properties.major;
      device.minor = properties.minor;
      device.memory = properties.totalGlobalMem;
      device.problem = cuda::deviceProblem(i, device, probe);
    } else {
      device.problem = deviceText(i, "") + ": the NVIDIA driver reports: " + cudaGetErrorString(e);
    }
    probe.devices.push_back(std::move(device));
  }
  probe.reason = cuda::noDevice(probe);
  return probe;
}

Status cudaMemory(int device, CudaMemory& out) {
  cudaError_t e = cudaSetDevice(device);
  size_t free = 0, total = 0;
  if (e == cudaSuccess) e = cudaMemGetInfo(&free, &total);
  if (e != cudaSuccess)
    return {e == cudaErrorMemoryAllocation ? Code::outOfMemory : Code::deviceUnavailable,
            deviceText(device, "") + " cannot be used; the NVIDIA driver reports: " + cudaGetErrorString(e) + "."};
  out = {free + cuda::reclaimableBytes(device), total};  // what is kept goes where it is needed
  return {};
}

}  // namespace parvis
