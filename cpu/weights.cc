#include "weights.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>

#include "../common/floats.h"
#include "parvis/backend.h"

namespace parvis::cpu {

// ---- packing ------------------------------------------------------------------------------------------------

Matrix matrixShape(int outputs, int inputs, WeightFormat format) {
  Matrix m;
  m.format = format;
  m.outputs = outputs;
  m.inputs = inputs;
  m.panels = (outputs + panelOutputs - 1) / panelOutputs;
  return m;
}

namespace {

// Both ways of packing go in short runs of each row, so that neither side strides far: rows are a power of two apart,
// and whole columns of them would fight for the same lines of the cache.
constexpr int run = 16;

// Rows that are stored as the panel has them: words of one float32 or a pair of bfloat16. Nothing is converted.
void packWords(const void* rows, ptrdiff_t strideBytes, int valid, int groups, uint8_t* panel) {
  uint32_t* out = reinterpret_cast<uint32_t*>(panel);
  for (int block = 0; block < groups; block += run) {
    const int end = std::min(groups, block + run);
    for (int o = 0; o < valid; o++) {
      const uint8_t* row = static_cast<const uint8_t*>(rows) + o * strideBytes;
      for (int g = block; g < end; g++) std::memcpy(&out[g * panelOutputs + o], row + g * 4, 4);
    }
    for (int g = block; g < end && valid < panelOutputs; g++)
      std::fill(out + g * panelOutputs + valid, out + (g + 1) * panelOutputs, 0u);
  }
}

}  // namespace

static void packBfloat16(const float* rows, ptrdiff_t stride, int valid, int inputs, uint8_t* panel) {
  uint32_t* out = reinterpret_cast<uint32_t*>(panel);
  const int groups = (inputs + 1) / 2;
  for (int block = 0; block < groups; block += run) {
    const int end = std::min(groups, block + run);
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

// group(output, first input, count, integers) gives the scale of some inputs of one output.
template <class Group>
static void packInt8(int valid, int inputs, uint8_t* panel, Group&& group) {
  int8_t integers[scaleInputs];
  for (int begin = 0; begin < inputs; begin += scaleInputs) {
    float* scales = reinterpret_cast<float*>(panel);
    int8_t* out = reinterpret_cast<int8_t*>(scales + panelOutputs);
    for (int o = 0; o < panelOutputs; o++) {
      std::memset(integers, 0, sizeof integers);
      scales[o] = o < valid ? group(o, begin, std::min(scaleInputs, inputs - begin), integers) : 0;
      for (int i = 0; i < scaleInputs; i++) out[i * panelOutputs + o] = integers[i];
    }
    panel += (scaleInputs + sizeof(float)) * panelOutputs;
  }
}

// integers [valid, inputs], scales [valid, groups]
static void packStoredInt8(const int8_t* integers, const float* scales, int valid, int inputs, uint8_t* panel) {
  const int groups = scaleGroups(inputs);
  packInt8(valid, inputs, panel, [&](int o, int begin, int count, int8_t* to) {
    std::memcpy(to, integers + static_cast<ptrdiff_t>(o) * inputs + begin, static_cast<size_t>(count));
    return scales[o * groups + begin / scaleInputs];
  });
}

void packPanel(const float* rows, ptrdiff_t stride, int valid, int inputs, WeightFormat format, uint8_t* panel) {
  switch (format) {
    case WeightFormat::float32: return packWords(rows, stride * 4, valid, inputs, panel);
    case WeightFormat::bfloat16: return packBfloat16(rows, stride, valid, inputs, panel);
    case WeightFormat::int8:
      return packInt8(valid, inputs, panel, [&](int o, int begin, int count, int8_t* to) {
        return quantize(rows + o * stride + begin, count, to);
      });
  }
}

namespace {

bool storedAs(const Weight& w, Element element) {
  return w.type() == (element == Element::float32 ? DType::float32 : DType::bfloat16) && w.uniform();
}

// Are rows of it made of whole words of the panel's type?
bool inWords(const Weight& w, WeightFormat format, int inputs) {
  if (format == WeightFormat::int8) return false;
  const Element element = format == WeightFormat::float32 ? Element::float32 : Element::bfloat16;
  return storedAs(w, element) && inputs % inputStep(element) == 0;
}

}  // namespace

// ---- plans --------------------------------------------------------------------------------------------------

namespace {

// How the rows of a panel come out of a file: as they are stored, where that is what the panel has, or by way of
// floats.
enum class Reading { words, integers, floats };

Reading readingOf(const Weight* w, WeightFormat format, int inputs) {
  if (!w) return Reading::floats;  // nothing will be read
  if (format == WeightFormat::int8) return w->quantized() ? Reading::integers : Reading::floats;
  return inWords(*w, format, inputs) ? Reading::words : Reading::floats;
}

// What a panel is made of: rows [begin, end) of one weight, or of two that have half of the panel each.
struct PanelRows {
  const Weight* weights[2];
  int count;  // of weights
  int begin, end, inputs;
};

// Floats: rows of a panel, or its scales and integers.
int64_t panelScratch(int64_t inputs) { return panelOutputs * (inputs + scaleGroups(inputs)); }

Status readPanel(const Tensors& from, const PanelRows& p, WeightFormat format, Reading reading, float* scratch,
                 uint8_t* panel) {
  const int each = panelOutputs / p.count, rows = p.end - p.begin, valid = p.count == 1 ? rows : panelOutputs;
  const int groups = scaleGroups(p.inputs), words = p.inputs / groupInputs(format);
  int8_t* integers = reinterpret_cast<int8_t*>(scratch + static_cast<ptrdiff_t>(groups) * panelOutputs);
  if (rows < each && p.count > 1) std::memset(scratch, 0, sizeof(float) * static_cast<size_t>(panelScratch(p.inputs)));
  for (int i = 0; i < p.count; i++) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(i) * each;
    Status s = reading == Reading::integers
                   ? from.quantized(*p.weights[i], p.begin, p.end, integers + row * p.inputs, scratch + row * groups)
               : reading == Reading::words ? from.stored(*p.weights[i], p.begin, p.end, scratch + row * words)
                                           : from.rows(*p.weights[i], p.begin, p.end, scratch + row * p.inputs);
    if (!s.ok()) return s;
  }
  switch (reading) {
    case Reading::words: packWords(scratch, words * 4, valid, words, panel); break;
    case Reading::integers: packStoredInt8(integers, scratch, valid, p.inputs, panel); break;
    case Reading::floats: packPanel(scratch, p.inputs, valid, p.inputs, format, panel); break;
  }
  return {};
}

}  // namespace

void Loader::matrix(Matrix& to, const std::string& name, int outputs, int inputs) {
  const Weight* t = find(name, {outputs, inputs});
  const WeightFormat format = numbers_.weights;
  to = matrixShape(outputs, inputs, format);
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, panelScratch(inputs),
       [this, t, outputs, inputs, format, reading = readingOf(t, format, inputs), panelBytes = to.panelBytes()](
           uint8_t* base, int panel, float* scratch) {
         const int begin = panel * panelOutputs, end = std::min(outputs, begin + panelOutputs);
         return readPanel(*weights_, {{t, nullptr}, 1, begin, end, inputs}, format, reading, scratch,
                          base + panel * panelBytes);
       }});
}

void Loader::gateUp(Matrix& to, const std::string& gate, const std::string& up, int outputs, int inputs) {
  const Weight* g = find(gate, {outputs, inputs});
  const Weight* u = find(up, {outputs, inputs});
  const WeightFormat format = numbers_.weights;
  to = matrixShape((outputs + 15) / 16 * 32, inputs, format);
  to.outputs = 2 * outputs;
  const Reading first = readingOf(g, format, inputs), second = readingOf(u, format, inputs);
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, panelScratch(inputs),
       [this, g, u, outputs, inputs, format, reading = first == second ? first : Reading::floats,
        panelBytes = to.panelBytes()](uint8_t* base, int panel, float* scratch) {
         const int begin = panel * 16, end = std::min(outputs, begin + 16);
         return readPanel(*weights_, {{g, u}, 2, begin, end, inputs}, format, reading, scratch,
                          base + panel * panelBytes);
       }});
}

void Loader::convolution(Matrix& to, const std::string& name, int outputs, int channels,
                         const std::vector<int64_t>& sides, int padded) {
  std::vector<int64_t> shape{outputs, channels};
  shape.insert(shape.end(), sides.begin(), sides.end());
  const Weight* t = find(name, shape);
  int taps = 1;
  for (const int64_t side : sides) taps *= static_cast<int>(side);
  const int inputs = taps * padded;
  const WeightFormat format = formatOf(numbers_.activations);
  to = matrixShape(outputs, inputs, format);
  add({to.bytes(), reinterpret_cast<void**>(&to.data), to.panels, int64_t{panelOutputs} * (inputs + channels * taps),
       [this, t, outputs, channels, taps, padded, inputs, format, panelBytes = to.panelBytes()](
           uint8_t* base, int panel, float* scratch) {
         const int begin = panel * panelOutputs, end = std::min(outputs, begin + panelOutputs);
         float* stored = scratch + size_t{panelOutputs} * inputs;
         Status s = weights_->rows(*t, begin, end, stored);
         if (!s.ok()) return s;
         for (int o = 0; o < end - begin; o++)
           for (int tap = 0; tap < taps; tap++)
             for (int c = 0; c < padded; c++)
               scratch[(size_t)o * inputs + tap * padded + c] =
                   c < channels ? stored[((size_t)o * channels + c) * taps + tap] : 0.0f;
         packPanel(scratch, inputs, end - begin, inputs, format, base + panel * panelBytes);
         return s;
       }});
}

void Loader::vector(float*& to, const std::string& name, std::vector<int64_t> shape, bool rounded) {
  const Weight* t = find(name, shape);
  size_t count = 1;
  for (const int64_t s : shape) count *= static_cast<size_t>(s);
  // In pieces, between which a cancellation is seen.
  const int64_t rows = shape[0], width = static_cast<int64_t>(count) / rows,
                each = std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(width, 1));
  add({(count + 31) / 32 * 128, reinterpret_cast<void**>(&to), static_cast<int>((rows + each - 1) / each), 0,
       [this, t, width, rows, each, rounded](uint8_t* base, int task, float*) {
         const int64_t begin = task * each, end = std::min(rows, begin + each);
         float* out = reinterpret_cast<float*>(base) + begin * width;
         Status s = weights_->rows(*t, begin, end, out);
         if (rounded && numbers_.kept == Element::bfloat16)
           for (int64_t i = 0; i < (end - begin) * width; i++) out[i] = bf16ToFloat(floatToBf16(out[i]));
         return s;
       }});
}

void Loader::table(void*& to, const std::string& name, int rows, int columns) {
  const Weight* t = find(name, {rows, columns});
  const Element element = numbers_.kept;
  const size_t item = elementSize(element);
  add({static_cast<size_t>(rows) * columns * item, &to, (rows + 31) / 32, int64_t{32} * columns,
       [this, t, rows, columns, element, item](uint8_t* base, int task, float* scratch) {
         const int begin = task * 32, end = std::min(rows, begin + 32);
         if (storedAs(*t, element))
           return weights_->stored(*t, begin, end, base + static_cast<size_t>(begin) * columns * item);
         Status s = weights_->rows(*t, begin, end, scratch);
         if (s.ok())
           convertFloats(scratch, DType::float32, base + static_cast<size_t>(begin) * columns * item,
                         element == Element::float32 ? DType::float32 : DType::bfloat16,
                         static_cast<size_t>(end - begin) * columns);
         return s;
       }});
}

size_t Loader::bytes() const {
  size_t bytes = 0;
  for (const Plan& p : plans_) bytes += (p.bytes + 63) / 64 * 64;
  return bytes;
}

Status Loader::load(Memory& memory, Threads& threads, const Cancel& cancel) {
  if (!weights_->status.ok()) return weights_->status;
  const size_t bytes = this->bytes();
  int64_t scratch = 0;
  if (const size_t copies = weights_->copyBytes())
    if (Status s = Memory::check(bytes + copies, "The weights, and copies of those that do not lie row by row,");
        !s.ok())
      return s;
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
      s = cancel.load(std::memory_order_relaxed)
              ? cancelled()
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
  return failed.ok() ? weights_->unchanged() : failed;
}

}  // namespace parvis::cpu
