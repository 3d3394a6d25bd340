// What both backends refuse of tokens and pictures before they start: the same messages, whatever runs the tokenizer.
#pragma once

#include "parvis/backend.h"

namespace parvis {

Status checkDecode(const TokenizerModel& model, const int32_t* tokens, const DecodeOptions& options);
Status checkEncode(const TokenizerModel& model, const float* pixels, int count, int height, int width);

bool allFinite(const float* values, size_t count);
Status pictureNotFinite();

}  // namespace parvis
