#include "tensors.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>

#include "floats.h"

namespace parvis {

static std::string shapeText(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

// A part of a fused matrix, or every other row, is spread over a few times its own size.
constexpr int64_t maxSpread = 16, smallSpan = 1 << 16;
// Threads read the two halves of a gate while others are at the next tensor. A copy goes when its rows have been read.
// One more than these takes the place of the one that was used longest ago, which is read again if a thread still needs
// it.
constexpr size_t copiesKept = 4;

static int64_t elementsOf(const TensorSource& t) {
  int64_t count = 1;
  for (const int64_t size : t.shape) count *= size;
  return count;
}

// Elements from the first to the last, both included.
static int64_t spanOf(const TensorSource& t) {
  int64_t span = 1;
  for (size_t i = 0; i < t.shape.size(); i++) span += (t.shape[i] - 1) * t.strides[i];
  return span;
}

static int64_t rowElementsOf(const TensorSource& t) {
  int64_t rest = 1;
  for (size_t i = 1; i < t.shape.size(); i++) rest *= t.shape[i];
  return rest;
}

static bool contiguous(const TensorSource& t) {
  int64_t expected = 1;
  for (size_t i = t.shape.size(); i-- > 0 && !t.strides.empty();) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

int64_t Weight::rows() const {
  int64_t all = 0;
  for (const TensorSource& part : parts) all += part.shape[0];
  return all;
}

int64_t Weight::rowElements() const { return rowElementsOf(parts[0]); }

bool Weight::uniform() const {
  return std::all_of(parts.begin(), parts.end(),
                     [&](const TensorSource& part) { return part.dtype == parts[0].dtype && contiguous(part); });
}

bool Weight::quantized() const {
  return std::all_of(parts.begin(), parts.end(), [](const TensorSource& part) { return part.dtype == DType::int8; });
}

Status Tensors::open(const CheckpointFile& file, const std::vector<WeightSource>& weights, const Cancel& cancel) {
  cancel_ = &cancel;
  for (const WeightSource& w : weights) byRole_[w.role] = {w.role, w.parts};
  return file_.open(file);
}

const Weight* Tensors::find(const std::string& role, const std::vector<int64_t>& shape) {
  const auto bad = [&](const std::string& what) {
    if (status.ok()) status = {Code::badCheckpoint, file_.path() + ": " + what};
    return nullptr;
  };
  const auto at = byRole_.find(role);
  if (at == byRole_.end() || at->second.parts.empty())
    return bad("tensor " + role + " is missing; " + shapeText(shape) + " expected.");
  const Weight& weight = at->second;
  std::vector<int64_t> found = weight.parts[0].shape;
  found[0] = weight.rows();
  for (const TensorSource& part : weight.parts)
    if (!std::equal(part.shape.begin() + 1, part.shape.end(), shape.begin() + 1, shape.end())) found = part.shape;
  if (found != shape)
    return bad("tensor " + weight.parts[0].name + " has shape " + shapeText(found) + "; " + shapeText(shape) +
               " expected.");
  for (const TensorSource& part : weight.parts) {
    if (contiguous(part)) continue;
    if (spanOf(part) > elementsOf(part) * maxSpread + smallSpan)
      return bad("tensor " + part.name + " has " + std::to_string(elementsOf(part)) +
                 " elements that lie spread over " + std::to_string(spanOf(part)) +
                 " elements of the file, more than " + std::to_string(maxSpread) +
                 " times as many. Save it again after .contiguous().");
    strided_.push_back(static_cast<size_t>(elementsOf(part)) * byteSize(part.dtype));
  }
  return &weight;
}

Status Tensors::storedOf(const TensorSource& t, int64_t begin, int64_t end, void* out) const {
  const int64_t rest = rowElementsOf(t);
  const size_t item = byteSize(t.dtype);
  return file_.read(out, static_cast<size_t>((end - begin) * rest) * item,
                    t.offset + static_cast<uint64_t>(begin * rest) * item);
}

Status Tensors::scalesOf(const TensorSource& t, int64_t begin, int64_t end, float* out) const {
  const int64_t groups = scaleGroups(rowElementsOf(t)), count = (end - begin) * groups;
  if (Status s = file_.read(out, static_cast<size_t>(count) * sizeof(float),
                            t.scales + static_cast<uint64_t>(begin * groups) * sizeof(float));
      !s.ok())
    return s;
  // Products of what is larger are not finite for one number alone.
  constexpr float largest = std::numeric_limits<float>::max() / 128;
  const float* bad = std::find_if(out, out + count, [](float scale) { return !(scale > 0 && scale <= largest); });
  if (bad == out + count) return {};
  char found[32];
  std::snprintf(found, sizeof found, "%g", static_cast<double>(*bad));
  return {Code::badCheckpoint, file_.path() + ": the scales of tensor " + t.name +
                                   " must be positive, at most 2.6e36, but row " +
                                   std::to_string(begin + (bad - out) / groups) + " has " + found +
                                   ". The file is damaged: convert it again."};
}

Status Tensors::rowsOf(const TensorSource& t, int64_t begin, int64_t end, float* out) const {
  const size_t item = byteSize(t.dtype), count = static_cast<size_t>((end - begin) * rowElementsOf(t));
  if (contiguous(t)) {
    if (t.dtype == DType::float32) return storedOf(t, begin, end, out);
    if (t.dtype == DType::int8) {
      const int64_t inputs = rowElementsOf(t), groups = scaleGroups(inputs);
      const auto raw = std::make_unique_for_overwrite<int8_t[]>(count);
      const auto scales = std::make_unique_for_overwrite<float[]>(static_cast<size_t>((end - begin) * groups));
      if (Status s = storedOf(t, begin, end, raw.get()); !s.ok()) return s;
      if (Status s = scalesOf(t, begin, end, scales.get()); !s.ok()) return s;
      for (int64_t row = 0; row < end - begin; row++)
        dequantizeRow(raw.get() + row * inputs, scales.get() + row * groups, inputs, out + row * inputs);
      return {};
    }
    const auto raw = std::make_unique_for_overwrite<uint16_t[]>(count);
    Status s = storedOf(t, begin, end, raw.get());
    if (s.ok()) widen(raw.get(), t.dtype, out, count);
    return s;
  }
  std::shared_ptr<Copy> copy;
  if (Status s = straighten(t, copy); !s.ok()) return s;
  widen(copy->data.get() + static_cast<size_t>(begin * rowElementsOf(t)) * item, t.dtype, out, count);
  used(copy, end - begin);
  return {};
}

// Calls read(part, begin, end, out) for the rows of each part that lie in [begin, end).
template <class Read>
static Status overParts(const Weight& w, int64_t begin, int64_t end, uint8_t* out, size_t item, Read&& read) {
  int64_t first = 0;
  for (const TensorSource& part : w.parts) {
    const int64_t from = std::max(begin, first) - first, to = std::min(end, first + part.shape[0]) - first;
    if (from < to) {
      if (Status s = read(part, from, to, out); !s.ok()) return s;
      out += static_cast<size_t>((to - from) * w.rowElements()) * item;
    }
    first += part.shape[0];
  }
  return {};
}

Status Tensors::rows(const Weight& w, int64_t begin, int64_t end, float* out) const {
  return overParts(w, begin, end, reinterpret_cast<uint8_t*>(out), sizeof(float),
                   [&](const TensorSource& part, int64_t from, int64_t to, uint8_t* at) {
                     return rowsOf(part, from, to, reinterpret_cast<float*>(at));
                   });
}

Status Tensors::stored(const Weight& w, int64_t begin, int64_t end, void* out) const {
  return overParts(
      w, begin, end, static_cast<uint8_t*>(out), byteSize(w.type()),
      [&](const TensorSource& part, int64_t from, int64_t to, uint8_t* at) { return storedOf(part, from, to, at); });
}

Status Tensors::quantized(const Weight& w, int64_t begin, int64_t end, int8_t* out, float* scales) const {
  return overParts(w, begin, end, reinterpret_cast<uint8_t*>(out), 1,
                   [&](const TensorSource& part, int64_t from, int64_t to, uint8_t* at) {
                     if (Status s = scalesOf(part, from, to, scales); !s.ok()) return s;
                     scales += (to - from) * scaleGroups(rowElementsOf(part));
                     return storedOf(part, from, to, at);
                   });
}

void Tensors::used(const std::shared_ptr<Copy>& copy, int64_t rows) const {
  const std::lock_guard lock(mutex_);
  copy->rowsLeft -= rows;
  const auto at = std::find(copies_.begin(), copies_.end(), copy);
  if (at == copies_.end()) return;
  copies_.erase(at);
  if (copy->rowsLeft > 0) copies_.push_back(copy);
}

size_t Tensors::copyBytes() const {
  std::vector<size_t> sizes = strided_;
  std::sort(sizes.rbegin(), sizes.rend());
  return std::accumulate(sizes.begin(), sizes.begin() + static_cast<ptrdiff_t>(std::min(sizes.size(), copiesKept)),
                         size_t{0});
}

// The tensor row by row. Its axes are walked in the order of the file, the widest step first, so that the file is read
// once from front to back, in pieces.
Status Tensors::straighten(const TensorSource& t, std::shared_ptr<Copy>& out) const {
  const std::lock_guard lock(mutex_);
  for (const auto& c : copies_)
    if (c->tensor == &t) {
      out = c;
      return {};
    }
  constexpr int64_t pieceBytes = 4 << 20;
  const int64_t item = static_cast<int64_t>(byteSize(t.dtype)), piece = pieceBytes / item;
  struct Axis {
    int64_t size, from, to;  // elements between neighbours, in the file and in the copy
  };
  std::vector<Axis> axes;
  int64_t step = 1;
  for (size_t i = t.shape.size(); i-- > 0; step *= t.shape[i])
    if (t.shape[i] != 1) axes.push_back({t.shape[i], t.strides[i], step});
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.from < b.from; });
  // As many of the inner axes as span no more than a piece, and of the next one as much as does.
  size_t inner = 0;
  int64_t span = 1, count = 1;
  while (inner < axes.size() && span + (axes[inner].size - 1) * axes[inner].from <= piece) {
    span += (axes[inner].size - 1) * axes[inner].from;
    count *= axes[inner++].size;
  }
  int64_t together = 1;
  if (inner < axes.size())
    together = std::clamp<int64_t>(1 + (piece - span) / std::max<int64_t>(axes[inner].from, 1), 1, axes[inner].size);
  auto copy = std::make_shared<Copy>();
  copy->tensor = &t;
  copy->rowsLeft = t.shape[0];
  copy->data = std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(step * item));
  std::vector<uint8_t> raw(
      static_cast<size_t>((span + (inner < axes.size() ? (together - 1) * axes[inner].from : 0)) * item));
  std::vector<int64_t> at(axes.size());  // where the outer axes stand
  for (;;) {
    if (cancel_ && cancel_->load(std::memory_order_relaxed)) return cancelled();
    int64_t from = 0, to = 0;
    for (size_t i = inner; i < axes.size(); i++) {
      from += at[i] * axes[i].from;
      to += at[i] * axes[i].to;
    }
    const int64_t some = inner < axes.size() ? std::min(together, axes[inner].size - at[inner]) : 1;
    const int64_t wide = inner < axes.size() ? (some - 1) * axes[inner].from : 0;
    if (Status s = file_.read(raw.data(), static_cast<size_t>((span + wide) * item),
                              t.offset + static_cast<uint64_t>(from * item));
        !s.ok())
      return s;
    // The innermost axis in short runs, each for all of the outer ones that were read: neither side strides far, which
    // is what a transposed matrix costs otherwise.
    constexpr int64_t run = 64;
    const Axis first = inner > 0 ? axes[0] : Axis{1, 0, 0}, next = inner < axes.size() ? axes[inner] : Axis{1, 0, 0};
    for (int64_t line = 0; line < count / first.size; line++) {
      int64_t left = line, source = 0, target = to;
      for (size_t i = 1; i < inner; i++) {
        source += left % axes[i].size * axes[i].from;
        target += left % axes[i].size * axes[i].to;
        left /= axes[i].size;
      }
      for (int64_t begin = 0; begin < first.size; begin += run)
        for (int64_t k = 0; k < some; k++) {
          const uint8_t* read = raw.data() + (source + begin * first.from + k * next.from) * item;
          uint8_t* write = copy->data.get() + (target + begin * first.to + k * next.to) * item;
          const int64_t length = std::min(run, first.size - begin);
          if (item == 4)
            for (int64_t i = 0; i < length; i++) std::memcpy(write + i * first.to * 4, read + i * first.from * 4, 4);
          else
            for (int64_t i = 0; i < length; i++) std::memcpy(write + i * first.to * 2, read + i * first.from * 2, 2);
        }
    }
    size_t i = inner;
    for (; i < axes.size(); i++) {
      at[i] += i == inner ? some : 1;
      if (at[i] < axes[i].size) break;
      at[i] = 0;
    }
    if (i >= axes.size()) break;
  }
  if (copies_.size() == copiesKept) copies_.erase(copies_.begin());
  copies_.push_back(copy);
  out = std::move(copy);
  return {};
}

}  // namespace parvis
