// Streams are queues of functions. Every operation runs whole, under one lock that also guards the scheduler of fibers and
// the tables here, on the thread that waits for it. Nothing here is ever destroyed: threads may outlive main().
#include "runtime.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "state.h"

namespace simt {
namespace {

struct Operation {
  std::function<cudaError_t()> run;
  bool overlaps;  // with operations of the same kind
  template <class F>
  Operation(F run, bool overlaps = false) : run(std::move(run)), overlaps(overlaps) {}
};
struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  std::vector<Operation> recorded;
  bool invalid = false;
};
struct Range { size_t bytes; int device; bool pinned; };
struct Device {
  std::string name;
  int major = 0, minor = 0, processors = 0;
  size_t shared = 0;                 // a block's most
  size_t memory = 0, used = 0;
  cudaError_t broken = cudaSuccess;  // by a kernel, for good
  int open = 0;                      // operations under way that may touch its memory
};

}  // namespace
}  // namespace simt

struct SimtStream {
  int device;
  std::thread::id owner;
  std::deque<simt::Operation> queue;
  std::unique_ptr<simt::Capture> capture;
};
// Numbers of records: the last one enqueued, the last one reached.
struct SimtEvent {
  int device;
  bool timing;
  struct Progress { uint64_t enqueued = 0, reached = 0; std::chrono::steady_clock::time_point when; };
  std::shared_ptr<Progress> progress = std::make_shared<Progress>();
  SimtStream* stream = nullptr;
};
struct SimtGraph { std::vector<simt::Operation> operations; };
struct SimtGraphExec { std::vector<simt::Operation> operations; };

namespace simt {
namespace {

// ---- the machine --------------------------------------------------------------------------------------------

struct Machine {
  std::recursive_mutex lock;
  std::vector<Device> devices;
  int driver = 13000, runtime = 13000;
  uint64_t ahead = 0, failMalloc = 0, failHostAlloc = 0, failLaunch = 0, mallocs = 0, hostAllocs = 0, launches = 0;
  uint64_t random = 0;
  std::map<uintptr_t, Range> ranges;
  std::set<SimtStream*> streams;
  std::set<SimtEvent*> events;
  std::set<SimtGraph*> graphs;
  std::set<SimtGraphExec*> execs;

  Machine();
  bool oneIn(uint64_t n) {  // of its own: the scheduler starts anew with each launch
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % n == 0;
  }
  size_t pick(size_t n) {
    oneIn(1);
    return (random >> 33) % n;
  }
};

[[noreturn]] void misconfigured(const std::string& item) {
  std::fprintf(stderr, "simt: PARVIS_SIMT: `%s` means nothing here (test/simt/runtime.h lists what does)\n", item.c_str());
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

Machine::Machine() {
  std::map<std::string, std::vector<std::string>> each{{"memory", {"4G"}}, {"capability", {"9.0"}}, {"name", {"SIMT layer"}}, {"processors", {"16"}}};
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
    else if (key == "fail" && value.starts_with("malloc:")) failMalloc = number(value.substr(7), item);
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

Machine& m() {
  static Machine& machine = *new Machine;
  return machine;
}
using Lock = std::lock_guard<std::recursive_mutex>;

thread_local int currentDevice = 0;
thread_local cudaError_t lastError = cudaSuccess;

cudaError_t remember(cudaError_t e) {
  if (e != cudaSuccess && e != cudaErrorNotReady) lastError = e;
  return e;
}
cudaError_t machineError() {
  if (m().driver == 0 || m().driver / 1000 < m().runtime / 1000) return cudaErrorInsufficientDriver;
  return m().devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}
Device& device(int i) { return m().devices[static_cast<size_t>(i)]; }

// ---- operations ---------------------------------------------------------------------------------------------

// Memory of a device is poisoned unless something runs on it: the host and other devices cannot touch it.
class Open {
 public:
  explicit Open(int on) : on_(on) {
    if (device(on_).open++ == 0) each(__asan_unpoison_memory_region);
  }
  ~Open() {
    if (--device(on_).open == 0) each(__asan_poison_memory_region);
  }

 private:
  template <class F>
  void each(F&& f) const {
    for (const auto& [start, range] : m().ranges)
      if (!range.pinned && range.device == on_) f(reinterpret_cast<void*>(start), range.bytes);
  }
  int on_;
};

// What breaks a device stays broken, and nothing that was queued on it ever runs.
cudaError_t execute(int on, const Operation& operation, SimtStream* stream = nullptr) {
  if (device(on).broken != cudaSuccess) return device(on).broken;
  const Open open(on);
  cudaError_t e = operation.run();
  if (e == cudaSuccess && !operation.overlaps) return e;
  for (; e == cudaSuccess && stream && !stream->queue.empty() && stream->queue.front().overlaps; stream->queue.pop_front()) e = stream->queue.front().run();
  const cudaError_t ended = finishHeld();
  if (e == cudaSuccess) e = ended;
  if (e == cudaSuccess) return e;
  device(on).broken = e;
  for (SimtStream* other : m().streams)
    if (other->device == on) other->queue.clear();
  return e;
}
cudaError_t runFront(SimtStream* stream) {
  const Operation operation = std::move(stream->queue.front());
  stream->queue.pop_front();
  return execute(stream->device, operation, stream);
}
bool runAny(bool (*wanted)(const SimtStream*)) {
  std::vector<SimtStream*> waiting;
  for (SimtStream* stream : m().streams)
    if (!stream->queue.empty() && wanted(stream)) waiting.push_back(stream);
  if (!waiting.empty()) runFront(waiting[m().pick(waiting.size())]);
  return !waiting.empty();
}

// Runs at once on the null stream; else waits in the queue, or is recorded.
cudaError_t submit(SimtStream* stream, Operation operation) {
  if (!stream) return execute(currentDevice, operation);
  if (stream->capture) stream->capture->recorded.push_back(std::move(operation));
  else stream->queue.push_back(std::move(operation));
  return cudaSuccess;
}

// A call that a capture forbids also spoils the capture.
bool forbidden() {
  bool found = false;
  for (SimtStream* stream : m().streams) {
    Capture* c = stream->capture.get();
    if (!c) continue;
    const bool mine = c->thread == std::this_thread::get_id();
    if (!(mine ? c->mode != cudaStreamCaptureModeRelaxed : c->mode == cudaStreamCaptureModeGlobal)) continue;
    c->invalid = found = true;
  }
  return found;
}

constexpr unsigned unsafe = 1, streamOfDevice = 2, notCapturing = 4;
// What every call looks at first. `unsafe`: while this thread captures it must not be made at all.
cudaError_t begin(unsigned rules, SimtStream* stream = nullptr) {
  if (const cudaError_t e = machineError()) return e;
  if (stream && !m().streams.count(stream)) return cudaErrorInvalidResourceHandle;
  const int on = stream ? stream->device : currentDevice;
  // A queued operation may run at any time.
  if (m().oneIn(4)) runAny([](const SimtStream* s) { return s->owner == std::this_thread::get_id(); });
  if (device(on).broken != cudaSuccess) return device(on).broken;
  if ((rules & streamOfDevice) && stream && stream->device != currentDevice) return cudaErrorInvalidResourceHandle;
  if (stream && stream->capture && (rules & notCapturing)) {
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (stream && stream->capture && stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if ((rules & unsafe) && forbidden()) return cudaErrorStreamCaptureUnsupported;
  // The null stream would wait for the captured one, if that was not created as non-blocking: not to be relied upon.
  if (!stream && (rules & streamOfDevice) && forbidden()) return cudaErrorStreamCaptureImplicit;
  return cudaSuccess;
}

template <class F>
cudaError_t call(unsigned rules, SimtStream* stream, F&& body) {
  const Lock hold(m().lock);
  const cudaError_t e = begin(rules, stream);
  return remember(e == cudaSuccess ? body() : e);
}

// One operation after another, and others may use the lock in between.
template <class Done>
cudaError_t drain(SimtStream* stream, Done&& done) {
  for (;;) {
    const Lock hold(m().lock);
    if (!m().streams.count(stream)) return cudaSuccess;  // another thread has destroyed it, after its work
    if (device(stream->device).broken != cudaSuccess) return remember(device(stream->device).broken);
    if (stream->queue.empty() || done()) return cudaSuccess;
    runFront(stream);
  }
}
cudaError_t drain(SimtStream* stream) {
  return drain(stream, [] { return false; });
}

// ---- memory -------------------------------------------------------------------------------------------------

constexpr int pageable = -1, pinned = -2, outside = -3;  // otherwise the device
int placeOf(const void* p, size_t bytes) {
  const uintptr_t from = reinterpret_cast<uintptr_t>(p);
  auto next = m().ranges.upper_bound(from);
  if (next != m().ranges.begin()) {
    const auto& [start, range] = *std::prev(next);
    if (from < start + range.bytes) return from + bytes > start + range.bytes ? outside : range.pinned ? pinned : range.device;
  }
  return next != m().ranges.end() && from + bytes > next->first ? outside : pageable;
}

void* take(size_t bytes, int on, bool pinnedMemory) {
  void* p = nullptr;
  if (posix_memalign(&p, 256, bytes) != 0) return nullptr;
  std::memset(p, 0xff, bytes);
  m().ranges[reinterpret_cast<uintptr_t>(p)] = {bytes, on, pinnedMemory};
  if (!pinnedMemory) __asan_poison_memory_region(p, bytes);
  return p;
}

cudaError_t give(void* p, bool pinnedMemory) {
  const auto found = m().ranges.find(reinterpret_cast<uintptr_t>(p));
  if (found == m().ranges.end() || found->second.pinned != pinnedMemory) return cudaErrorInvalidValue;
  if (!pinnedMemory) device(found->second.device).used -= found->second.bytes;
  __asan_unpoison_memory_region(p, found->second.bytes);
  m().ranges.erase(found);
  std::free(p);
  return cudaSuccess;
}

}  // namespace

// ---- launches -----------------------------------------------------------------------------------------------

cudaError_t enqueue(Launch l, cudaStream_t stream) {
  return call(streamOfDevice, stream, [&] {
    const Device& d = device(currentDevice);
    if (d.major < 8) return cudaErrorNoKernelImageForDevice;
    l.sharedLimit = d.shared;
    if (const cudaError_t e = check(l)) return e;
    const uint64_t threads = uint64_t{l.block.x} * l.block.y * l.block.z, blocks = uint64_t{l.grid.x} * l.grid.y * l.grid.z;
    const uint64_t together = std::min<uint64_t>({32, 2048 / threads, d.shared / std::max<uint64_t>(l.sharedBytes, 1)});
    if (l.cooperative && blocks > together * static_cast<uint64_t>(d.processors)) return cudaErrorCooperativeLaunchTooLarge;
    const bool overlaps = l.programmatic && m().ahead > 0;
    const auto runs = [l = std::move(l), overlaps] { return ++m().launches == m().failLaunch ? cudaErrorIllegalAddress : overlaps ? runAhead(l, m().ahead) : run(l); };
    return submit(stream, Operation(runs, overlaps));
  });
}

// For reports, so without the lock.
int deviceOf(const void* p) { return std::max(placeOf(p, 1), -1); }

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
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(device(i).shared); break;
    default: return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int i) {
  if (const cudaError_t e = deviceError(i)) return e;
  const Device& d = device(i);
  *properties = {"", d.memory, d.shared, d.major, d.minor, d.processors, 32, 50 << 20};
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
static const struct { cudaError_t error; const char *name, *text; } errors[] = {
#define SIMT_ERROR(error, text) {error, #error, text}
    SIMT_ERROR(cudaSuccess, "no error"),
    SIMT_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SIMT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SIMT_ERROR(cudaErrorInitializationError, "initialization error"),
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
    SIMT_ERROR(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    SIMT_ERROR(cudaErrorNotSupported, "operation not supported"),
    SIMT_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    SIMT_ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    SIMT_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    SIMT_ERROR(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream"),
    SIMT_ERROR(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread"),
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

// ---- memory -------------------------------------------------------------------------------------------------

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call(0, nullptr, [&] {
    *total = device(currentDevice).memory;
    *free = *total - device(currentDevice).used;
    return cudaSuccess;
  });
}
cudaError_t cudaMalloc(void** p, size_t bytes) {
  return call(unsafe, nullptr, [&] {
    Device& d = device(currentDevice);
    if (bytes == 0) return *p = nullptr, cudaSuccess;
    if (++m().mallocs == m().failMalloc || bytes > d.memory - d.used) return cudaErrorMemoryAllocation;
    void* taken = take(bytes, currentDevice, false);
    if (!taken) return cudaErrorMemoryAllocation;
    d.used += bytes;
    return *p = taken, cudaSuccess;
  });
}
cudaError_t cudaFree(void* p) {
  if (!p) return call(0, nullptr, [] { return cudaSuccess; });
  if (const cudaError_t e = cudaDeviceSynchronize()) return e;
  return call(unsafe, nullptr, [&] { return give(p, false); });
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags) {
  return call(unsafe, nullptr, [&] {
    if (flags > 7) return cudaErrorInvalidValue;
    if (bytes == 0) return *p = nullptr, cudaSuccess;
    if (++m().hostAllocs == m().failHostAlloc) return cudaErrorMemoryAllocation;
    void* taken = take(bytes, currentDevice, true);
    return taken ? (*p = taken, cudaSuccess) : cudaErrorMemoryAllocation;
  });
}
// Does not wait: whoever frees what a queued copy still uses finds out from the address sanitizer.
cudaError_t cudaFreeHost(void* p) {
  return call(unsafe, nullptr, [&] { return p ? give(p, true) : cudaSuccess; });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  bool wait = false;
  const cudaError_t e = call(stream ? 0u : streamOfDevice, stream, [&] {
    if (bytes == 0) return cudaSuccess;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
    const int target = placeOf(to, bytes), source = placeOf(from, bytes);
    const bool toDevice = target >= 0, fromDevice = source >= 0;
    if (!to || !from || target == outside || source == outside) return cudaErrorInvalidValue;
    if (kind != cudaMemcpyDefault && (toDevice != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
                                      fromDevice != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))) return cudaErrorInvalidValue;
    const auto copy = [=] {
      const Open first(std::max(target, 0)), second(std::max(source, 0));  // of other devices than the stream's, too
      return std::memcpy(to, from, bytes), cudaSuccess;
    };
    if (stream && stream->capture && (target == pageable || source == pageable)) {
      stream->capture->invalid = true;
      return cudaErrorStreamCaptureUnsupported;
    }
    if (source == pageable && toDevice) {  // what it is now
      auto now = std::make_shared<std::vector<uint8_t>>(static_cast<const uint8_t*>(from), static_cast<const uint8_t*>(from) + bytes);
      return submit(stream, [=] {
        const Open first(target);
        return std::memcpy(to, now->data(), bytes), cudaSuccess;
      });
    }
    wait = stream && (target == pageable || (!toDevice && !fromDevice)) && !stream->capture;
    return submit(stream, copy);
  });
  return e == cudaSuccess && wait ? drain(stream) : e;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) { return cudaMemcpyAsync(to, from, bytes, kind, nullptr); }
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  return call(stream ? 0u : streamOfDevice, stream, [&] {
    if (bytes == 0) return cudaSuccess;
    const int place = placeOf(p, bytes);
    if (place == pageable || place == outside) return cudaErrorInvalidValue;
    return submit(stream, [=] {
      const Open first(std::max(place, 0));
      return std::memset(p, value, bytes), cudaSuccess;
    });
  });
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

// ---- streams and events -------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(0, nullptr, [&] {
    if (flags != cudaStreamNonBlocking) return cudaErrorNotSupported;  // others wait for the null stream, and it for them
    *stream = new SimtStream{currentDevice, std::this_thread::get_id(), {}, {}};
    m().streams.insert(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return remember(cudaErrorInvalidResourceHandle);
  cudaError_t e = drain(stream);
  const Lock hold(m().lock);
  if (!m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture) e = cudaErrorStreamCaptureUnsupported;
  m().streams.erase(stream);
  delete stream;
  return remember(e);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t e = call(unsafe | notCapturing, stream, [] { return cudaSuccess; });
  return e == cudaSuccess && stream ? drain(stream) : e;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(unsafe | notCapturing, stream, [&] {
    if (!stream || stream->queue.empty()) return cudaSuccess;
    if (m().oneIn(2)) {  // who asks often enough gets there
      if (const cudaError_t e = runFront(stream)) return e;
    }
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}

static bool known(cudaEvent_t event) { return m().events.count(event) > 0; }
static bool reached(cudaEvent_t event) { return event->progress->reached == event->progress->enqueued; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(0, nullptr, [&] {
    *event = new SimtEvent;
    (*event)->device = currentDevice;
    (*event)->timing = !(flags & cudaEventDisableTiming);
    m().events.insert(*event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(notCapturing | (stream ? 0u : streamOfDevice), stream, [&] {
    if (!known(event) || event->device != (stream ? stream->device : currentDevice)) return cudaErrorInvalidResourceHandle;
    event->stream = stream;
    const uint64_t number = ++event->progress->enqueued;
    return submit(stream, [=, progress = event->progress] {
      progress->reached = std::max(progress->reached, number);
      progress->when = std::chrono::steady_clock::now();
      return cudaSuccess;
    });
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SimtStream* stream = nullptr;
  std::shared_ptr<SimtEvent::Progress> progress;
  uint64_t number = 0;
  const cudaError_t e = call(unsafe, nullptr, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    stream = event->stream;
    progress = event->progress;
    number = progress->enqueued;
    return device(event->device).broken;
  });
  return e == cudaSuccess && stream ? drain(stream, [&] { return progress->reached >= number; }) : e;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(unsafe, nullptr, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (!reached(event) && m().streams.count(event->stream) && !event->stream->queue.empty() && m().oneIn(2)) runFront(event->stream);
    if (device(event->device).broken != cudaSuccess) return device(event->device).broken;
    return reached(event) ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return call(0, nullptr, [&] {
    if (!known(from) || !known(to) || !from->timing || !to->timing || from->progress->enqueued == 0 || to->progress->enqueued == 0) return cudaErrorInvalidResourceHandle;
    if (!reached(from) || !reached(to)) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(to->progress->when - from->progress->when).count();
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock hold(m().lock);
  if (m().events.erase(event) == 0) return remember(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(notCapturing, stream, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    return submit(stream, [other = event->stream, progress = event->progress, number = event->progress->enqueued] {
      while (progress->reached < number && m().streams.count(other) && !other->queue.empty())
        if (const cudaError_t e = runFront(other)) return e;
      return cudaSuccess;
    });
  });
}

// ---- graphs -------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream) return remember(cudaErrorStreamCaptureUnsupported);
  return call(0, stream, [&] {
    if (stream->capture) return cudaErrorIllegalState;
    stream->capture.reset(new Capture{mode, std::this_thread::get_id(), {}});
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock hold(m().lock);
  *graph = nullptr;
  if (!m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (!stream->capture) return remember(cudaErrorIllegalState);
  if (stream->capture->mode != cudaStreamCaptureModeRelaxed && stream->capture->thread != std::this_thread::get_id()) return remember(cudaErrorStreamCaptureWrongThread);
  const std::unique_ptr<Capture> capture = std::move(stream->capture);
  if (device(stream->device).broken != cudaSuccess) return remember(device(stream->device).broken);
  if (capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  *graph = new SimtGraph{std::move(capture->recorded)};
  m().graphs.insert(*graph);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock hold(m().lock);
  if (stream && !m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  *status = !stream || !stream->capture ? cudaStreamCaptureStatusNone : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call(0, nullptr, [&] {
    if (!m().graphs.count(graph)) return cudaErrorInvalidValue;
    *exec = new SimtGraphExec{graph->operations};
    m().execs.insert(*exec);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call(streamOfDevice, stream, [&] {
    if (!m().execs.count(exec)) return cudaErrorInvalidValue;
    for (const Operation& operation : exec->operations)
      if (const cudaError_t e = submit(stream, operation)) return e;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Lock hold(m().lock);
  if (m().graphs.erase(graph) == 0) return remember(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Lock hold(m().lock);
  if (m().execs.erase(exec) == 0) return remember(cudaErrorInvalidValue);
  delete exec;
  return cudaSuccess;
}
