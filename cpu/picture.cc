#include "picture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "../common/launches.h"
#include "launch-timer.h"
#include "rows.h"

namespace parvis::cpu {

// ---- pool ---------------------------------------------------------------------------------------------------

Buffer::~Buffer() {
  if (pool_ && memory_.data()) pool_->give(std::move(memory_));
}

Status Pool::take(size_t bytes, Buffer& out) {
  // The smallest free buffer that fits and is not more than twice too large.
  const auto fits = [&](const Free& f) { return f.memory.bytes() >= bytes && f.memory.bytes() <= 2 * bytes + 4096; };
  size_t best = free_.size();
  for (size_t i = 0; i < free_.size(); i++)
    if (fits(free_[i]) && (best == free_.size() || free_[i].memory.bytes() < free_[best].memory.bytes())) best = i;
  Memory m;
  if (best < free_.size()) {
    m = std::move(free_[best].memory);
    free_.erase(free_.begin() + static_cast<ptrdiff_t>(best));
  } else {
    if (Status s = Memory::allocate(bytes, "The tokenizer's pictures", m); !s.ok()) {
      // What is kept for other sizes goes first.
      free_.clear();
      if (s = Memory::allocate(bytes, "The tokenizer's pictures", m); !s.ok()) return s;
    }
  }
  out = Buffer(this, std::move(m));
  return {};
}

void Pool::rest() {
  std::erase_if(free_, [](const Free& f) { return !f.used; });
  for (Free& f : free_) {
    f.used = false;
    f.memory.rest();
  }
}

bool PictureRunner::ok() {
  if (status.ok() && cancel_.load(std::memory_order_relaxed)) status = cancelled();
  return status.ok();
}

Picture PictureRunner::make(int height, int width, int channels) {
  Picture p;
  p.height = height;
  p.width = width;
  p.channels = channels;
  if (ok()) status = pool_.take((p.size() + 64) * sizeof(float), p.buffer);
  return p;
}

// ---- group norm ---------------------------------------------------------------------------------------------

// Per channel factors such that norm(x) = x * scale + shift.
void PictureRunner::statistics(const Picture& x, const GroupNorm& n, Factors& factors) {
  const int channels = x.channels, tasks = std::min(x.height, 64);
  // Each task its own sums, added in task order: the result does not depend on the threads.
  std::vector<double> sums(static_cast<size_t>(tasks) * channels * 2, 0.0);
  threads_.run(tasks, [&](int task, int) {
    if (cancel_.load(std::memory_order_relaxed)) return;
    double* s = sums.data() + static_cast<size_t>(task) * channels * 2;
    const int begin = x.height * task / tasks, end = x.height * (task + 1) / tasks;
    kernels().sums(x.data() + static_cast<size_t>(begin) * x.width * channels, (end - begin) * x.width, channels, s,
                   s + channels);
  });
  std::vector<float>&scale = factors.scale, &shift = factors.shift;
  scale.resize(channels);
  shift.resize(channels);
  const int size = channels / groups_;
  const double count = static_cast<double>(x.height) * x.width * size;
  for (int g = 0; g < groups_; g++) {
    double sum = 0, squares = 0;
    for (int task = 0; task < tasks; task++)
      for (int c = g * size; c < (g + 1) * size; c++) {
        sum += sums[static_cast<size_t>(task) * channels * 2 + c];
        squares += sums[static_cast<size_t>(task) * channels * 2 + channels + c];
      }
    const double mean = sum / count, variance = std::max(0.0, squares / count - mean * mean);
    const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(eps_));
    for (int c = g * size; c < (g + 1) * size; c++) {
      scale[c] = static_cast<float>(inverse * n.scale[c]);
      shift[c] = static_cast<float>(n.shift[c] - mean * inverse * n.scale[c]);
    }
  }
}

// ---- convolution --------------------------------------------------------------------------------------------

static PictureShape shapeOf(const Picture& x) { return {1, x.height, x.width, x.channels}; }

Picture PictureRunner::convolve(const Picture& x, const ConvolutionWeights& c, const GroupNorm* norm, bool swish,
                                Resample resample, const Picture* residual) {
  const int repeat = resample == Resample::up ? 2 : 1, stride = resample == Resample::down ? 2 : 1;
  const size_t item = elementSize(element_);
  Picture y = make(x.height * repeat / stride, x.width * repeat / stride, c.outputs);
  Factors factors;
  if (norm && ok())
    timed(
        profile_, [&] { return groupNormLaunch(shapeOf(x), false, item); }, [&] { statistics(x, *norm, factors); });
  if (ok()) {
    const bool normed = norm != nullptr, added = residual != nullptr;
    timed(
        profile_,
        [&] {
          return convolutionLaunch({shapeOf(x), shapeOf(y), c.kernel, normed, added}, item);
        },
        [&] { convolve(x, c, norm ? &factors : nullptr, swish, resample, residual, y); });
  }
  return y;
}

void PictureRunner::convolve(const Picture& x, const ConvolutionWeights& c, const Factors* factors, bool swish,
                             Resample resample, const Picture* residual, Picture& y) {
  const int repeat = resample == Resample::up ? 2 : 1, stride = resample == Resample::down ? 2 : 1;
  const int inHeight = x.height * repeat, inWidth = x.width * repeat;
  const size_t item = elementSize(element_);
  // The border: one pixel around, or (down-sampling) right and bottom only; none for 1x1.
  const int before = c.kernel == 3 && stride == 1 ? 1 : 0, border = c.kernel == 3 ? (stride == 1 ? 2 : 1) : 0;
  const ptrdiff_t pixel = c.padded, row = (inWidth + border) * pixel;
  const bool direct = c.kernel == 1 && !factors && !swish && element_ == Element::float32 && c.padded == x.channels;
  Buffer staged;
  const void* input = x.data();
  if (!direct) {
    status = pool_.take(static_cast<size_t>(inHeight + border) * row * item + 256, staged);
    if (!status.ok()) return;
    const auto kernel = kernels().stage[static_cast<int>(element_)];
    const size_t rowBytes = static_cast<size_t>(row) * item;
    const int rows = inHeight + border, block = std::max(1, std::min(8, rows / (threads_.count() * 4)));
    threads_.run((rows + block - 1) / block, [&](int task, int) {
      if (cancel_.load(std::memory_order_relaxed)) return;
      for (int r = task * block; r < std::min(rows, (task + 1) * block); r++) {
        uint8_t* to = staged.data() + rowBytes * r;
        const int source = r - before;
        if (source < 0 || source >= inHeight) {
          std::memset(to, 0, rowBytes);
          continue;
        }
        const size_t pixelBytes = static_cast<size_t>(pixel) * item;
        std::memset(to, 0, pixelBytes * before);
        std::memset(to + pixelBytes * (before + inWidth), 0, pixelBytes * (border - before));
        kernel({x.data() + static_cast<size_t>(source / repeat) * x.width * x.channels, x.width, x.channels,
                factors ? factors->scale.data() : nullptr, factors ? factors->shift.data() : nullptr, swish, nullptr,
                repeat, to + pixelBytes * before, c.padded});
      }
    });
    input = staged.data();
  }
  if (!ok()) return;
  multiply({{input},
            1,
            row,
            c.padded,
            c.kernel,
            stride,
            c.w.data,
            c.outputs,
            c.bias,
            residual ? residual->data() : nullptr,
            {y.data()},
            y.width},
           c.w, y.height, static_cast<size_t>(row) * item, threads_, cancel_);
}

void multiply(const Convolution& work, const Matrix& w, int height, size_t rowBytes, Threads& threads,
              const Cancel& cancel) {
  const auto kernel = kernels().convolve[static_cast<int>(w.format)];
  // A task is a block of rows whose input stays in the second-level cache, all panels over it. A row of a very wide
  // picture is work enough between two looks at a cancellation.
  int block =
      static_cast<int>(std::clamp<size_t>((512u << 10) / (rowBytes * work.stride), rowBytes > (2u << 20) ? 1 : 2, 32));
  block = std::min(block, std::max(1, height / threads.count()));
  const int blocks = (height + block - 1) / block;
  // Small pictures have more weights than pixels: hand out panels.
  const bool byPanel = w.bytes() > static_cast<size_t>(height) * rowBytes * work.frames;
  const int tasks = byPanel ? w.panels : blocks;
  threads.run(tasks, [&](int task, int) {
    if (cancel.load(std::memory_order_relaxed)) return;
    if (byPanel) kernel(work, task, task + 1, 0, height);
    else kernel(work, 0, w.panels, task * block, std::min(height, (task + 1) * block));
  });
}

Picture PictureRunner::layer(Picture x, const ConvolutionLayer<GroupNorm, ConvolutionWeights>& l, bool) {
  return convolve(x, l.convolution, l.normed ? &l.norm : nullptr, l.normed, l.resample);
}

Picture PictureRunner::layer(Picture x, const ResidualLayer<GroupNorm, ConvolutionWeights>& r, bool) {
  const Picture h = convolve(x, r.conv1, &r.norm1, true);
  if (r.shortcut.outputs > 0) {
    const Picture short_ = convolve(x, r.shortcut, nullptr, false);
    return convolve(h, r.conv2, &r.norm2, true, Resample::none, &short_);
  }
  return convolve(h, r.conv2, &r.norm2, true, Resample::none, &x);
}

// ---- attention ----------------------------------------------------------------------------------------------

Picture PictureRunner::layer(Picture x, const AttentionLayer<GroupNorm, ConvolutionWeights>& a, bool) {
  const Picture q = convolve(x, a.q, &a.norm, false), k = convolve(x, a.k, &a.norm, false),
                v = convolve(x, a.v, &a.norm, false);
  Picture out = make(x.height, x.width, x.channels);
  if (!ok()) return out;
  timed(
      profile_, [&] { return pixelAttentionLaunch(shapeOf(x), elementSize(element_)); }, [&] { attend(q, k, v, out); });
  return convolve(out, a.out, nullptr, false, Resample::none, &x);
}

void PictureRunner::attend(const Picture& q, const Picture& k, const Picture& v, Picture& out) {
  const int count = out.height * out.width, width = out.channels, slots = roundUp(count, 32);
  const int step = inputStep(element_);
  const size_t item = elementSize(element_);
  const int keyGroups = (width + step - 1) / step;
  const size_t keyPanel = static_cast<size_t>(keyGroups) * groupBytes,
               valuePanel = static_cast<size_t>(slots / step) * groupBytes;
  const int valuePanels = roundUp(width, 32) / 32;
  const size_t scratchBytes = attentionScratch(slots, width);
  const ptrdiff_t qStride = roundUp(width, 32);
  Buffer keys, values, queries, scratch;
  if (!(status = pool_.take(keyPanel * (slots / 32), keys)).ok() ||
      !(status = pool_.take(valuePanel * valuePanels, values)).ok() ||
      !(status = pool_.take(static_cast<size_t>(count) * qStride * item, queries)).ok() ||
      !(status = pool_.take(scratchBytes * threads_.count(), scratch)).ok())
    return;
  const auto toElements = kernels().toElements[static_cast<int>(element_)];
  const int keyPanels = slots / 32, queryBlocks = (count + 31) / 32;
  std::vector<std::vector<float>> columns(threads_.count(), std::vector<float>(static_cast<size_t>(32) * slots));
  threads_.run(keyPanels + valuePanels + queryBlocks, [&](int task, int thread) {
    if (cancel_.load(std::memory_order_relaxed)) return;
    if (task < keyPanels) {
      const int begin = task * 32;
      packPanel(k.data() + static_cast<size_t>(begin) * width, width, std::clamp(count - begin, 0, 32), width,
                formatOf(element_), keys.data() + keyPanel * task);
    } else if ((task -= keyPanels) < valuePanels) {
      float* turned = columns[thread].data();  // [32 channels, slots]
      const int begin = task * 32, valid = std::min(32, width - begin);
      std::fill(turned, turned + static_cast<size_t>(32) * slots, 0.0f);
      for (int p = 0; p < count; p++)
        for (int c = 0; c < valid; c++)
          turned[static_cast<size_t>(c) * slots + p] = v.data()[static_cast<size_t>(p) * width + begin + c];
      packPanel(turned, slots, valid, slots, formatOf(element_), values.data() + valuePanel * task);
    } else {
      task -= valuePanels;
      for (int p = task * 32; p < std::min(count, task * 32 + 32); p++) {
        uint8_t* to = queries.data() + static_cast<size_t>(p) * qStride * item;
        toElements(q.data() + static_cast<size_t>(p) * width, to, width);
        std::memset(to + width * item, 0,
                    (qStride - width) * item);  // the pool's memory is not zero, and an odd width reads one more
      }
    }
  });
  const CacheHead cache{keys.data(), values.data(), slots};
  const auto kernel = kernels().attendPlain[static_cast<int>(element_)];
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  const int block = inTiles(int64_t{count} * width, 32);
  threads_.run((count + block - 1) / block, [&](int task, int thread) {
    if (cancel_.load(std::memory_order_relaxed)) return;
    const int begin = task * block, size = std::min(block, count - begin);
    kernel(queries.data() + static_cast<size_t>(begin) * qStride * item, qStride, size, width, cache, count, scale,
           out.data() + static_cast<size_t>(begin) * width, width, scratch.data() + scratchBytes * thread);
  });
}

}  // namespace parvis::cpu
