// The machine's own ceilings, measured in the run they are compared with.
#include "ceiling.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "platform.h"

namespace parvis::cpu {

Status measureCeilings(Threads& threads, Ceilings& out) {
  const auto seconds = [&](auto&& body) {
    const auto start = std::chrono::steady_clock::now();
    threads.run(threads.count(), body);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const size_t part = (size_t{512} << 20) / threads.count() / 4096 * 4096;
  Memory memory;
  if (Status s = Memory::allocate(part * threads.count(), "The read-bandwidth measurement", memory); !s.ok()) return s;
  std::vector<uint32_t> sink(threads.count() * 64);
  seconds([&](int task, int) { std::memset(memory.data() + part * task, task + 1, part); });
  // Medians, as times of steps are: the clock goes up and down by an eighth within milliseconds on many machines.
  const auto median = [&](int runs, auto&& body) {
    std::vector<double> times(static_cast<size_t>(runs));
    for (double& time : times) time = seconds(body);
    std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
    return times[static_cast<size_t>(runs / 2)];
  };
  const double reading =
      median(11, [&](int task, int) { sink[task * 64] ^= kernels().read(memory.data() + part * task, part); });
  out.readBytesPerSecond = static_cast<double>(part * threads.count()) / reading;
  // The values are zero: no denormals, no infinities, and products cost the same.
  alignas(64) static const uint8_t w[64 * groupBytes] = {};
  alignas(64) static const uint8_t x[8 * 128 * 4] = {};
  for (int e = 0; e < 2; e++) {
    if (e == 1 && kernels().activations == Element::float32) {  // the same products
      out.bfloat16Flops = out.float32Flops;
      break;
    }
    constexpr int rounds = 20000;
    const double multiplying =
        median(31, [&](int task, int) { sink[task * 64] ^= kernels().multiply[e](x, w, rounds) != 0; });
    const double flops = 2.0 * kernels().multiplied[e] * rounds * threads.count();
    (e == 0 ? out.float32Flops : out.bfloat16Flops) = flops / multiplying;
  }
  return {};
}

}  // namespace parvis::cpu
