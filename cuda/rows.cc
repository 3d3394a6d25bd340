#include "rows.h"

#include <algorithm>

namespace parvis::cuda {

int samplingThreads(int vocabulary) { return std::clamp((vocabulary / 16 + 31) / 32 * 32, 128, 1024); }

cudaError_t multiply(const Device& device, Element element, Projection p, const Matrix& w, void* normed) {
  const StepStream stream = device.steps();
  const bool packed = element == Element::bfloat16, few = packed && p.rows <= mostSkinnyRows;
  if (p.x && !(few && fusible(p.rows, w.inputs))) {
    const cudaError_t e = norm({p.x, p.xStride, nullptr, p.rows, w.inputs, p.normWeight, p.eps, element, normed, p.xStride, rowThreads}, stream);
    if (e != cudaSuccess) return e;
    p.x = nullptr;
    p.elements = normed;
  }
  p.weights = w.packed;
  p.processors = device.processors();
  return !packed ? projectPlain(p, w.plain, w.inputs, stream) : few ? project(p, stream) : projectTiled(p, stream);
}

cudaError_t attendCached(const Device& device, Element element, const Attention& a) {
  const StepStream stream = device.steps();
  if (element == Element::float32) return attendPlain(a, stream);
  return a.rows.count * (a.heads / a.kvHeads) > mostSplitQueries ? attendRows(a, stream) : attend(a, stream);
}

int splitRows(int maxRows, int heads, int kvHeads) { return std::max(1, std::min(maxRows, mostSplitQueries / std::max(1, heads / kvHeads))); }

}  // namespace parvis::cuda
