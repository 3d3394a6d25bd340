#include "pictures.h"

#include <cstring>

namespace parvis {

Status checkDecode(const TokenizerModel& model, const int32_t* tokens, const DecodeOptions& o) {
  if (o.count < 1 || o.gridHeight < 1 || o.gridWidth < 1 || o.outHeight < 1 || o.outWidth < 1 || o.gridHeight > 4096 ||
      o.gridWidth > 4096 || o.outHeight > 65536 || o.outWidth > 65536)
    return {Code::invalidOption, "A picture's grid and size must be positive."};
  const size_t all =
      static_cast<size_t>(o.gridHeight) * static_cast<size_t>(o.gridWidth) * static_cast<size_t>(o.count);
  for (size_t i = 0; i < all; i++)
    if (tokens[i] < 0 || tokens[i] >= model.codebook)
      return {Code::invalidOption, "Token " + std::to_string(tokens[i]) + " is outside the codebook, 0.." +
                                       std::to_string(model.codebook - 1) + "."};
  return {};
}

Status checkEncode(const TokenizerModel& model, const float* pixels, int count, int height, int width) {
  const int factor = model.factor();
  if (count < 1 || height < factor || width < factor || height % factor || width % factor || height > 65536 ||
      width > 65536)
    return {Code::invalidOption,
            "A picture to encode must be a multiple of " + std::to_string(factor) + " pixels wide and high."};
  const size_t all = static_cast<size_t>(height) * static_cast<size_t>(width) * 3 * static_cast<size_t>(count);
  return allFinite(pixels, all) ? Status{}
                                : Status{Code::invalidOption, "A picture to encode has a pixel that is not finite."};
}

bool allFinite(const float* values, size_t count) {
  bool finite = true;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, values + i, 4);
    finite &= (bits & 0x7f800000u) != 0x7f800000u;  // infinities and NaN have every bit of the exponent
  }
  return finite;
}

Status pictureNotFinite() {
  return {Code::nonFinite,
          "The tokenizer computed NaN or infinite numbers: the checkpoint's weights are damaged, or were not trained "
          "in this precision."};
}

}  // namespace parvis
