#include "tensors.h"

#include <cstring>
#include <memory>

#include "floats.h"

namespace parvis {

static std::string shapeText(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

Status Tensors::open(const std::string& file, const std::vector<TensorSource>& tensors) {
  for (const auto& t : tensors) byName_[t.name] = t;
  return file_.open(file);
}

void Tensors::add(const std::string& name, std::vector<int64_t> shape, const float* data) {
  byName_[name] = {name, DType::float32, std::move(shape), 0, {}};
  inMemory_[name] = data;
}

const TensorSource* Tensors::find(const std::string& name, const std::vector<int64_t>& shape) {
  const auto at = byName_.find(name);
  if (at != byName_.end() && at->second.shape == shape) return &at->second;
  if (status.ok())
    status = at == byName_.end()
                 ? Status{Code::badCheckpoint, file_.path() + ": tensor " + name + " is missing; " + shapeText(shape) + " expected."}
                 : Status{Code::badCheckpoint, file_.path() + ": tensor " + name + " has shape " + shapeText(at->second.shape) + "; " + shapeText(shape) + " expected."};
  return nullptr;
}

int64_t Tensors::rowElements(const TensorSource& t) {
  int64_t rest = 1;
  for (size_t i = 1; i < t.shape.size(); i++) rest *= t.shape[i];
  return rest;
}

bool Tensors::contiguous(const TensorSource& t) {
  int64_t expected = 1;
  for (size_t i = t.shape.size(); i-- > 0 && !t.strides.empty();) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

Status Tensors::stored(const TensorSource& t, int64_t begin, int64_t end, void* out) const {
  const int64_t rest = rowElements(t);
  const size_t item = byteSize(t.dtype);
  if (const auto at = inMemory_.find(t.name); at != inMemory_.end()) {
    std::memcpy(out, at->second + begin * rest, static_cast<size_t>((end - begin) * rest) * item);
    return {};
  }
  return file_.read(out, static_cast<size_t>((end - begin) * rest) * item, t.offset + static_cast<uint64_t>(begin * rest) * item);
}

Status Tensors::rows(const TensorSource& t, int64_t begin, int64_t end, float* out) const {
  const size_t item = byteSize(t.dtype), count = static_cast<size_t>((end - begin) * rowElements(t));
  if (contiguous(t)) {
    if (t.dtype == DType::float32) return stored(t, begin, end, out);
    const auto raw = std::make_unique_for_overwrite<uint16_t[]>(count);
    Status s = stored(t, begin, end, raw.get());
    if (s.ok()) widen(raw.get(), t.dtype, out, count);
    return s;
  }
  // Not contiguous: read what the rows span, gather.
  int64_t span = 1;
  for (size_t i = 1; i < t.shape.size(); i++) span += (t.shape[i] - 1) * t.strides[i];
  span += (end - begin - 1) * t.strides[0];
  std::vector<uint8_t> raw(static_cast<size_t>(span) * item);
  Status s = file_.read(raw.data(), raw.size(), t.offset + static_cast<uint64_t>(begin * t.strides[0]) * item);
  if (!s.ok()) return s;
  for (size_t i = 0; i < count; i++) {
    int64_t left = static_cast<int64_t>(i), at = 0;
    for (size_t axis = t.shape.size(); axis-- > 0;) {
      const int64_t size = axis == 0 ? end - begin : t.shape[axis];
      at += left % size * t.strides[axis];
      left /= size;
    }
    widen(raw.data() + static_cast<size_t>(at) * item, t.dtype, out + i, 1);
  }
  return {};
}

}  // namespace parvis
