// What host code holds on a device: memory, staging memory, a stream, events. Each frees itself. All of it is used by
// the backend's executor thread alone, but for what is kept for speed (Reclaimable). Memory is planned before it is
// taken: one allocation a model, session or picture.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "layout.h"
#include "parvis/status.h"
#include "platform.cuh"

namespace parvis::cuda {

// cudaSuccess: ok. `doing` completes "CUDA failed while ..."; out of memory and lost devices get codes of their own.
Status statusOf(cudaError_t error, const char* doing);

// Who keeps memory for speed only. Whoever needs memory of the same device asks for it, from any thread of the process.
class Reclaimable {
 public:
  virtual bool reclaim() = 0;             // false: there was none, or it is in use
  virtual size_t reclaimableBytes() = 0;  // what reclaim() would free now

 protected:
  ~Reclaimable() = default;
};
// What all backends of the process keep on a device for speed only.
size_t reclaimableBytes(int device);

// What the kernels of a step do before those ahead of them have ended, where the device can (capability 9.0): nothing;
// start, and load the weights that their registers hold (platform.cuh); bring more weights into the second-level cache
// besides.
enum class Overlap { none, launches, weights };
// By PARVIS_OVERLAP in the environment, 0, 1 or 2; all of it where that is not set. For measuring what each brings, and
// for ruling it out where something goes wrong.
Overlap overlapAsked();

// By PARVIS_TUNING in the environment: names of Tuning's members with 0 or 1, between commas. Others are as they are
// there; clusters are asked for. Refuses what is no such name.
Status tuningAsked(Tuning& tuning);

// How the kernels of a step are launched: as a graph, in which they overlap where they may; as a graph of kernels that
// follow each other; one by one. PARVIS_GRAPHS=0 in the environment asks for the last. What a driver fails at is not
// tried again on that device in this process.
enum class Launches { graphs, plainGraphs, kernels };
bool graphsAsked();

// One device as seen by one backend, with the stream that all of its work goes through.
class Device {
 public:
  // What is not said is what the environment asks for.
  explicit Device(int index) : index_(index), overlap_(overlapAsked()), asked_(tuningAsked(tuning_)) {}
  Device(int index, Overlap overlap, const Tuning& tuning) : index_(index), overlap_(overlap), tuning_(tuning) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();
  // First call of each job: takes the device where that has not been done and makes it the thread's current one.
  Status use();
  int index() const { return index_; }
  cudaStream_t stream() const { return stream_; }
  Overlap overlap() const { return capability_ >= 90 ? overlap_ : Overlap::none; }  // once used
  StepStream steps(Launches way = Launches::kernels) const {
    return {stream_, overlap() != Overlap::none && way != Launches::plainGraphs, tuning()};
  }
  Tuning tuning() const;  // once used: as the device can
  // Bytes of weights a launch, a quarter of the second-level cache at most: the launches of two kernels may be ahead.
  size_t prefetched() const {
    return overlap() == Overlap::weights ? std::min(size_t{16} << 20, secondLevelCache_ / 4) : 0;
  }
  Launches launches() const;
  void givesUp(Launches way);
  // Forgets the error of the last call. Whether the device fails at every later one, too.
  bool isLost() const;
  std::string architecture() const;  // sm_90, once used
  int processors() const { return processors_; }
  size_t sharedLimit() const { return sharedLimit_; }  // bytes of shared memory that a block may ask for, once used
  size_t sharedBytes() const { return sharedBytes_; }  // and bytes that a multiprocessor has of it
  std::string describe() const;                        // "GPU 0 (NVIDIA H200)"
  // Waits for everything enqueued, without keeping a core busy; its failures come out here.
  Status finish(const char* doing);
  // Gives its memory up before an allocation on this device is refused, this backend's or another's, until it is
  // forgotten.
  void keeps(Reclaimable* holder);
  void forgets(Reclaimable* holder);
  bool reclaimKept(bool others);  // this backend's, or those of all others on the device; whether there were any

 private:
  int index_, processors_ = 1;
  Overlap overlap_;
  Tuning tuning_;
  Status asked_;
  bool graphs_ = graphsAsked();
  size_t sharedLimit_ = 0, sharedBytes_ = 0, secondLevelCache_ = 0;
  std::atomic<int> capability_ = 0;  // 90: 9.0; also read by the JavaScript thread
  bool open_ = false, hasClusters_ = false;
  std::string name_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t finished_ = nullptr;
};

// For the message where memory is refused: what needs it ("The weights"), and what its user can do then.
struct Purpose {
  std::string what, cure;
};

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)),
        device_(std::move(other.device_)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    return *this;
  }
  ~DeviceMemory();
  // 256-byte aligned, zeroed in stream order. Refuses what does not fit.
  static Status allocate(std::shared_ptr<Device> device, size_t bytes, const Purpose& purpose, DeviceMemory& out);
  // Frees it without a look at the backend's stream, whose thread may be another: nothing that is enqueued uses it.
  void freeIdle();
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<Device> device_;
};

// Page-locked memory of the host, which the device can read and write at the same address.
class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HostMemory& operator=(HostMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~HostMemory();
  static Status allocate(size_t bytes, HostMemory& out);
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept
      : event_(std::exchange(other.event_, nullptr)), recorded_(std::exchange(other.recorded_, false)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    std::swap(recorded_, other.recorded_);
    return *this;
  }
  ~Event();
  Status record(cudaStream_t stream);
  Status wait(
      const char* doing);  // returns when what came before the last record is done; at once where nothing was recorded

 private:
  cudaEvent_t event_ = nullptr;
  bool recorded_ = false;
};

}  // namespace parvis::cuda
