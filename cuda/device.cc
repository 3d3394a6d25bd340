#include "device.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace parvis::cuda {

// A thread that waits sleeps: a spinning one would cost a core of the server it runs in.
static constexpr unsigned waited = cudaEventDisableTiming | cudaEventBlockingSync;

// ---- errors -------------------------------------------------------------------------------------------------

// Forgets the error of the last call; whether every later one fails, too. A stream is asked that never captures.
static bool everyCallFails() {
  cudaGetLastError();
  const cudaError_t e = cudaStreamQuery(nullptr);
  cudaGetLastError();
  return e != cudaSuccess && e != cudaErrorNotReady;
}

Status statusOf(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return {};
  const std::string what = std::string("CUDA failed while ") + doing + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")";
  switch (error) {
    case cudaErrorMemoryAllocation:
      cudaGetLastError();  // not a sticky one: the device goes on
      return {Code::outOfMemory, what + ". Free memory of the device, or ask for less at a time."};
    // What a wrong call gets: a defect of this code, and not of the device.
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidMemcpyDirection:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorIllegalState:
    case cudaErrorNotReady:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorNotSupported:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureUnmatched:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorStreamCaptureWrongThread: return {Code::internal, what + "."};
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoKernelImageForDevice: return {Code::deviceUnavailable, what + ". `npx parvis doctor` says more."};
    default:
      // A kernel was stopped, or the device or its driver failed: most often CUDA reports the same for every later
      // call.
      if (!everyCallFails()) return {Code::internal, what + "."};
      return {
          Code::deviceUnavailable,
          what + ". The process must be started again before it can use this device; `npx parvis doctor` says more."};
  }
}

// All in the unit of what is needed, which is rounded up; what is free is rounded down. So the text shows that it does
// not fit.
static std::string needText(uint64_t need, uint64_t free, uint64_t total, const std::string& how) {
  const bool large = need >= 10'000'000'000;
  const double unit = large ? 1e8 : 1e6;
  const auto text = [&](double units) {
    char digits[32];
    std::snprintf(digits, sizeof digits, large ? "%.1f GB" : "%.0f MB", large ? units / 10 : units);
    return std::string(digits);
  };
  const auto in = [&](uint64_t bytes) { return static_cast<double>(bytes) / unit; };
  return "need " + text(std::ceil(in(need))) + how + ", and " + text(std::floor(in(free))) + " of " +
         text(std::round(in(total))) + " are free";
}

// ---- device -------------------------------------------------------------------------------------------------

Overlap overlapAsked() {
  const char* asked = std::getenv("PARVIS_OVERLAP");
  const std::string overlap = asked ? asked : "";
  return overlap == "0" ? Overlap::none : overlap == "1" ? Overlap::launches : Overlap::weights;
}

Status tuningAsked(Tuning& t) {
  t.clusters = true;
  const std::pair<const char*, bool*> all[] = {{"largeTiles", &t.largeTiles}, {"evenTiles", &t.evenTiles},
                                               {"deepStages", &t.deepStages}, {"lateRelease", &t.lateRelease},
                                               {"earlyKeys", &t.earlyKeys},   {"clusters", &t.clusters},
                                               {"guidedHead", &t.guidedHead}, {"rowsAhead", &t.rowsAhead}};
  const char* asked = std::getenv("PARVIS_TUNING");
  for (std::string rest = asked ? asked : ""; !rest.empty();) {
    const std::string one = rest.substr(0, rest.find(','));
    rest.erase(0, one.size() + 1);
    const auto known = std::find_if(std::begin(all), std::end(all), [&](const auto& choice) {
      return one == std::string(choice.first) + "=0" || one == std::string(choice.first) + "=1";
    });
    if (known != std::end(all)) {
      *known->second = one.back() == '1';
      continue;
    }
    std::string names;
    for (const auto& choice : all) names += (names.empty() ? "" : ", ") + std::string(choice.first);
    return {Code::invalidOption, "PARVIS_TUNING in the environment has \"" + one +
                                     "\". It takes names with =0 or =1, " + "between commas: " + names + "."};
  }
  return {};
}

Tuning Device::tuning() const {
  Tuning t = tuning_;
  t.clusters &= hasClusters_;
  return t;
}

bool graphsAsked() {
  const char* asked = std::getenv("PARVIS_GRAPHS");
  return !asked || std::string(asked) != "0";
}

// What the devices of the process have failed at. Never destroyed: threads may outlive statics.
static std::mutex& launchesLock = *new std::mutex;
static std::map<int, Launches>& launchesLeft = *new std::map<int, Launches>;

Launches Device::launches() const {
  if (!graphs_) return Launches::kernels;
  const std::lock_guard<std::mutex> hold(launchesLock);
  const auto left = launchesLeft.find(index_);
  const Launches way = left == launchesLeft.end() ? Launches::graphs : left->second;
  return way == Launches::graphs && overlap() == Overlap::none ? Launches::plainGraphs : way;
}

void Device::givesUp(Launches way) {
  const std::lock_guard<std::mutex> hold(launchesLock);
  Launches& left = launchesLeft[index_];
  left = std::max(left, way == Launches::graphs ? Launches::plainGraphs : Launches::kernels);
}

bool Device::isLost() const { return everyCallFails(); }

Status Device::use() {
  if (!asked_.ok()) return asked_;
  if (Status s = statusOf(cudaSetDevice(index_), "taking the device"); !s.ok() || open_) return s;
  cudaDeviceProp properties{};
  if (Status s = statusOf(cudaGetDeviceProperties(&properties, index_), "asking for the device's properties"); !s.ok())
    return s;
  if (!stream_)
    if (Status s = statusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); !s.ok())
      return s;
  if (!finished_)
    if (Status s = statusOf(cudaEventCreateWithFlags(&finished_, waited), "making an event"); !s.ok()) return s;
  name_ = properties.name;
  processors_ = properties.multiProcessorCount;
  sharedLimit_ = static_cast<size_t>(properties.sharedMemPerBlockOptin);
  int clusters = 0;
  hasClusters_ = cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, index_) == cudaSuccess && clusters != 0;
  cudaGetLastError();  // an older driver does not know the question
  sharedBytes_ = static_cast<size_t>(properties.sharedMemPerMultiprocessor);
  secondLevelCache_ = static_cast<size_t>(properties.l2CacheSize);
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

std::string Device::describe() const {
  return "GPU " + std::to_string(index_) + (name_.empty() ? "" : " (" + name_ + ")");
}

Status Device::finish(const char* doing) {
  if (Status s = statusOf(cudaEventRecord(finished_, stream_), doing); !s.ok()) return s;
  return statusOf(cudaEventSynchronize(finished_), doing);
}

// ---- what is kept for speed -----------------------------------------------------------------------------------

namespace {

struct Kept {
  const Device* owner;
  Reclaimable* holder;
};
// Of the whole process. Held while a holder gives memory back: it stays where it is meanwhile. Never destroyed: threads
// may outlive statics.
std::mutex& keptLock = *new std::mutex;
std::vector<Kept>& kept = *new std::vector<Kept>;

}  // namespace

size_t reclaimableBytes(int device) {
  const std::lock_guard<std::mutex> hold(keptLock);
  size_t bytes = 0;
  for (const Kept& k : kept)
    if (k.owner->index() == device) bytes += k.holder->reclaimableBytes();
  return bytes;
}

void Device::keeps(Reclaimable* holder) {
  const std::lock_guard<std::mutex> hold(keptLock);
  kept.push_back({this, holder});
}

void Device::forgets(Reclaimable* holder) {
  const std::lock_guard<std::mutex> hold(keptLock);
  kept.erase(std::remove_if(kept.begin(), kept.end(), [&](const Kept& k) { return k.holder == holder; }), kept.end());
}

bool Device::reclaimKept(bool others) {
  const std::lock_guard<std::mutex> hold(keptLock);
  return std::count_if(kept.begin(), kept.end(), [&](const Kept& k) {
           return k.owner->index() == index_ && (k.owner != this) == others && k.holder->reclaim();
         }) > 0;
}

// ---- memory -------------------------------------------------------------------------------------------------

// What is not planned, because CUDA takes it by itself when kernels are first used and graphs made and launched: left
// free, or a picture would fail in its middle for want of it.
static size_t unplanned(size_t total) { return std::min<size_t>(size_t{64} << 20, total / 64); }

Status DeviceMemory::allocate(std::shared_ptr<Device> device, size_t bytes, const Purpose& purpose, DeviceMemory& out) {
  bytes = std::max<size_t>((bytes + 255) / 256 * 256, 256);
  size_t free = 0, total = 0;
  const auto ask = [&] { return statusOf(cudaMemGetInfo(&free, &total), "asking for free memory"); };
  if (Status s = ask(); !s.ok()) return s;
  const auto fits = [&] { return bytes <= free && unplanned(total) <= free - bytes; };
  for (const bool others : {false, true})
    if (!fits() && device->reclaimKept(others))
      if (Status s = ask(); !s.ok()) return s;
  const auto refuse = [&](const char* how) {
    const size_t need = bytes + unplanned(total);
    return Status{Code::outOfMemory, purpose.what + " " +
                                         needText(need, free, total, std::string(" of device memory") + how) + " on " +
                                         device->describe() + ". " + purpose.cure};
  };
  if (!fits()) return refuse(", with what kernels and graphs take");
  DeviceMemory m;
  void* p = nullptr;
  cudaError_t e = cudaMalloc(&p, bytes);
  for (const bool others : {false, true}) {
    if (e != cudaErrorMemoryAllocation) break;  // there, but in pieces
    cudaGetLastError();
    if (device->reclaimKept(others)) e = cudaMalloc(&p, bytes);
  }
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return refuse(" in one piece");
  }
  if (Status s = statusOf(e, "taking device memory"); !s.ok()) return s;
  m.data_ = static_cast<uint8_t*>(p);
  m.bytes_ = bytes;
  m.device_ = std::move(device);
  if (Status s = statusOf(cudaMemsetAsync(p, 0, bytes, m.device_->stream()), "clearing device memory"); !s.ok())
    return s;
  out = std::move(m);
  return {};
}

DeviceMemory::~DeviceMemory() {
  if (!data_) return;
  cudaSetDevice(device_->index());
  (void)device_->finish("freeing device memory");  // what was enqueued may still use it
  cudaFree(data_);
}

void DeviceMemory::freeIdle() {
  if (!data_) return;
  cudaSetDevice(device_->index());
  cudaFree(std::exchange(data_, nullptr));
  bytes_ = 0;
}

Status HostMemory::allocate(size_t bytes, HostMemory& out) {
  void* p = nullptr;
  const cudaError_t e = cudaHostAlloc(&p, std::max<size_t>(bytes, 1), cudaHostAllocMapped);
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return {Code::outOfMemory, "The system refused " + std::to_string((bytes + 999'999) / 1'000'000) +
                                   " MB of page-locked memory, through which data go to the device. Free memory of the "
                                   "machine or of its container: this is not the device's."};
  }
  if (Status s = statusOf(e, "taking page-locked memory"); !s.ok()) return s;
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
