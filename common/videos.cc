#include "videos.h"

#include <algorithm>
#include <cmath>

#include "pictures.h"

namespace parvis {

Status checkVideoSides(const VideoTokenizerModel& m, int rows, int columns) {
  if (rows >= 1 && columns >= 1 && rows <= 4096 && columns <= 4096 && rows * m.factorSpace() <= 65536 &&
      columns * m.factorSpace() <= 65536)
    return {};
  return {Code::invalidOption, "The grid of a frame must be positive, and its picture at most 65536 pixels a side."};
}

Status codesToValues(const VideoTokenizerModel& m, const int32_t* tokens, int cells, float* values) {
  const int codes = m.codes();
  for (int i = 0; i < cells; i++) {
    if (tokens[i] < 0 || tokens[i] >= codes)
      return {Code::invalidOption,
              "Token " + std::to_string(tokens[i]) + " is outside the codes, 0.." + std::to_string(codes - 1) + "."};
    int rest = tokens[i];
    for (const int level : m.levels) {
      const int half = level / 2;
      *values++ = static_cast<float>(rest % level - half) / static_cast<float>(half);
      rest /= level;
    }
  }
  return {};
}

void valuesToCodes(const VideoTokenizerModel& m, const float* z, int cells, int32_t* tokens) {
  for (int i = 0; i < cells; i++) {
    int64_t index = 0, basis = 1;
    for (const int level : m.levels) {
      const double half = (level - 1) * 0.999 / 2, offset = level % 2 == 0 ? 0.5 : 0.0, x = static_cast<double>(*z++);
      const double q = std::nearbyint(std::tanh(x + std::tan(offset / half)) * half - offset);
      index += (static_cast<int64_t>(q) + level / 2) * basis;
      basis *= level;
    }
    tokens[i] = static_cast<int32_t>(index);
  }
}

void pixelsToBytes(const float* pixels, size_t count, uint8_t* bytes) {
  for (size_t i = 0; i < count; i++)
    bytes[i] = static_cast<uint8_t>(255.0f * std::min(1.0f, std::max(0.0f, pixels[i])));
}

Status checkFrame(const float* pixels, size_t count) {
  return allFinite(pixels, count) ? Status{}
                                  : Status{Code::invalidOption, "A frame to encode has a pixel that is not finite."};
}

}  // namespace parvis
