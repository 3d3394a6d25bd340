// Stands in for probe.cu in builds without CUDA.
#include "parvis/cuda.h"

parvis::CudaProbe parvis::probeCuda() {
  CudaProbe probe;
  probe.reason = "this build has no CUDA code (PARVIS_CUDA=on builds it)";
  return probe;
}
