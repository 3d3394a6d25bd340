// One operation by itself, and the device's ceilings: what tests and benchmarks ask of the backend.
#pragma once

#include "device.h"
#include "parvis/backend.h"

namespace parvis::cuda {

Status runSingle(const std::shared_ptr<Device>& device, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out);
// In as much time and memory as the device has plenty of: up to 4 GiB, and an eighth of what is free.
Status measureCeilings(const std::shared_ptr<Device>& device, Ceilings& out);

}  // namespace parvis::cuda
