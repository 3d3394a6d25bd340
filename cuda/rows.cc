#include "rows.h"

#include <algorithm>

namespace parvis::cuda {

int samplingThreads(int vocabulary) { return std::clamp((vocabulary / 16 + 31) / 32 * 32, 128, 1024); }

void Launcher::norm(const Residual& x, const int32_t* from, int rows, const RowNorm& n, const NormedRows& to) {
  if (to.squares && !from) return;
  run([&] { return rowNormLaunch(rows, x.dim, item()); },
      [&] {
        if (to.squares) return weigh({x.x, x.stride, from, rows, x.dim, to.normInput(n.weight), rowThreads}, stream_);
        return cuda::norm({n.kind, x.x, x.stride, from, rows, x.dim, n.weight, n.bias, n.eps, element_, to.elements,
                           to.stride, rowThreads},
                          stream_);
      });
}

void Launcher::normInPlace(const Residual& x, int rows, const RowNorm& n, const float* nextWeight,
                           const NormedRows& to) {
  run([&] { return rowNormLaunch(rows, x.dim, sizeof(float)); },
      [&] {
        const cudaError_t e = cuda::norm({n.kind, x.x, x.stride, nullptr, rows, x.dim, n.weight, n.bias, n.eps,
                                          Element::float32, x.x, x.stride, rowThreads},
                                         stream_);
        if (e != cudaSuccess || !to.squares) return e;
        return weigh({x.x, x.stride, nullptr, rows, x.dim, to.normInput(nextWeight), rowThreads}, stream_);
      });
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
  p.bias = w.bias;
  p.processors = device_.processors();
  p.prefetched = device_.prefetched();
  p.sharedBytes = device_.sharedBytes();
  p.weights = w.packed();
  const auto describe = [&] {
    const bool add = p.epilogue == Epilogue::add, store = p.epilogue == Epilogue::store;
    const bool swiglu = p.epilogue == Epilogue::swiglu, gelu = p.epilogue == Epilogue::gelu;
    const char* then = add ? "added" : swiglu ? "swiglu" : gelu ? "gelu" : "";
    return projectionLaunch(p.rows, w.inputs, w.outputs, then, w.numberBytes(), item(),
                            add      ? 8
                            : store  ? 4
                            : swiglu ? item() / 2
                                     : item());
  };
  run(describe, [&] {
    if (w.format == WeightFormat::float32) return projectPlain(p, w.plain(), w.inputs, stream_);
    return p.rows <= maxSkinnyRows(w.format) ? cuda::project(p, stream_) : projectTiled(p, stream_);
  });
}

void Launcher::attend(Attention a, int maxSmall, int maxLarge, const TransformerModel& model, const SeenSlots& seen) {
  run([&] { return rowAttentionLaunch(seen, model, item(), item()); },
      [&] {
        if (element_ == Element::float32) return attendPlain(a, stream_);
        cudaError_t e = cudaSuccess;
        if (maxSmall > 0) {
          a.leastQueries = 1, a.maxQueries = maxSmall;
          e = cuda::attend(a, stream_);
        }
        if (e == cudaSuccess && maxLarge > 0) {
          a.leastQueries = maxSplitQueries + 1, a.maxQueries = maxLarge;
          e = attendRows(a, stream_);
        }
        return e;
      });
}

}  // namespace parvis::cuda
