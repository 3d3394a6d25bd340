// Names and costs of launches, the same on every backend, for profiles (parvis/profile.h). `item`: bytes of an element
// in the precision of the model.
#pragma once

#include "parvis/model.h"
#include "parvis/profile.h"
#include "parvis/step.h"

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
  int frames = 1;  // that the filter reads
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

// ---- a step of a transformer

LaunchRecord embeddingLaunch(int rows, int dim, size_t item);
LaunchRecord rowNormLaunch(int rows, int dim, size_t item);
// weightBytes: of a weight; item: of an input; outputItem: bytes that are read and written of each output; `then`: what
// becomes of the outputs, in a word or ""
LaunchRecord projectionLaunch(int rows, int inputs, int outputs, const char* then, double weightBytes, size_t item,
                              size_t outputItem);

// Slots of the cache that the rows of a step see, all streams together.
struct SeenSlots {
  int rows = 0;
  double each = 0;    // the sum over rows
  double groups = 0;  // the sum over streams, of the row that sees most
};
SeenSlots seenSlots(const Step& step);
// item: bytes of a query or an output; cacheItem: of a key or a value
LaunchRecord rowAttentionLaunch(const SeenSlots& seen, const TransformerModel& model, size_t item, size_t cacheItem);
// Predictions, from rows of logits to tokens.
LaunchRecord drawLaunch(int predictions, int logitRows, int vocabulary);

}  // namespace parvis
