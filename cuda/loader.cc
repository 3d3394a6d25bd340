#include "loader.h"

#include <algorithm>
#include <cstring>

#include "../common/floats.h"
#include "../common/steps.h"

namespace parvis::cuda {

namespace {

constexpr size_t usualPart = size_t{16} << 20;
constexpr int threads = 256;

Element elementOf(DType type) {
  return type == DType::float32 ? Element::float32 : type == DType::float16 ? Element::float16 : Element::bfloat16;
}

// A weight's rows as the device gets them: as stored, or widened where they do not lie in a row or must be float32.
struct Source {
  Tensors* tensors;
  const Weight* tensor;
  bool wide = false;
  bool asStored() const { return !wide && tensor->uniform() && !tensor->quantized(); }
  Element element() const { return asStored() ? elementOf(tensor->type()) : Element::float32; }
  size_t rowBytes() const { return static_cast<size_t>(tensor->rowElements()) * sizeOf(element()); }
  Status read(int64_t begin, int64_t end, uint8_t* to) const {
    return asStored() ? tensors->stored(*tensor, begin, end, to)
                      : tensors->rows(*tensor, begin, end, reinterpret_cast<float*>(to));
  }
};

}  // namespace

// ---- the ring -----------------------------------------------------------------------------------------------

Status Staging::allocate(std::shared_ptr<Device> device, size_t partBytes, const std::string& cure) {
  device_ = std::move(device);
  partBytes_ = (partBytes + 255) / 256 * 256;
  if (Status s = HostMemory::allocate(2 * partBytes_, host_); !s.ok()) return s;
  return DeviceMemory::allocate(device_, 2 * partBytes_, {"Buffers for loading", cure}, memory_);
}

Status Staging::next(uint8_t*& host, uint8_t*& device) {
  part_ ^= 1;
  host = host_.data() + partBytes_ * static_cast<size_t>(part_);
  device = memory_.data() + partBytes_ * static_cast<size_t>(part_);
  return events_[part_].wait("loading weights");
}

Status Staging::send(size_t bytes) {
  const size_t at = partBytes_ * static_cast<size_t>(part_);
  return statusOf(
      cudaMemcpyAsync(memory_.data() + at, host_.data() + at, bytes, cudaMemcpyHostToDevice, device_->stream()),
      "copying weights to the device");
}

Status Staging::done() { return events_[part_].record(device_->stream()); }

// ---- plans --------------------------------------------------------------------------------------------------

// A tile is eight pairs: sixteen rows of one tensor, or eight of each of two.
static Status packTiles(const Source& low, const Source* high, int outputs, int inputs, const Packed& to,
                        Staging& staging, cudaStream_t stream, const Cancel& cancel) {
  const int rowsATile = high ? 8 : 16, tiles = to.tiles();
  const size_t tileBytes = 16 * std::max(low.rowBytes(), high ? high->rowBytes() : 0);
  const int together = static_cast<int>(std::max<size_t>(1, staging.partBytes() / tileBytes));
  for (int tile = 0; tile < tiles; tile += together) {
    if (cancel.load(std::memory_order_relaxed)) return cancelled();
    const int begin = tile * rowsATile, end = std::min(outputs, (tile + together) * rowsATile), rows = end - begin;
    uint8_t *host, *device;
    if (Status s = staging.next(host, device); !s.ok()) return s;
    const size_t bytes = low.rowBytes() * static_cast<size_t>(rows);
    if (Status s = low.read(begin, end, host); !s.ok()) return s;
    if (high)
      if (Status s = high->read(begin, end, host + bytes); !s.ok()) return s;
    if (Status s = staging.send(high ? 2 * bytes : bytes); !s.ok()) return s;
    const Packing from =
        high ? Packing{device, device + bytes, inputs, rows, rows, low.element()}
             : Packing{device, device + low.rowBytes(), 2 * inputs, (rows + 1) / 2, rows / 2, low.element()};
    const Packed part{to.stepsAt(tile), from.lowRows, inputs};
    if (Status s = statusOf(pack(from, part, threads, stream), "packing weights"); !s.ok()) return s;
    if (Status s = staging.done(); !s.ok()) return s;
  }
  return {};
}

// Rows [begin, end) as integers and scales: as they are stored, or made of floats as the CPU does it. `floats` is room
// for a row.
static Status readIntegers(const Source& source, int64_t begin, int64_t end, int8_t* to, float* scales,
                           std::vector<float>& floats) {
  if (source.tensor->quantized()) return source.tensors->quantized(*source.tensor, begin, end, to, scales);
  const int64_t inputs = source.tensor->rowElements(), groups = scaleGroups(inputs);
  floats.resize(static_cast<size_t>(inputs));
  for (int64_t row = begin; row < end; row++, to += inputs, scales += groups) {
    if (Status s = source.tensors->rows(*source.tensor, row, row + 1, floats.data()); !s.ok()) return s;
    quantizeRow(floats.data(), inputs, to, scales);
  }
  return {};
}

// The bytes of integers and scales of so many rows in the staging ring: integers, then scales.
static size_t integerBytes(int rows, int inputs) {
  return (static_cast<size_t>(rows) * static_cast<size_t>(inputs) + 15) / 16 * 16;
}
static size_t scaledBytes(int rows, int inputs) {
  const size_t groups = static_cast<size_t>(scaleGroups(inputs));
  return (integerBytes(rows, inputs) + static_cast<size_t>(rows) * groups * sizeof(float) + 15) / 16 * 16;
}

// The same as packTiles, of integers.
static Status packIntegerTiles(const Source& low, const Source* high, int outputs, int inputs, const Packed& to,
                               Staging& staging, cudaStream_t stream, const Cancel& cancel) {
  const int rowsATile = high ? 8 : 16, tiles = to.tiles(), groups = to.groups();
  const int together = static_cast<int>(std::max<size_t>(1, staging.partBytes() / (2 * scaledBytes(8, inputs))));
  std::vector<float> floats;
  for (int tile = 0; tile < tiles; tile += together) {
    const int begin = tile * rowsATile, end = std::min(outputs, (tile + together) * rowsATile), rows = end - begin;
    const size_t scalesAt = integerBytes(rows, inputs), bytes = scaledBytes(rows, inputs);
    uint8_t *host, *device;
    if (Status s = staging.next(host, device); !s.ok()) return s;
    const auto read = [&](const Source& source, size_t at) {
      Status s;
      for (int row = 0; row < rows && s.ok(); row += rowsATile) {
        if (cancel.load(std::memory_order_relaxed)) return cancelled();
        s = readIntegers(source, begin + row, begin + std::min(rows, row + rowsATile),
                         reinterpret_cast<int8_t*>(host + at) + static_cast<ptrdiff_t>(row) * inputs,
                         reinterpret_cast<float*>(host + at + scalesAt) + static_cast<ptrdiff_t>(row) * groups, floats);
      }
      return s;
    };
    if (Status s = read(low, 0); !s.ok()) return s;
    if (high)
      if (Status s = read(*high, bytes); !s.ok()) return s;
    if (Status s = staging.send(high ? 2 * bytes : bytes); !s.ok()) return s;
    const int8_t* const integers = reinterpret_cast<int8_t*>(device);
    const float* const scales = reinterpret_cast<float*>(device + scalesAt);
    const IntegerPacking from =
        high ? IntegerPacking{integers,
                              integers + bytes,
                              inputs,
                              scales,
                              reinterpret_cast<float*>(device + bytes + scalesAt),
                              groups,
                              rows,
                              rows}
             : IntegerPacking{integers,       integers + inputs, 2 * static_cast<ptrdiff_t>(inputs),
                              scales,         scales + groups,   2 * static_cast<ptrdiff_t>(groups),
                              (rows + 1) / 2, rows / 2};
    if (Status s = statusOf(packIntegers(from, to, tile, threads, stream), "packing weights"); !s.ok()) return s;
    if (Status s = staging.done(); !s.ok()) return s;
  }
  return {};
}

// The least that a part of the ring must hold of what is packed.
static size_t packedPart(WeightFormat format, size_t rowBytes, int inputs) {
  return format == WeightFormat::int8 ? 2 * scaledBytes(8, inputs) : 16 * rowBytes;
}

static Status packMatrix(const Source& low, const Source* high, int outputs, const Matrix& to, Staging& staging,
                         cudaStream_t stream, const Cancel& cancel) {
  const auto pack = to.format == WeightFormat::int8 ? packIntegerTiles : packTiles;
  return pack(low, high, outputs, to.inputs, to.packed(), staging, stream, cancel);
}

static Status convertRows(const Source& source, int64_t rows, uint8_t* to, Element element, Staging& staging,
                          cudaStream_t stream, const Cancel& cancel) {
  const int64_t elements = source.tensor->rowElements(),
                together = static_cast<int64_t>(std::max<size_t>(1, staging.partBytes() / source.rowBytes()));
  for (int64_t begin = 0; begin < rows; begin += together) {
    if (cancel.load(std::memory_order_relaxed)) return cancelled();
    const int64_t end = std::min(rows, begin + together);
    uint8_t *host, *device;
    if (Status s = staging.next(host, device); !s.ok()) return s;
    if (Status s = source.read(begin, end, host); !s.ok()) return s;
    if (Status s = staging.send(source.rowBytes() * static_cast<size_t>(end - begin)); !s.ok()) return s;
    const cudaError_t e =
        convert(device, source.element(), to + static_cast<size_t>(begin * elements) * sizeOf(element), element,
                static_cast<size_t>((end - begin) * elements), threads, stream);
    if (Status s = statusOf(e, "converting weights"); !s.ok()) return s;
    if (Status s = staging.done(); !s.ok()) return s;
  }
  return {};
}

void Loader::matrix(Matrix& to, const std::string& name, int outputs, int inputs) {
  const Weight* t = tensors_.find(name, {outputs, inputs});
  to.format = format_;
  to.outputs = outputs;
  to.inputs = inputs;
  if (!t) return;
  const Source source{&tensors_, t};
  if (format_ != WeightFormat::float32)
    return add({matrixBytes(format_, outputs, inputs), const_cast<const void**>(&to.data),
                packedPart(format_, source.rowBytes(), inputs),
                [&to, source](uint8_t*, Staging& staging, cudaStream_t stream, const Cancel& cancel) {
                  return packMatrix(source, nullptr, to.outputs, to, staging, stream, cancel);
                }});
  add({matrixBytes(format_, outputs, inputs), const_cast<const void**>(&to.data), source.rowBytes(),
       [source, outputs](uint8_t* at, Staging& staging, cudaStream_t stream, const Cancel& cancel) {
         return convertRows(source, outputs, at, Element::float32, staging, stream, cancel);
       }});
}

void Loader::gateUp(Matrix& to, const std::string& gate, const std::string& up, int outputs, int inputs) {
  const Weight *g = tensors_.find(gate, {outputs, inputs}), *u = tensors_.find(up, {outputs, inputs});
  to.format = format_;
  to.outputs = 2 * outputs;
  to.inputs = inputs;
  to.paired = true;
  if (!g || !u) return;
  Source low{&tensors_, g}, high{&tensors_, u};
  low.wide = high.wide = low.element() != high.element();  // one kernel reads both
  const size_t least = packedPart(format_, std::max(low.rowBytes(), high.rowBytes()), inputs);
  if (format_ != WeightFormat::float32)
    return add({gateUpBytes(format_, outputs, inputs), const_cast<const void**>(&to.data), least,
                [&to, low, high, outputs](uint8_t*, Staging& staging, cudaStream_t stream, const Cancel& cancel) {
                  return packMatrix(low, &high, outputs, to, staging, stream, cancel);
                }});
  const size_t half = static_cast<size_t>(outputs) * static_cast<size_t>(inputs) * 4;
  add({gateUpBytes(format_, outputs, inputs), const_cast<const void**>(&to.data), least,
       [low, high, outputs, half](uint8_t* at, Staging& staging, cudaStream_t stream, const Cancel& cancel) {
         Status s = convertRows(low, outputs, at, Element::float32, staging, stream, cancel);
         return s.ok() ? convertRows(high, outputs, at + half, Element::float32, staging, stream, cancel) : s;
       }});
}

void Loader::table(const void*& to, const std::string& name, int rows, int columns) {
  const Weight* t = tensors_.find(name, {rows, columns});
  if (!t) return;
  const Source source{&tensors_, t};
  add({tableBytes(element_, rows, columns), &to, source.rowBytes(),
       [this, source, rows](uint8_t* at, Staging& staging, cudaStream_t stream, const Cancel& cancel) {
         return convertRows(source, rows, at, element_, staging, stream, cancel);
       }});
}

void Loader::vector(const float*& to, const std::string& name, std::vector<int64_t> shape, bool rounded) {
  const Weight* t = tensors_.find(name, shape);
  if (!t) return;
  const size_t count = static_cast<size_t>(t->rowElements() * t->rows()), padded = (count + 15) / 16 * 16;
  add({vectorBytes(count), reinterpret_cast<const void**>(&to), padded * 4,
       [this, t, count, padded, rounded](uint8_t* at, Staging& staging, cudaStream_t stream, const Cancel&) {
         uint8_t *host, *device;
         if (Status s = staging.next(host, device); !s.ok()) return s;
         float* values = reinterpret_cast<float*>(host);
         if (Status s = tensors_.rows(*t, 0, t->rows(), values); !s.ok()) return s;
         if (rounded && element_ == Element::bfloat16)
           for (size_t i = 0; i < count; i++) values[i] = bf16ToFloat(floatToBf16(values[i]));
         std::fill(values + count, values + padded, 0.0f);
         if (Status s = staging.send(padded * 4); !s.ok()) return s;
         if (Status s =
                 statusOf(cudaMemcpyAsync(at, device, padded * 4, cudaMemcpyDeviceToDevice, stream), "copying weights");
             !s.ok())
           return s;
         return staging.done();
       }});
}

void Loader::filter(void*& to, size_t bytes, const Weight& weight, int unit, int units, PackRows pack) {
  const size_t unitBytes = static_cast<size_t>(weight.rowElements()) * sizeof(float) * static_cast<size_t>(unit);
  add({bytes, const_cast<const void**>(&to), unitBytes,
       [this, &weight, unit, units, unitBytes, pack = std::move(pack)](uint8_t*, Staging& staging, cudaStream_t stream,
                                                                       const Cancel& cancel) -> Status {
         const int rows = static_cast<int>(weight.rows());
         const int together =
             static_cast<int>(std::min(staging.partBytes() / unitBytes, static_cast<size_t>(units))) * unit;
         for (int first = 0; first < rows; first += together) {
           if (cancel.load(std::memory_order_relaxed)) return cancelled();
           const int count = std::min(together, rows - first);
           uint8_t *host, *device;
           if (Status s = staging.next(host, device); !s.ok()) return s;
           if (Status s = tensors_.rows(weight, first, first + count, reinterpret_cast<float*>(host)); !s.ok())
             return s;
           if (Status s = staging.send(unitBytes / static_cast<size_t>(unit) * static_cast<size_t>(count)); !s.ok())
             return s;
           if (Status s =
                   statusOf(pack(reinterpret_cast<const float*>(device), first, count, stream), "packing weights");
               !s.ok())
             return s;
           if (Status s = staging.done(); !s.ok()) return s;
         }
         return {};
       }});
}

// ---- loading ------------------------------------------------------------------------------------------------

Status Loader::load(std::shared_ptr<Device> device, DeviceMemory& memory, const Cancel& cancel) {
  if (!tensors_.status.ok()) return tensors_.status;
  Layout layout;
  std::vector<size_t> places;
  size_t least = 4096, largest = 0;
  for (const Plan& p : plans_) {
    places.push_back(layout.add(p.bytes));
    least = std::max(least, p.partBytes);
    largest = std::max(largest, 2 * p.bytes);
  }
  if (Status s = DeviceMemory::allocate(device, layout.bytes(), {"The weights", modelCure(element_)}, memory); !s.ok())
    return s;
  Staging staging;
  if (Status s = staging.allocate(device, std::max(least, std::min(usualPart, largest)), modelCure(element_)); !s.ok())
    return s;
  for (size_t i = 0; i < plans_.size(); i++) {
    if (cancel.load(std::memory_order_relaxed)) return cancelled();
    uint8_t* at = memory.data() + places[i];
    if (plans_[i].target) *plans_[i].target = at;
    if (Status s = plans_[i].run(at, staging, device->stream(), cancel); !s.ok()) return s;
  }
  if (Status s = device->finish("loading weights"); !s.ok()) return s;
  return tensors_.unchanged();
}

}  // namespace parvis::cuda
