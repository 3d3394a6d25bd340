#include "resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace parvis::cpu {

namespace {

struct Taps {
  int index[4];
  float weight[4];
};

// The cubic convolution kernel of Keys (1981) at distances t+1, t, 1-t, 2-t.
std::vector<Taps> taps(int from, int to) {
  constexpr float a = -0.75f;
  const auto near = [](float x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [](float x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  std::vector<Taps> all(to);
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (int i = 0; i < to; i++) {
    const float centre = scale * (static_cast<float>(i) + 0.5f) - 0.5f;
    const int first = static_cast<int>(std::floor(centre));
    const float t = centre - static_cast<float>(first);
    const float weight[4] = {far(t + 1), near(t), near(1 - t), far(2 - t)};
    for (int k = 0; k < 4; k++) {
      all[i].index[k] = std::clamp(first - 1 + k, 0, from - 1);
      all[i].weight[k] = weight[k];
    }
  }
  return all;
}

}  // namespace

void resizeBicubic(const float* from, int height, int width, float* to, int outHeight, int outWidth, Threads& threads,
                   const Cancel* cancel) {
  const std::vector<Taps> across = taps(width, outWidth), down = taps(height, outHeight);
  threads.run(outHeight, [&](int y, int) {
    if (cancel && cancel->load(std::memory_order_relaxed)) return;
    for (int x = 0; x < outWidth; x++)
      for (int c = 0; c < 3; c++) {
        float sum = 0;
        for (int i = 0; i < 4; i++) {
          const float* row = from + static_cast<size_t>(down[y].index[i]) * width * 3 + c;
          float line = 0;
          for (int j = 0; j < 4; j++) line += row[across[x].index[j] * 3] * across[x].weight[j];
          sum += line * down[y].weight[i];
        }
        to[(static_cast<size_t>(y) * outWidth + x) * 3 + c] = sum;
      }
  });
}

void toBytes(const float* from, uint8_t* to, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float v = 127.5f * from[i] + 128.0f;
    to[i] = v >= 255.0f ? 255 : v > 0.0f ? static_cast<uint8_t>(v) : 0;
  }
}

}  // namespace parvis::cpu
