#include "rows.h"

#include <algorithm>

namespace parvis::cuda {

int samplingThreads(int vocabulary) { return std::clamp((vocabulary / 16 + 31) / 32 * 32, 128, 1024); }

cudaError_t norm(const Device& device, const NormedRows& n, const Behind& to) {
  const StepStream stream = device.steps();
  if (to.squares) return weigh({n.x, n.xStride, n.from, n.rows, n.dim, to.weighted(n.weight), rowThreads}, stream);
  return norm({n.x, n.xStride, n.from, n.rows, n.dim, n.weight, n.eps, static_cast<float*>(to.elements), to.stride, rowThreads}, stream);
}

cudaError_t multiply(const Device& device, Element element, Projection p, const Matrix& w) {
  const StepStream stream = device.steps();
  p.weights = w.packed;
  p.processors = device.processors();
  p.prefetched = device.prefetched();
  if (element == Element::float32) return projectPlain(p, w.plain, w.inputs, stream);
  return p.rows <= mostSkinnyRows ? project(p, stream) : projectTiled(p, stream);
}

cudaError_t attendCached(const Device& device, Element element, const Attention& a) {
  const StepStream stream = device.steps();
  if (element == Element::float32) return attendPlain(a, stream);
  return a.rows.count * (a.heads / a.kvHeads) > mostSplitQueries ? attendRows(a, stream) : attend(a, stream);
}

int splitRows(int maxRows, int heads, int kvHeads) { return std::max(1, std::min(maxRows, mostSplitQueries / std::max(1, heads / kvHeads))); }

}  // namespace parvis::cuda
