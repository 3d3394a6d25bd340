// The machine that PARVIS_SIMT describes, and CUDA's errors.
#include "machine.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace simt {

// ---- settings -----------------------------------------------------------------------------------------------

namespace {

[[noreturn]] void misconfigured(const std::string& item) {
  std::fprintf(stderr, "simt: PARVIS_SIMT: `%s` means nothing here (test/simt/runtime.h lists what does)\n",
               item.c_str());
  std::abort();
}
std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == by) parts.emplace_back();
    else parts.back() += c;
  return parts;
}
uint64_t number(const std::string& text, const std::string& item) {
  char* end = nullptr;
  uint64_t n = std::strtoull(text.c_str(), &end, 10);
  if (end == text.c_str()) misconfigured(item);
  if (*end == 'K') n <<= 10, end++;
  else if (*end == 'M') n <<= 20, end++;
  else if (*end == 'G') n <<= 30, end++;
  if (*end != 0) misconfigured(item);
  return n;
}

// What a block may have of a multiprocessor's shared memory, from CUDA's table of compute capabilities.
size_t sharedOf(int major, int minor) {
  if (major < 8) return major * 10 + minor >= 75 ? 64 << 10 : 96 << 10;
  if (major == 8) return minor == 0 || minor == 7 ? 163 << 10 : 99 << 10;
  return major < 12 ? 227 << 10 : 99 << 10;
}

}  // namespace

Machine::Machine() {
  std::map<std::string, std::vector<std::string>> each{
      {"memory", {"4G"}}, {"capability", {"9.0"}}, {"name", {"SIMT layer"}}, {"processors", {"16"}}};
  size_t count = 1;
  uint64_t seed = 1;
  const char* settings = std::getenv("PARVIS_SIMT");
  for (const std::string& item : split(settings ? settings : "", ',')) {
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    if (equals == std::string::npos) misconfigured(item);
    const std::string key = item.substr(0, equals), value = item.substr(equals + 1);
    if (each.count(key)) each[key] = split(value, '/');
    else if (key == "devices") count = number(value, item);
    else if (key == "driver") driver = static_cast<int>(number(value, item));
    else if (key == "ahead") ahead = number(value, item);
    else if (key == "runtime") runtime = static_cast<int>(number(value, item));
    else if (key == "seed") setSeed(seed = number(value, item));
    else if (key == "wrong" && value == "exp2") wrong = true;
    else if (key == "refuses") {
      for (const std::string& what : split(value, '/')) {
        if (what != "capture" && what != "instantiate" && what != "overlap") misconfigured(item);
        refuses.insert(what);
      }
    } else if (key == "fail" && value.starts_with("malloc:")) failMalloc = number(value.substr(7), item);
    else if (key == "fail" && value.starts_with("hostalloc:")) failHostAlloc = number(value.substr(10), item);
    else if (key == "fail" && value.starts_with("launch:")) failLaunch = number(value.substr(7), item);
    else misconfigured(item);
  }
  random = seed * 0x9e3779b97f4a7c15u;
  const auto of = [&](const char* key, size_t i) { return each[key][std::min(i, each[key].size() - 1)]; };
  for (size_t i = 0; i < count; i++) {
    Device d;
    const auto capability = split(of("capability", i), '.');
    if (capability.size() != 2) misconfigured("capability=" + of("capability", i));
    d.name = of("name", i);
    d.major = static_cast<int>(number(capability[0], "capability"));
    d.minor = static_cast<int>(number(capability[1], "capability"));
    d.shared = sharedOf(d.major, d.minor);
    d.processors = static_cast<int>(number(of("processors", i), "processors"));
    d.memory = number(of("memory", i), "memory");
    devices.push_back(std::move(d));
  }
}

bool computesWrongly() {
  static const bool wrong = m().wrong;
  return wrong;
}

// What CUDA's own exit handler does to threads that are still inside CUDA is anybody's guess: here they end the
// process, and the handler takes its time, so that they get there. The thread that exits is told.
static std::atomic<bool> unloaded = false;
static std::thread::id unloader;
static void unload() {
  unloader = std::this_thread::get_id();
  unloaded = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

Machine& m() {
  static Machine& machine = []() -> Machine& {
    std::atexit(unload);
    return *new Machine;
  }();
  return machine;
}
cudaError_t machineError() {
  if (unloaded) {
    if (std::this_thread::get_id() == unloader) return cudaErrorCudartUnloading;
    std::fprintf(stderr, "simt: a thread is inside CUDA while the process ends\n");
    std::abort();
  }
  if (m().driver == 0 || m().driver / 1000 < m().runtime / 1000) return cudaErrorInsufficientDriver;
  return m().devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}

}  // namespace simt

using namespace simt;

// ---- devices and errors -------------------------------------------------------------------------------------

cudaError_t cudaDriverGetVersion(int* version) { return *version = m().driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = m().runtime, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  const cudaError_t e = machineError();
  *count = e == cudaSuccess ? static_cast<int>(m().devices.size()) : 0;
  return remember(e);
}
static cudaError_t deviceError(int i) {
  if (const cudaError_t e = machineError()) return remember(e);
  return i < 0 || static_cast<size_t>(i) >= m().devices.size() ? remember(cudaErrorInvalidDevice) : cudaSuccess;
}
cudaError_t cudaSetDevice(int i) {
  const Lock hold(m().lock);
  if (const cudaError_t e = deviceError(i)) return e;
  currentDevice = i;
  return remember(device(i).broken);
}
cudaError_t cudaGetDevice(int* i) {
  *i = currentDevice;
  return deviceError(currentDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int i) {
  if (const cudaError_t e = deviceError(i)) return e;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = device(i).processors; break;
    case cudaDevAttrComputeCapabilityMajor: *value = device(i).major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = device(i).minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(device(i).shared); break;
    case cudaDevAttrClusterLaunch: *value = device(i).major >= 9; break;
    default: return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int i) {
  if (const cudaError_t e = deviceError(i)) return e;
  const Device& d = device(i);
  *properties = {"", d.memory, d.shared, d.shared + (1 << 10), d.major, d.minor, d.processors, 32, 50 << 20};
  std::snprintf(properties->name, sizeof properties->name, "%s", d.name.c_str());
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t e = call(unsafe, nullptr, [] { return cudaSuccess; })) return e;
  for (;;) {
    const Lock hold(m().lock);
    if (device(currentDevice).broken != cudaSuccess) return remember(device(currentDevice).broken);
    if (!runAny([](const SimtStream* s) { return s->device == currentDevice; })) return cudaSuccess;
  }
}

cudaError_t cudaPeekAtLastError() {
  const Lock hold(m().lock);
  if (machineError() == cudaSuccess && device(currentDevice).broken != cudaSuccess) return device(currentDevice).broken;
  return lastError;
}
cudaError_t cudaGetLastError() {
  const cudaError_t e = cudaPeekAtLastError();
  lastError = cudaSuccess;
  return e;
}
static const struct {
  cudaError_t error;
  const char *name, *text;
} errors[] = {
#define SIMT_ERROR(error, text) \
  { error, #error, text }
    SIMT_ERROR(cudaSuccess, "no error"),
    SIMT_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SIMT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SIMT_ERROR(cudaErrorInitializationError, "initialization error"),
    SIMT_ERROR(cudaErrorCudartUnloading, "driver shutting down"),
    SIMT_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    SIMT_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    SIMT_ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    SIMT_ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    SIMT_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    SIMT_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    SIMT_ERROR(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    SIMT_ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    SIMT_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    SIMT_ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    SIMT_ERROR(cudaErrorNotReady, "device not ready"),
    SIMT_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    SIMT_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    SIMT_ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    SIMT_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    SIMT_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    SIMT_ERROR(cudaErrorNotSupported, "operation not supported"),
    SIMT_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    SIMT_ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    SIMT_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    SIMT_ERROR(cudaErrorStreamCaptureImplicit,
               "operation would make the legacy stream depend on a capturing blocking stream"),
    SIMT_ERROR(cudaErrorStreamCaptureWrongThread,
               "attempt to terminate a thread-local capture sequence from another thread"),
    SIMT_ERROR(cudaErrorUnknown, "unknown error"),
};
const char* cudaGetErrorName(cudaError_t error) {
  for (const auto& e : errors)
    if (e.error == error) return e.name;
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  for (const auto& e : errors)
    if (e.error == error) return e.text;
  return "unrecognized error code";
}
