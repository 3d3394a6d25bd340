#include "launches.h"

namespace parvis {

namespace {

std::string text(int number) { return std::to_string(number); }

std::string sides(const PictureShape& p) {
  return (p.images > 1 ? text(p.images) + " x " : "") + text(p.height) + " x " + text(p.width);
}

}  // namespace

LaunchRecord convolutionLaunch(const ConvolutionShape& c, size_t item) {
  const std::string kernel = text(c.kernel) + "x" + text(c.kernel);
  std::string shape = kernel + ", " + text(c.from.channels) + " -> " + text(c.to.channels) + ", " + sides(c.from);
  if (c.normed) shape += ", normed";
  if (c.to.height != c.from.height) shape += c.to.height > c.from.height ? ", up" : ", down";
  if (c.residual) shape += ", residual";
  const double weights = static_cast<double>(c.from.channels) * c.to.channels * c.kernel * c.kernel;
  const double elements = weights + c.from.size() + c.to.size() * (c.residual ? 2 : 1);
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

}  // namespace parvis
