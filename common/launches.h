// Names and costs of launches, the same on every backend, for profiles (parvis/profile.h). `item`: bytes of an element
// in the precision of the model.
#pragma once

#include "parvis/profile.h"

namespace parvis {

struct PictureShape {
  int images = 1, height = 0, width = 0, channels = 0;
  double pixels() const { return static_cast<double>(images) * height * width; }
  double size() const { return pixels() * channels; }
};

// A convolution with the normalisation and the activation of its input. `to` is larger or smaller than `from` where it
// resamples.
struct ConvolutionShape {
  PictureShape from, to;
  int kernel = 1;
  bool normed = false, residual = false;
};
LaunchRecord convolutionLaunch(const ConvolutionShape& shape, size_t item);
// The factors of a group norm. `summed`: the launch that made the picture has left the sums, so the picture is not
// read.
LaunchRecord groupNormLaunch(const PictureShape& shape, bool summed, size_t item);
// Attention of all pixels of a picture to each other, without the projections before and after it.
LaunchRecord pixelAttentionLaunch(const PictureShape& shape, size_t item);
LaunchRecord codebookLookupLaunch(int codes, int codeSize, size_t item);
LaunchRecord nearestCodeLaunch(int codes, int codebook, int codeSize);
// Between the RGB values of the caller, `outside` bytes each, and the picture that the tokenizer computes with.
LaunchRecord inputPixelsLaunch(const PictureShape& shape, size_t item);
LaunchRecord outputPixelsLaunch(const PictureShape& from, const PictureShape& to, size_t outside);

}  // namespace parvis
