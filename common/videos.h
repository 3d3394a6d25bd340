// What both backends do with tokens and pixels of videos at either end of a tokenizer: the same numbers and the same
// messages, whatever runs the layers.
#pragma once

#include "parvis/backend.h"

namespace parvis {

// rows, columns: of tokens in a frame
Status checkVideoSides(const VideoTokenizerModel& model, int rows, int columns);

// tokens [cells] -> [cells, levels]: a digit of each level, the first one fastest, as -1 .. 1 in equal steps.
Status codesToValues(const VideoTokenizerModel& model, const int32_t* tokens, int cells, float* values);

// Finite scalar quantisation (2309.15505, appendix A) as the models were trained with it: the shift by a tangent.
// z [cells, levels], finite -> tokens [cells]
void valuesToCodes(const VideoTokenizerModel& model, const float* z, int cells, int32_t* tokens);

// Pixels as the tokenizer computes them, nominally 0..1 -> bytes as the authors round them: floor(255 x), clamped.
void pixelsToBytes(const float* pixels, size_t count, uint8_t* bytes);

// Of a frame to encode.
Status checkFrame(const float* pixels, size_t count);

}  // namespace parvis
