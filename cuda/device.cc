#include "device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace parvis::cuda {

// A thread that waits sleeps: a spinning one would cost a core of the server it runs in.
static constexpr unsigned waited = cudaEventDisableTiming | cudaEventBlockingSync;

// ---- errors -------------------------------------------------------------------------------------------------

Status statusOf(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return {};
  const std::string what = std::string("CUDA failed while ") + doing + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  switch (error) {
    case cudaErrorMemoryAllocation:
      cudaGetLastError();  // not a sticky one: the device goes on
      return {Code::outOfMemory, what + ". Free memory of the device, or ask for less at a time."};
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoKernelImageForDevice:
      return {Code::deviceUnavailable, what + ". `npx parvis doctor` says more."};
    default:
      return {Code::internal, what + ". The process must be started again before it can use this device."};
  }
}

std::string sizeText(uint64_t bytes) {
  char text[32];
  if (bytes >= 9'950'000'000) std::snprintf(text, sizeof text, "%.0f GB", static_cast<double>(bytes) / 1e9);
  else if (bytes >= 1'000'000'000) std::snprintf(text, sizeof text, "%.1f GB", static_cast<double>(bytes) / 1e9);
  else std::snprintf(text, sizeof text, "%.0f MB", std::max(1.0, static_cast<double>(bytes) / 1e6));
  return text;
}

// ---- device -------------------------------------------------------------------------------------------------

Overlap overlapAsked() {
  const char* asked = std::getenv("PARVIS_OVERLAP");
  const std::string overlap = asked ? asked : "";
  return overlap == "0" ? Overlap::none : overlap == "1" ? Overlap::launches : Overlap::weights;
}

Status Device::use() {
  if (Status s = statusOf(cudaSetDevice(index_), "taking the device"); !s.ok() || open_) return s;
  cudaDeviceProp properties{};
  if (Status s = statusOf(cudaGetDeviceProperties(&properties, index_), "asking for the device's properties"); !s.ok()) return s;
  if (!stream_)
    if (Status s = statusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); !s.ok()) return s;
  if (!finished_)
    if (Status s = statusOf(cudaEventCreateWithFlags(&finished_, waited), "making an event"); !s.ok()) return s;
  name_ = properties.name;
  processors_ = properties.multiProcessorCount;
  sharedLimit_ = static_cast<size_t>(properties.sharedMemPerBlockOptin);
  capability_ = properties.major * 10 + properties.minor;
  open_ = true;
  return {};
}

Device::~Device() {
  if (!stream_) return;
  cudaSetDevice(index_);
  if (finished_) cudaEventDestroy(finished_);
  cudaStreamDestroy(stream_);
}

std::string Device::architecture() const {
  const int c = capability_;
  return c == 0 ? "" : "sm_" + std::to_string(c);
}

std::string Device::describe() const { return "GPU " + std::to_string(index_) + (name_.empty() ? "" : " (" + name_ + ")"); }

Status Device::finish(const char* doing) {
  if (Status s = statusOf(cudaEventRecord(finished_, stream_), doing); !s.ok()) return s;
  return statusOf(cudaEventSynchronize(finished_), doing);
}

// ---- memory -------------------------------------------------------------------------------------------------

// What is not planned, because CUDA takes it by itself when kernels are first used and graphs made and launched: left free, or
// a picture would fail in its middle for want of it.
static size_t unplanned(size_t total) { return std::min<size_t>(size_t{64} << 20, total / 64); }

Status DeviceMemory::allocate(std::shared_ptr<Device> device, size_t bytes, const std::string& what, DeviceMemory& out) {
  bytes = std::max<size_t>((bytes + 255) / 256 * 256, 256);
  size_t free = 0, total = 0;
  const auto ask = [&] { return statusOf(cudaMemGetInfo(&free, &total), "asking for free memory"); };
  if (Status s = ask(); !s.ok()) return s;
  const auto fits = [&] { return bytes <= free && unplanned(total) <= free - bytes; };
  if (!fits() && device->giveUpSpares())
    if (Status s = ask(); !s.ok()) return s;
  const auto refuse = [&](const char* how) {
    return Status{Code::outOfMemory, what + " need " + sizeText(bytes) + " of device memory" + how + ", beside " + sizeText(unplanned(total)) + " for kernels and graphs, and " + sizeText(free) + " of " + sizeText(total) + " are free on " + device->describe() +
                                         ". Free memory of the device, or ask for less at a time."};
  };
  if (!fits()) return refuse("");
  DeviceMemory m;
  void* p = nullptr;
  cudaError_t e = cudaMalloc(&p, bytes);
  if (e == cudaErrorMemoryAllocation) {  // there, but in pieces
    cudaGetLastError();
    if (device->giveUpSpares()) e = cudaMalloc(&p, bytes);
  }
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return refuse(" in one piece");
  }
  if (Status s = statusOf(e, "taking device memory"); !s.ok()) return s;
  m.data_ = static_cast<uint8_t*>(p);
  m.bytes_ = bytes;
  m.device_ = std::move(device);
  if (Status s = statusOf(cudaMemsetAsync(p, 0, bytes, m.device_->stream()), "clearing device memory"); !s.ok()) return s;
  out = std::move(m);
  return {};
}

DeviceMemory::~DeviceMemory() {
  if (!data_) return;
  cudaSetDevice(device_->index());
  (void)device_->finish("freeing device memory");  // what was enqueued may still use it
  cudaFree(data_);
}

Status HostMemory::allocate(size_t bytes, HostMemory& out) {
  void* p = nullptr;
  if (Status s = statusOf(cudaHostAlloc(&p, std::max<size_t>(bytes, 1), cudaHostAllocMapped), "taking page-locked memory"); !s.ok()) return s;
  HostMemory m;
  m.data_ = static_cast<uint8_t*>(p);
  m.bytes_ = bytes;
  out = std::move(m);
  return {};
}

HostMemory::~HostMemory() {
  if (data_) cudaFreeHost(data_);
}

// ---- events -------------------------------------------------------------------------------------------------

Status Event::record(cudaStream_t stream) {
  if (!event_)
    if (Status s = statusOf(cudaEventCreateWithFlags(&event_, waited), "making an event"); !s.ok()) return s;
  recorded_ = true;
  return statusOf(cudaEventRecord(event_, stream), "recording an event");
}

Status Event::wait(const char* doing) { return recorded_ ? statusOf(cudaEventSynchronize(event_), doing) : Status{}; }

Event::~Event() {
  if (event_) cudaEventDestroy(event_);
}

}  // namespace parvis::cuda
