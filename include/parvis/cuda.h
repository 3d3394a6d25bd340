// What the addon can say about CUDA whether or not it was compiled with it: the answer to "why not a GPU?".
#pragma once

#include <string>

namespace parvis {

struct CudaProbe {
  bool compiled = false;  // this build has CUDA code
  int devices = 0;        // usable devices
  int driver = 0, runtime = 0;  // versions, 1000 major + 10 minor; driver 0: none
  std::string reason;     // why devices is 0
};

// Loads the driver where there is one (some hundred milliseconds the first time).
CudaProbe probeCuda();

}  // namespace parvis
