// Streams are queues of functions. Every operation runs whole, under one lock that also guards the scheduler of fibers
// and the tables of the machine, on the thread that waits for it. Here: what runs when, memory, and launches.
#include "runtime.h"

#include <algorithm>
#include <cstdlib>

#include "machine.h"

namespace simt {

// ---- operations ---------------------------------------------------------------------------------------------

// What breaks a device stays broken, and nothing that was queued on it ever runs.
static cudaError_t execute(int on, const Operation& operation, SimtStream* stream = nullptr) {
  if (const cudaError_t e = machineError()) return e;
  if (device(on).broken != cudaSuccess) return device(on).broken;
  const Open open(on);
  cudaError_t e = operation.run();
  if (e == cudaSuccess && !operation.overlaps) return e;
  for (; e == cudaSuccess && stream && !stream->queue.empty() && stream->queue.front().overlaps;
       stream->queue.pop_front())
    e = stream->queue.front().run();
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

cudaError_t submit(SimtStream* stream, Operation operation) {
  if (!stream) return execute(currentDevice, operation);
  if (stream->capture) stream->capture->recorded.push_back(std::move(operation));
  else stream->queue.push_back(std::move(operation));
  return cudaSuccess;
}

// A call that a capture forbids also spoils the capture.
static bool forbidden() {
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

cudaError_t begin(unsigned rules, SimtStream* stream) {
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

// ---- memory -------------------------------------------------------------------------------------------------

namespace {

constexpr int pageable = -1, pinned = -2, outside = -3;  // otherwise the device
int placeOf(const void* p, size_t bytes) {
  const uintptr_t from = reinterpret_cast<uintptr_t>(p);
  auto next = m().ranges.upper_bound(from);
  if (next != m().ranges.begin()) {
    const auto& [start, range] = *std::prev(next);
    if (from < start + range.bytes)
      return from + bytes > start + range.bytes ? outside : range.pinned ? pinned : range.device;
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
    if (l.cluster > 1 && d.major < 9) return cudaErrorNotSupported;
    l.sharedLimit = d.shared;
    if (const cudaError_t e = check(l)) return e;
    if (l.programmatic && stream && stream->capture && m().refuses.count("overlap")) {
      stream->capture->invalid = true;
      return cudaErrorInvalidResourceHandle;
    }
    const bool overlaps = l.programmatic && m().ahead > 0;
    const auto runs = [l = std::move(l), overlaps] {
      return ++m().launches == m().failLaunch ? cudaErrorIllegalAddress : overlaps ? runAhead(l, m().ahead) : run(l);
    };
    return submit(stream, Operation(runs, overlaps));
  });
}

// For reports, so without the lock.
int deviceOf(const void* p) { return std::max(placeOf(p, 1), -1); }

}  // namespace simt

using namespace simt;

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
    if (kind != cudaMemcpyDefault &&
        (toDevice != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
         fromDevice != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)))
      return cudaErrorInvalidValue;
    const auto copy = [=] {
      const Open first(std::max(target, 0)), second(std::max(source, 0));  // of other devices than the stream's, too
      return std::memcpy(to, from, bytes), cudaSuccess;
    };
    if (stream && stream->capture && (target == pageable || source == pageable)) {
      stream->capture->invalid = true;
      return cudaErrorStreamCaptureUnsupported;
    }
    if (source == pageable && toDevice) {  // what it is now
      auto now = std::make_shared<std::vector<uint8_t>>(static_cast<const uint8_t*>(from),
                                                        static_cast<const uint8_t*>(from) + bytes);
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
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
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
