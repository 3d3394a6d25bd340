// What the addon can say about CUDA whether or not it was compiled with it: the answer to "why not a GPU?"; and the
// CUDA backend itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "status.h"

namespace parvis {

class Backend;

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  uint64_t memory = 0;       // bytes in all
  std::string problem;       // why it cannot be used, naming it; empty: it can
};

struct CudaProbe {
  bool compiled = false;        // this build has CUDA code
  int driver = 0, runtime = 0;  // versions, 1000 major + 10 minor; driver 0: none
  std::string architectures;    // compiled in, e.g. "80 90 90+PTX"
  std::vector<CudaDevice> devices;
  std::string reason;  // why no device can be used, to complete a "because"; empty: one can. lib/ knows the cures
};

// The same as `compiled` of the probe, without a driver.
bool cudaCompiled();

// Loads the driver where there is one (some hundred milliseconds the first time); takes no device.
CudaProbe probeCuda();

struct CudaMemory {
  uint64_t free = 0, total = 0;  // bytes; what this process keeps for speed counts as free
};
// Takes the device for this process, which costs time and a few hundred megabytes of it.
Status cudaMemory(int device, CudaMemory& out);

// Cheap: the device is taken by the first call of the backend. Null in a build without CUDA.
std::unique_ptr<Backend> createCudaBackend(int device);

}  // namespace parvis
