// One operation by itself, and the device's ceilings: what tests and benchmarks ask of the backend.
#pragma once

#include "device.h"
#include "parvis/backend.h"

namespace parvis::cuda {

Status runSingle(const std::shared_ptr<Device>& device, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out);
Status measureCeilings(const std::shared_ptr<Device>& device, Ceilings& out);

}  // namespace parvis::cuda
