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
  double best = 1e9;
  for (int i = 0; i < 10; i++)
    best = std::min(
        best, seconds([&](int task, int) { sink[task * 64] ^= kernels().read(memory.data() + part * task, part); }));
  out.readBytesPerSecond = static_cast<double>(part * threads.count()) / best;
  // The values are zero: no denormals, no infinities, and products cost the same.
  alignas(64) static const uint8_t w[64 * groupBytes] = {};
  alignas(64) static const uint8_t x[8 * 128 * 4] = {};
  for (int e = 0; e < 2; e++) {
    constexpr int rounds = 20000;
    best = 1e9;
    for (int i = 0; i < 5; i++)
      best =
          std::min(best, seconds([&](int task, int) { sink[task * 64] ^= kernels().multiply[e](x, w, rounds) != 0; }));
    const double flops = 2.0 * kernels().tileRows * panelOutputs * 64 * (e + 1) * rounds * threads.count();
    (e == 0 ? out.float32Flops : out.bfloat16Flops) = flops / best;
  }
  return {};
}

}  // namespace parvis::cpu
