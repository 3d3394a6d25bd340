// Pixels: bicubic resize of float RGB pictures, and floats to bytes, as the authors evaluate (design: section 1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "parvis/step.h"
#include "threads.h"

namespace parvis::cpu {

// Bicubic with a = -0.75, half-pixel centres, edge pixels repeated, no antialiasing. [height, width, 3] both.
void resizeBicubic(const float* from, int height, int width, float* to, int outHeight, int outWidth, Threads& threads,
                   const Cancel* cancel = nullptr);

// clamp(127.5 x + 128, 0, 255), truncated; NaN gives 0.
void toBytes(const float* from, uint8_t* to, size_t count);

}  // namespace parvis::cpu
