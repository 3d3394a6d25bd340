// The device's own ceilings, measured in the run they are compared with: a streaming read of more than any cache holds,
// and products out of registers. The products are those of mma.sync, by which this backend multiplies; on Hopper and
// later the instructions for whole warp groups (wgmma, tcgen05) go beyond it, and nothing here uses them. So a share of
// the ceiling is one of what this path can do, not of the number in the device's data sheet.
#include "ceiling.h"

#include <algorithm>

#include "kernels.cuh"
#include "launch-timer.h"
#include "ptx.cuh"

namespace parvis::cuda {

namespace {

constexpr int threads = 256, readAhead = 8;     // 32 KB a block and turn, all of it on its way at once
constexpr int matrices = 8, sums = 16;          // independent ones of a warp, of a thread
constexpr int matrixBlocks = 4, sumBlocks = 8;  // a processor
constexpr size_t maxRead = size_t{4} << 30;
constexpr size_t bytesARound = size_t{256}
                               << 10;  // a device with little memory (or a simulated one) also multiplies less
constexpr int repeats = 5;

__global__ void __launch_bounds__(threads) readKernel(const uint4* from, size_t count, uint4* out) {
  constexpr size_t each = static_cast<size_t>(threads) * readAhead;
  uint4 sum = make_uint4(0, 0, 0, 0);
  for (size_t first = blockIdx.x * each; first < count; first += gridDim.x * each) {
    uint4 v[readAhead];
#pragma unroll
    for (int u = 0; u < readAhead; u++) {
      const size_t at = first + static_cast<size_t>(u) * threads + threadIdx.x;
      v[u] = make_uint4(0, 0, 0, 0);
      ptx::loadStreaming(v[u], from + at, at < count);
    }
#pragma unroll
    for (int u = 0; u < readAhead; u++) sum.x ^= v[u].x, sum.y ^= v[u].y, sum.z ^= v[u].z, sum.w ^= v[u].w;
  }
  if ((sum.x & sum.y & sum.z & sum.w) == 0x9e3779b9u) *out = sum;  // hardly ever: keeps the reads
}

// Numbers that differ from lane to lane and are no zeros: those would take less power, and the clock would be higher.
__global__ void __launch_bounds__(threads) matrixKernel(int rounds, float* out) {
  uint32_t state = (blockIdx.x * blockDim.x + threadIdx.x) * 2654435761u + 1;
  const auto next = [&] {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return (state & 0x807f807fu) | 0x3c803c80u;
  };
  const uint32_t a[4] = {next(), next(), next(), next()}, b[2] = {next(), next()};
  float d[matrices][4] = {};
  for (int i = 0; i < rounds; i++)
#pragma unroll
    for (int m = 0; m < matrices; m++) ptx::mma_m16n8k16_bf16(d[m], a, b);
  float sum = 0;
#pragma unroll
  for (int m = 0; m < matrices; m++) sum += d[m][0] + d[m][1] + d[m][2] + d[m][3];
  if (sum == 1e30f) *out = sum;  // never: keeps the products
}

__global__ void __launch_bounds__(threads) sumKernel(int rounds, float factor, float more, float* out) {
  float d[sums];
#pragma unroll
  for (int i = 0; i < sums; i++) d[i] = static_cast<float>(threadIdx.x + static_cast<unsigned>(i));
  for (int i = 0; i < rounds; i++)
#pragma unroll
    for (int j = 0; j < sums; j++) d[j] = fmaf(d[j], factor, more);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < sums; i++) sum += d[i];
  if (sum == 1e30f) *out = sum;
}

constexpr const char* measuring = "measuring ceilings";

// The least time of a few launches, which follow one another. The first one, which loads the kernel, does not count.
template <class Launch>
Status least(Device& device, Launch&& launch, double& seconds) {
  Profile profile;
  LaunchTimer timer(&profile);
  for (int i = 0; i <= repeats; i++) {
    const cudaError_t e = timer.timed(
        device.stream(), [] { return LaunchRecord(); }, launch);
    if (Status s = statusOf(e, measuring); !s.ok()) return s;
  }
  if (Status s = device.finish(measuring); !s.ok()) return s;
  if (Status s = timer.collect(); !s.ok()) return s;
  for (size_t i = 1; i < profile.size(); i++) seconds = std::min(seconds, std::max(profile[i].ms, 1e-6) / 1000);
  return {};
}

}  // namespace

cudaError_t readAll(const void* from, size_t bytes, uint4* out, int processors, int blocksEach, cudaStream_t stream) {
  const size_t each = static_cast<size_t>(threads) * readAhead, pieces = (bytes / 16 + each - 1) / each,
               most = static_cast<size_t>(processors) * static_cast<size_t>(blocksEach);
  if (pieces == 0 || most == 0) return cudaErrorInvalidValue;
  return launch(readKernel, static_cast<unsigned>(std::min(pieces, most)), static_cast<unsigned>(threads), 0, stream,
                static_cast<const uint4*>(from), bytes / 16, out);
}

Status measureCeilings(const std::shared_ptr<Device>& device, Ceilings& out) {
  if (Status s = device->use(); !s.ok()) return s;
  size_t free = 0, total = 0;
  if (Status s = statusOf(cudaMemGetInfo(&free, &total), "asking for free memory"); !s.ok()) return s;
  const size_t bytes = std::max<size_t>(std::min(maxRead, free / 8) / 4096 * 4096, 4096);
  DeviceMemory memory;
  if (Status s = DeviceMemory::allocate(device, bytes + 256,
                                        {"The measurements of ceilings", "Free memory of the device."}, memory);
      !s.ok())
    return s;
  const cudaStream_t stream = device->stream();
  if (Status s = statusOf(cudaMemsetAsync(memory.data(), 0x3c, bytes, stream), measuring); !s.ok()) return s;
  uint8_t* const sink = memory.data() + bytes;
  const int processors = device->processors(), rounds = static_cast<int>(std::max<size_t>(bytes / bytesARound, 1));

  double seconds = 1e9;
  for (const int blocks : {2, 4, 6, 8})
    if (Status s = least(
            *device,
            [&] { return readAll(memory.data(), bytes, reinterpret_cast<uint4*>(sink), processors, blocks, stream); },
            seconds);
        !s.ok())
      return s;
  out.readBytesPerSecond = static_cast<double>(bytes) / seconds;

  const auto blocks = [&](int each) { return static_cast<unsigned>(processors * each); };
  const double each =
      static_cast<double>(rounds) * processors * threads;  // what one thread of a block a processor does
  seconds = 1e9;
  if (Status s = least(
          *device,
          [&] {
            return launch(matrixKernel, blocks(matrixBlocks), static_cast<unsigned>(threads), 0, stream, rounds,
                          reinterpret_cast<float*>(sink));
          },
          seconds);
      !s.ok())
    return s;
  out.bfloat16Flops = each / 32 * matrixBlocks * matrices * (2.0 * 16 * 8 * 16) / seconds;
  seconds = 1e9;
  if (Status s = least(
          *device,
          [&] {
            return launch(sumKernel, blocks(sumBlocks), static_cast<unsigned>(threads), 0, stream, rounds, 0.999f,
                          0.001f, reinterpret_cast<float*>(sink));
          },
          seconds);
      !s.ok())
    return s;
  out.float32Flops = each * sumBlocks * sums * 2.0 / seconds;
  return {};
}

}  // namespace parvis::cuda
