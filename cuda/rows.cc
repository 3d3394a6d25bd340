#include "rows.h"

#include <algorithm>

namespace parvis::cuda {

int samplingThreads(int vocabulary) { return std::clamp((vocabulary / 16 + 31) / 32 * 32, 128, 1024); }

void Launcher::norm(const Residual& x, const int32_t* from, int rows, const RowNorm& n, const NormedRows& to) {
  if (!ok()) return;
  if (!to.squares)
    status = cuda::norm({n.kind, x.x, x.stride, from, rows, x.dim, n.weight, n.bias, n.eps, element_, to.elements,
                         to.stride, rowThreads},
                        stream_);
  else if (from) status = weigh({x.x, x.stride, from, rows, x.dim, to.normInput(n.weight), rowThreads}, stream_);
}

void Launcher::normInPlace(const Residual& x, int rows, const RowNorm& n, const float* nextWeight,
                           const NormedRows& to) {
  if (ok())
    status = cuda::norm({n.kind, x.x, x.stride, nullptr, rows, x.dim, n.weight, n.bias, n.eps, Element::float32, x.x,
                         x.stride, rowThreads},
                        stream_);
  if (ok() && to.squares)
    status = weigh({x.x, x.stride, nullptr, rows, x.dim, to.normInput(nextWeight), rowThreads}, stream_);
}

void Launcher::project(const NormedRows& from, float eps, Projection p, const Matrix& w) {
  p.squares = from.squares;
  p.eps = eps;
  project(from.elements, from.stride, p, w);
}

void Launcher::project(const void* elements, ptrdiff_t stride, Projection p, const Matrix& w) {
  p.elements = elements;
  p.xStride = stride;
  multiply(p, w);
}

void Launcher::multiply(Projection p, const Matrix& w) {
  if (!ok()) return;
  p.bias = w.bias;
  p.processors = device_.processors();
  p.prefetched = device_.prefetched();
  switch (w.format) {
    case WeightFormat::float32: status = projectPlain(p, w.plain(), w.inputs, stream_); break;
    case WeightFormat::bfloat16:
      p.weights = w.packed();
      status = p.rows <= maxSkinnyRows ? cuda::project(p, stream_) : projectTiled(p, stream_);
      break;
  }
}

void Launcher::attend(Attention a, int maxSmall, int maxLarge) {
  if (element_ == Element::float32) {
    if (ok()) status = attendPlain(a, stream_);
    return;
  }
  if (ok() && maxSmall > 0) {
    a.leastQueries = 1, a.maxQueries = maxSmall;
    status = cuda::attend(a, stream_);
  }
  if (ok() && maxLarge > 0) {
    a.leastQueries = maxSplitQueries + 1, a.maxQueries = maxLarge;
    status = attendRows(a, stream_);
  }
}

}  // namespace parvis::cuda
