// What a device can do at most, measured.
#pragma once

#include "device.h"
#include "parvis/backend.h"

namespace parvis::cuda {

// In as much time and memory as the device has plenty of: up to 4 GiB, and an eighth of what is free.
Status measureCeilings(const std::shared_ptr<Device>& device, Ceilings& out);

}  // namespace parvis::cuda
