#include "launches.h"

#include <algorithm>

namespace parvis {

namespace {

std::string text(int number) { return std::to_string(number); }

std::string sides(const PictureShape& p) {
  return (p.images > 1 ? text(p.images) + " x " : "") + text(p.height) + " x " + text(p.width);
}

}  // namespace

LaunchRecord convolutionLaunch(const ConvolutionShape& c, size_t item) {
  const std::string kernel = (c.frames > 1 ? text(c.frames) + "x" : "") + text(c.kernel) + "x" + text(c.kernel);
  std::string shape = kernel + ", " + text(c.from.channels) + " -> " + text(c.to.channels) + ", " + sides(c.from);
  if (c.normed) shape += ", normed";
  if (c.to.height != c.from.height) shape += c.to.height > c.from.height ? ", up" : ", down";
  if (c.residual) shape += ", residual";
  const double weights = static_cast<double>(c.from.channels) * c.to.channels * c.kernel * c.kernel * c.frames;
  const double elements = weights + c.from.size() * c.frames + c.to.size() * (c.residual ? 2 : 1);
  return {"convolution", shape, 0, elements * static_cast<double>(item), 2 * c.to.pixels() * weights};
}

LaunchRecord groupNormLaunch(const PictureShape& p, bool summed, size_t item) {
  const double factors = 8.0 * p.images * p.channels;  // a scale and a shift of each channel, in float32
  const double picture = summed ? 0 : p.size() * static_cast<double>(item);
  return {"group norm", text(p.channels) + ", " + sides(p), 0, picture + factors, 0};
}

LaunchRecord pixelAttentionLaunch(const PictureShape& p, size_t item) {
  const double pixels = static_cast<double>(p.height) * p.width;
  return {"attention", text(p.channels) + ", " + sides(p), 0, 4 * p.size() * static_cast<double>(item),
          4 * p.images * pixels * pixels * p.channels};
}

LaunchRecord codebookLookupLaunch(int codes, int codeSize, size_t item) {
  return {"codebook lookup", text(codes) + " of " + text(codeSize), 0,
          static_cast<double>(codes) * (4 + codeSize * (4 + static_cast<double>(item))), 0};
}

LaunchRecord nearestCodeLaunch(int codes, int codebook, int codeSize) {
  return {"nearest code", text(codes) + " of " + text(codeSize) + ", " + text(codebook) + " rows", 0,
          4.0 * (static_cast<double>(codes) * (codeSize + 1) + static_cast<double>(codebook) * codeSize),
          2.0 * codes * codebook * codeSize};
}

LaunchRecord inputPixelsLaunch(const PictureShape& p, size_t item) {
  return {"input pixels", sides(p), 0, p.size() * (4 + static_cast<double>(item)), 0};
}

LaunchRecord outputPixelsLaunch(const PictureShape& from, const PictureShape& to, size_t outside) {
  const std::string shape = sides(from) + (from.pixels() == to.pixels() ? "" : " -> " + sides(to));
  return {"output pixels", shape, 0, from.size() * 4 + to.size() * static_cast<double>(outside), 0};
}

// ---- a step of a transformer

LaunchRecord embeddingLaunch(int rows, int dim, size_t item) {
  return {"embedding", text(rows) + " x " + text(dim), 0, 1.0 * rows * dim * (static_cast<double>(item) + 4), 0};
}

LaunchRecord rowNormLaunch(int rows, int dim, size_t item) {
  return {"norm", text(rows) + " x " + text(dim), 0, 1.0 * rows * dim * (static_cast<double>(item) + 4), 0};
}

LaunchRecord projectionLaunch(int rows, int inputs, int outputs, const char* then, double weightBytes, size_t item,
                              size_t outputItem) {
  std::string shape = text(rows) + " x " + text(inputs) + " -> " + text(outputs);
  if (*then) shape += std::string(", ") + then;
  const double weights = static_cast<double>(inputs) * outputs;
  return {"projection", shape, 0,
          weights * weightBytes + static_cast<double>(rows) * inputs * static_cast<double>(item) +
              static_cast<double>(rows) * outputs * static_cast<double>(outputItem),
          2 * rows * weights};
}

SeenSlots seenSlots(const Step& step) {
  SeenSlots seen;
  seen.rows = step.rowCount;
  int most = 0;
  for (int i = 0; i < step.rowCount; i++) {
    const Row& row = step.rows[i];
    seen.each += row.sees;
    most = std::max(most, row.sees);
    if (i + 1 < step.rowCount && step.rows[i + 1].stream == row.stream) continue;
    seen.groups += most;
    most = 0;
  }
  return seen;
}

LaunchRecord rowAttentionLaunch(const SeenSlots& seen, const TransformerModel& m, size_t item, size_t cacheItem) {
  const std::string shape = text(seen.rows) + " rows, " + text(m.heads) + " heads of " + text(m.headSize) + ", " +
                            text(static_cast<int>(seen.each / std::max(seen.rows, 1))) + " slots";
  const double rows = 2.0 * seen.rows * m.heads * m.headSize, cache = 2 * seen.groups * m.kvHeads * m.headSize;
  return {"attention", shape, 0, rows * static_cast<double>(item) + cache * static_cast<double>(cacheItem),
          4 * seen.each * m.heads * m.headSize};
}

LaunchRecord drawLaunch(int predictions, int logitRows, int vocabulary) {
  return {"draw", text(predictions) + " of " + text(vocabulary), 0, 4.0 * logitRows * vocabulary, 0};
}

}  // namespace parvis
