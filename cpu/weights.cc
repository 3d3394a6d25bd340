#include "weights.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>

#include "parvis/backend.h"

namespace parvis::cpu {

// ---- element types ------------------------------------------------------------------------------------------

float bf16ToFloat(uint16_t h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

uint16_t floatToBf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40);
  return static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

float halfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  float f;
  if (exponent == 0) {
    f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  const uint32_t u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  std::memcpy(&f, &u, 4);
  return f;
}

uint16_t floatToHalf(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return sign | 0x7e00;
  if (u >= 0x477ff000u) return sign | 0x7c00;  // rounds to infinity
  if (u < 0x38800000u) {                       // subnormal: let float arithmetic round
    float small, magic = 0.5f;
    std::memcpy(&small, &u, 4);
    small += magic;
    std::memcpy(&u, &small, 4);
    return sign | static_cast<uint16_t>(u - 0x3f000000u);
  }
  u += 0xfffu + (u >> 13 & 1);
  return sign | static_cast<uint16_t>((u - 0x38000000u) >> 13);
}

static void widen(const void* from, DType type, float* to, size_t count) {
  const uint16_t* h = static_cast<const uint16_t*>(from);
  if (type == DType::float32) std::memcpy(to, from, count * 4);
  else if (type == DType::float16)
    for (size_t i = 0; i < count; i++) to[i] = halfToFloat(h[i]);
  else
    for (size_t i = 0; i < count; i++) to[i] = bf16ToFloat(h[i]);
}

}  // namespace parvis::cpu

void parvis::convertFloats(const void* from, DType fromType, void* to, DType toType, size_t count) {
  float piece[1024];
  const uint8_t* source = static_cast<const uint8_t*>(from);
  uint8_t* target = static_cast<uint8_t*>(to);
  for (size_t done = 0; done < count; done += 1024) {
    const size_t size = std::min<size_t>(1024, count - done);
    cpu::widen(source + done * byteSize(fromType), fromType, piece, size);
    uint8_t* out = target + done * byteSize(toType);
    uint16_t* half = reinterpret_cast<uint16_t*>(out);
    if (toType == DType::float32) std::memcpy(out, piece, size * 4);
    else
      for (size_t i = 0; i < size; i++) half[i] = toType == DType::float16 ? cpu::floatToHalf(piece[i]) : cpu::floatToBf16(piece[i]);
  }
}

namespace parvis::cpu {

// ---- packing ------------------------------------------------------------------------------------------------

Packed packedShape(int outputs, int inputs, Element element) {
  Packed p;
  p.outputs = outputs;
  p.inputs = inputs;
  p.panels = (outputs + panelOutputs - 1) / panelOutputs;
  p.groups = (inputs + inputStep(element) - 1) / inputStep(element);
  return p;
}

void packPanel(const float* rows, ptrdiff_t stride, int valid, int inputs, Element element, uint8_t* panel) {
  if (element == Element::float32) {
    float* out = reinterpret_cast<float*>(panel);
    for (int k = 0; k < inputs; k++)
      for (int o = 0; o < panelOutputs; o++) out[k * panelOutputs + o] = o < valid ? rows[o * stride + k] : 0.0f;
    return;
  }
  uint32_t* out = reinterpret_cast<uint32_t*>(panel);
  const int groups = (inputs + 1) / 2;
  for (int block = 0; block < groups; block += 16) {  // short runs of each row, so that neither side strides far
    const int end = std::min(groups, block + 16);
    for (int o = 0; o < panelOutputs; o++) {
      const float* row = rows + o * stride;
      for (int g = block; g < end; g++) {
        const uint32_t even = o < valid ? floatToBf16(row[2 * g]) : 0;
        const uint32_t odd = o < valid && 2 * g + 1 < inputs ? floatToBf16(row[2 * g + 1]) : 0;
        out[g * panelOutputs + o] = even | odd << 16;
      }
    }
  }
}

// ---- reading ------------------------------------------------------------------------------------------------

static std::string shapeText(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

Status Weights::open(const std::string& file, const std::vector<TensorSource>& tensors) {
  for (const auto& t : tensors) byName_[t.name] = t;
  return file_.open(file);
}

const TensorSource* Weights::find(const std::string& name, const std::vector<int64_t>& shape) {
  const auto at = byName_.find(name);
  if (at != byName_.end() && at->second.shape == shape) return &at->second;
  if (status.ok())
    status = at == byName_.end()
                 ? Status{Code::badCheckpoint, file_.path() + ": tensor " + name + " is missing; " + shapeText(shape) + " expected."}
                 : Status{Code::badCheckpoint, file_.path() + ": tensor " + name + " has shape " + shapeText(at->second.shape) + "; " + shapeText(shape) + " expected."};
  return nullptr;
}

Status Weights::rows(const TensorSource& t, int64_t begin, int64_t end, float* out) const {
  int64_t rest = 1;
  for (size_t i = 1; i < t.shape.size(); i++) rest *= t.shape[i];
  const size_t item = byteSize(t.dtype), count = static_cast<size_t>((end - begin) * rest);
  int64_t expected = 1;
  bool contiguous = true;
  for (size_t i = t.shape.size(); i-- > 0 && !t.strides.empty();) {
    if (t.shape[i] != 1 && t.strides[i] != expected) contiguous = false;
    expected *= t.shape[i];
  }
  if (contiguous) {
    const uint64_t offset = t.offset + static_cast<uint64_t>(begin * rest) * item;
    if (t.dtype == DType::float32) return file_.read(out, count * item, offset);
    const auto raw = std::make_unique_for_overwrite<uint16_t[]>(count);
    Status s = file_.read(raw.get(), count * item, offset);
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

// ---- plans --------------------------------------------------------------------------------------------------

void Loader::matrix(Packed& to, const std::string& name, int outputs, int inputs) {
  const TensorSource* t = weights_.find(name, {outputs, inputs});
  to = packedShape(outputs, inputs, element_);
  if (!t) return;
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, int64_t{panelOutputs} * inputs,
       [this, t, outputs, inputs, panelBytes = to.panelBytes()](uint8_t* base, int panel, float* scratch) {
         const int begin = panel * panelOutputs, end = std::min(outputs, begin + panelOutputs);
         Status s = weights_.rows(*t, begin, end, scratch);
         if (s.ok()) packPanel(scratch, inputs, end - begin, inputs, element_, base + panel * panelBytes);
         return s;
       }});
}

void Loader::gateUp(Packed& to, const std::string& gate, const std::string& up, int outputs, int inputs) {
  const TensorSource* g = weights_.find(gate, {outputs, inputs});
  const TensorSource* u = weights_.find(up, {outputs, inputs});
  to = packedShape((outputs + 15) / 16 * 32, inputs, element_);
  if (!g || !u) return;
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, int64_t{panelOutputs} * inputs,
       [this, g, u, outputs, inputs, panelBytes = to.panelBytes()](uint8_t* base, int panel, float* scratch) {
         const int begin = panel * 16, end = std::min(outputs, begin + 16);
         std::fill(scratch, scratch + size_t{panelOutputs} * inputs, 0.0f);
         Status s = weights_.rows(*g, begin, end, scratch);
         if (s.ok()) s = weights_.rows(*u, begin, end, scratch + size_t{16} * inputs);
         if (s.ok()) packPanel(scratch, inputs, panelOutputs, inputs, element_, base + panel * panelBytes);
         return s;
       }});
}

void Loader::convolution(Packed& to, const std::string& name, int outputs, int channels, int kernel, int padded) {
  const TensorSource* t = weights_.find(name, {outputs, channels, kernel, kernel});
  const int inputs = kernel * kernel * padded, taps = kernel * kernel;
  to = packedShape(outputs, inputs, element_);
  if (!t) return;
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, int64_t{panelOutputs} * (inputs + channels * taps),
       [this, t, outputs, channels, taps, padded, inputs, panelBytes = to.panelBytes()](uint8_t* base, int panel, float* scratch) {
         const int begin = panel * panelOutputs, end = std::min(outputs, begin + panelOutputs);
         float* stored = scratch + size_t{panelOutputs} * inputs;
         Status s = weights_.rows(*t, begin, end, stored);
         if (!s.ok()) return s;
         for (int o = 0; o < end - begin; o++)
           for (int tap = 0; tap < taps; tap++)
             for (int c = 0; c < padded; c++)
               scratch[(size_t)o * inputs + tap * padded + c] = c < channels ? stored[((size_t)o * channels + c) * taps + tap] : 0.0f;
         packPanel(scratch, inputs, end - begin, inputs, element_, base + panel * panelBytes);
         return s;
       }});
}

void Loader::vector(float*& to, const std::string& name, std::vector<int64_t> shape, bool rounded) {
  const TensorSource* t = weights_.find(name, shape);
  if (!t) return;
  size_t count = 1;
  for (const int64_t s : shape) count *= static_cast<size_t>(s);
  add({(count + 31) / 32 * 128, reinterpret_cast<void**>(&to), 1, 0, [this, t, count, rounded](uint8_t* base, int, float*) {
         float* out = reinterpret_cast<float*>(base);
         Status s = weights_.rows(*t, 0, t->shape[0], out);
         if (rounded && element_ == Element::bfloat16)
           for (size_t i = 0; i < count; i++) out[i] = bf16ToFloat(floatToBf16(out[i]));
         return s;
       }});
}

void Loader::table(void*& to, const std::string& name, int rows, int columns) {
  const TensorSource* t = weights_.find(name, {rows, columns});
  if (!t) return;
  const size_t item = elementSize(element_);
  add({static_cast<size_t>(rows) * columns * item, &to, (rows + 31) / 32, int64_t{32} * columns,
       [this, t, rows, columns, item](uint8_t* base, int task, float* scratch) {
         const int begin = task * 32, end = std::min(rows, begin + 32);
         Status s = weights_.rows(*t, begin, end, scratch);
         if (s.ok())
           convertFloats(scratch, DType::float32, base + static_cast<size_t>(begin) * columns * item,
                         element_ == Element::float32 ? DType::float32 : DType::bfloat16, static_cast<size_t>(end - begin) * columns);
         return s;
       }});
}

Status Loader::load(Memory& memory, Threads& threads, const Cancel& cancel) {
  if (!weights_.status.ok()) return weights_.status;
  size_t bytes = 0;
  int64_t scratch = 0;
  for (const auto& p : plans_) bytes += (p.bytes + 63) / 64 * 64;
  if (Status s = Memory::allocate(bytes, "The weights", memory); !s.ok()) return s;
  struct Task {
    const Plan* plan;
    uint8_t* base;
    int index;
  };
  std::vector<Task> tasks;
  uint8_t* at = memory.data();
  for (const auto& p : plans_) {
    *p.target = at;
    for (int i = 0; i < p.tasks; i++) tasks.push_back({&p, at, i});
    at += (p.bytes + 63) / 64 * 64;
    scratch = std::max(scratch, p.scratch);
  }
  std::vector<std::unique_ptr<float[]>> buffers(threads.count());
  for (auto& b : buffers) b = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(scratch) + 1);
  std::mutex mutex;
  Status failed;
  std::atomic<bool> stop{false}, starved{false};
  threads.run(static_cast<int>(tasks.size()), [&](int i, int thread) {
    if (stop.load(std::memory_order_relaxed)) return;
    Status s;
    try {
      s = cancel.load(std::memory_order_relaxed) ? Status{Code::cancelled, "Cancelled."}
                                                 : tasks[i].plan->run(tasks[i].base, tasks[i].index, buffers[thread].get());
    } catch (const std::exception&) {  // an allocation, on a thread that must not die of it: not even a message fits
      starved = true;
      stop = true;
      return;
    }
    if (s.ok()) return;
    stop = true;
    const std::lock_guard lock(mutex);
    if (failed.ok()) failed = std::move(s);
  });
  if (starved && failed.ok()) failed = {Code::outOfMemory, "Loading the weights ran out of memory."};
  return failed;
}

}  // namespace parvis::cpu
