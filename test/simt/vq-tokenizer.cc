// CudaTokenizer on the SIMT layer against the CPU backend's tokenizer, on weights and in formats as checkpoints have
// them: pictures and tokens, resizing, batches, precisions; what is refused; cancellation and a device without memory.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../cuda/tokenizer.h"
#include "reference.h"
#include "vq-layers.h"

using parvis::Code;
using parvis::Precision;
using parvis::Status;

namespace {

const parvis::Cancel never{false};

// A file of the weights that a tokenizer asks for.
class Checkpoint {
 public:
  explicit Checkpoint(const parvis::TokenizerModel& m) : numbers_(17) {
    vq_layers::eachWeight(m, [&](const std::string& role, const std::vector<int64_t>& shape) {
      const bool bias = role.find(".bias") != std::string::npos, norm = role.find("norm") != std::string::npos;
      float inputs = 1;
      for (size_t i = 1; i < shape.size(); i++) inputs *= static_cast<float>(shape[i]);
      const float scale = role == "codebook" ? 2 : norm ? 0.2f : bias ? 0.1f : 1.0f / std::sqrt(inputs);
      add(role, shape, scale, norm && !bias ? 1 : 0);
    });
    char name[] = "/tmp/parvis-vq-XXXXXX";
    std::FILE* f = fdopen(mkstemp(name), "wb");
    std::fwrite(values_.data(), 4, values_.size(), f);
    std::fclose(f);
    file = name;
  }
  ~Checkpoint() { unlink(file.c_str()); }
  std::string file;
  std::vector<parvis::WeightSource> weights;

 private:
  void add(const std::string& role, std::vector<int64_t> shape, float scale, float offset) {
    size_t count = 1;
    for (const int64_t d : shape) count *= static_cast<size_t>(d);
    weights.push_back({role, {{role, parvis::DType::float32, shape, values_.size() * 4, {}}}});
    for (const float f : numbers_.normals(count, scale)) values_.push_back(cases::widen(cases::bf16(f + offset)));
  }
  std::vector<float> values_;
  cases::Numbers numbers_;
};

parvis::TokenizerModel small(std::vector<int> multipliers) {
  return vq_layers::model({32, 1, 24, 50, 6, 8, std::move(multipliers)});
}

std::unique_ptr<parvis::Backend> cpuBackend;

struct Both {
  std::shared_ptr<parvis::Tokenizer> cpu, cuda;
};
Both load(const Checkpoint& c, const parvis::TokenizerModel& m, Precision precision) {
  Both both;
  Status s = cpuBackend->loadTokenizer(c.file, c.weights, m, precision, never, both.cpu);
  if (s.ok())
    s = parvis::cuda::CudaTokenizer::load(std::make_shared<parvis::cuda::Device>(0), c.file, c.weights, m, precision,
                                          never, both.cuda);
  cases::check(s.ok(), "loading %s", s.message.c_str());
  return both;
}

void pictures(const Both& both, const parvis::TokenizerModel& m, const char* name, double bound,
              const parvis::DecodeOptions& o) {
  cases::Numbers numbers(3);
  std::vector<int32_t> tokens(static_cast<size_t>(o.count * o.gridHeight * o.gridWidth));
  for (int32_t& t : tokens) t = numbers.below(m.codebook);
  const size_t values = static_cast<size_t>(o.count * o.outHeight * o.outWidth * 3);
  std::vector<float> expected(values), floats(values), alone(values / static_cast<size_t>(o.count));
  std::vector<uint8_t> bytes(values);
  Status s = both.cpu->decode(tokens.data(), o, nullptr, expected.data(), never);
  if (s.ok()) s = both.cuda->decode(tokens.data(), o, nullptr, floats.data(), never);
  if (s.ok()) s = both.cuda->decode(tokens.data(), o, bytes.data(), nullptr, never);
  const double off = reference::relative(floats, expected);
  cases::check(s.ok() && off < bound, "%s, decoding %d of %d x %d to %d x %d: %.2g off %s", name, o.count, o.gridHeight,
               o.gridWidth, o.outHeight, o.outWidth, off, s.message.c_str());
  size_t other = 0;
  for (size_t i = 0; i < values; i++) {
    const float v = 127.5f * floats[i] + 128.0f;
    other += bytes[i] != (v >= 255.0f ? 255 : v > 0.0f ? static_cast<uint8_t>(v) : 0);
  }
  cases::check(other == 0, "%s, bytes are the floats'", name);
  if (o.count == 1) return;
  parvis::DecodeOptions one = o;
  one.count = 1;
  s = both.cuda->decode(tokens.data() + tokens.size() - tokens.size() / static_cast<size_t>(o.count), one, nullptr,
                        alone.data(), never);
  cases::check(s.ok() && std::memcmp(alone.data(), floats.data() + values - alone.size(), alone.size() * 4) == 0,
               "%s, a picture alone: the bits of the batch", name);
}

void codes(const Both& both, const parvis::TokenizerModel& m, const char* name, double maxOther, int count, int height,
           int width) {
  cases::Numbers numbers(5);
  std::vector<float> pixels(static_cast<size_t>(count * height * width * 3));
  for (float& p : pixels) p = numbers.normal() * 0.5f;
  std::vector<int32_t> expected(static_cast<size_t>(count * (height / m.factor()) * (width / m.factor()))),
      tokens(expected.size(), -1);
  Status s = both.cpu->encode(pixels.data(), count, height, width, expected.data(), never);
  if (s.ok()) s = both.cuda->encode(pixels.data(), count, height, width, tokens.data(), never);
  size_t other = 0;
  for (size_t i = 0; i < tokens.size(); i++) other += tokens[i] != expected[i];
  cases::check(s.ok() && static_cast<double>(other) <= maxOther * static_cast<double>(tokens.size()),
               "%s, encoding %d of %d x %d: %zu of %zu tokens are others %s", name, count, height, width, other,
               tokens.size(), s.message.c_str());
}

// A profile changes no picture, and both backends record the same matrix products.
void profiles(const Both& both, const char* name) {
  const parvis::DecodeOptions o{2, 3, 4, 6, 8};
  const std::vector<int32_t> tokens(24, 7);
  std::vector<float> plain(2 * 6 * 8 * 3), profiled(plain.size());
  Status s = both.cuda->decode(tokens.data(), o, nullptr, plain.data(), never);
  double flops[2] = {}, ms = 0;
  parvis::Profile records;
  for (int i = 0; i < 2; i++) {
    parvis::Tokenizer& tokenizer = i == 0 ? *both.cpu : *both.cuda;
    const parvis::Profile before = tokenizer.profile(true);
    if (s.ok()) s = tokenizer.decode(tokens.data(), o, nullptr, profiled.data(), never);
    records = tokenizer.profile(false);
    for (const parvis::LaunchRecord& r : records) flops[i] += r.flops, ms += r.ms;
    cases::check(before.empty() && !records.empty(), "%s, a profile of %zu launches", name, records.size());
  }
  cases::check(s.ok() && profiled == plain && flops[0] == flops[1] && ms > 0, "%s, profiles of %.0f products %s", name,
               flops[0], s.message.c_str());
  if (s.ok()) s = both.cuda->decode(tokens.data(), o, nullptr, profiled.data(), never);
  cases::check(s.ok() && both.cuda->profile(false).empty(), "%s, no profile once it is off", name);
}

#if !defined(__CUDACC__)  // a device has too much memory to fill it
// What one tokenizer keeps between calls goes where another one on the same device needs the room.
void givenUp(const Checkpoint& c, const parvis::TokenizerModel& m) {
  const Both one = load(c, m, Precision::float32), other = load(c, m, Precision::float32);
  const parvis::DecodeOptions o{1, 3, 4, 6, 8};
  const std::vector<int32_t> tokens(12, 7);
  std::vector<float> first(6 * 8 * 3), second(first.size()), third(first.size());
  size_t before = 0, after = 0, total = 0;
  cudaMemGetInfo(&before, &total);
  Status s = one.cuda->decode(tokens.data(), o, nullptr, first.data(), never);
  cudaMemGetInfo(&after, &total);
  const size_t kept = before - after;
  cases::check(s.ok() && kept > 0 && parvis::cuda::reclaimableBytes(0) == kept, "a tokenizer keeps %zu bytes %s", kept,
               s.message.c_str());
  void* rest = nullptr;
  const cudaError_t e = cudaMalloc(&rest, (after - total / 64 - kept / 2) / 256 * 256);
  s = other.cuda->decode(tokens.data(), o, nullptr, second.data(), never);
  cases::check(e == cudaSuccess && s.ok() && second == first, "which another one takes where it needs it %s",
               s.message.c_str());
  s = one.cuda->decode(tokens.data(), o, nullptr, third.data(), never);
  cases::check(s.ok() && third == first && parvis::cuda::reclaimableBytes(0) == kept, "and the first one again %s",
               s.message.c_str());
  cudaFree(rest);
}
#endif

void refusals(const Both& both) {
  const int32_t bad[4] = {0, 1, 2, 99};
  float pixels[8 * 8 * 3] = {};
  int32_t tokens[16];
  std::vector<float> out(4 * 4 * 16 * 3);
  const auto same = [](const Status& a, const Status& b) {
    return !a.ok() && a.code == b.code && a.message == b.message;
  };
  parvis::DecodeOptions o{1, 2, 2, 4, 4};
  cases::check(
      same(both.cuda->decode(bad, o, nullptr, out.data(), never), both.cpu->decode(bad, o, nullptr, out.data(), never)),
      "a token outside the codebook: the CPU's message");
  o.gridHeight = 0;
  cases::check(
      same(both.cuda->decode(bad, o, nullptr, out.data(), never), both.cpu->decode(bad, o, nullptr, out.data(), never)),
      "an empty grid: the CPU's message");
  cases::check(
      same(both.cuda->encode(pixels, 1, 7, 8, tokens, never), both.cpu->encode(pixels, 1, 7, 8, tokens, never)),
      "an odd picture: the CPU's message");
  pixels[5] = NAN;
  cases::check(
      same(both.cuda->encode(pixels, 1, 8, 8, tokens, never), both.cpu->encode(pixels, 1, 8, 8, tokens, never)),
      "a pixel that is not finite: the CPU's message");
  const parvis::Cancel cancelled{true};
  pixels[5] = 0;
  cases::check(both.cuda->encode(pixels, 1, 8, 8, tokens, cancelled).code == Code::cancelled,
               "cancelled before it began");
  o = {2, 4096, 4096, 64, 64};
  const std::vector<int32_t> many(static_cast<size_t>(2) * 4096 * 4096);
  std::vector<float> little(2 * 64 * 64 * 3);
  const Status s = both.cuda->decode(many.data(), o, nullptr, little.data(), never);
  cases::check(s.code == Code::outOfMemory && s.message.rfind("The tokenizer's pictures need ", 0) == 0,
               "a picture too large: %s", s.message.c_str());
}

}  // namespace

int main(int, char** argv) {
  const char* machine = std::getenv("PARVIS_SIMT");
  setenv("PARVIS_SIMT", (std::string(machine ? machine : "") + ",memory=256M").c_str(), 1);
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  cpuBackend = parvis::createCpuBackend(1);
  {
    const parvis::TokenizerModel m = small({1, 2});
    const Checkpoint c(m);
    const Both plain = load(c, m, Precision::float32);
    pictures(plain, m, "float32", 1e-5, {1, 3, 4, 6, 8});
    pictures(plain, m, "float32", 1e-5, {2, 2, 3, 7, 5});
    codes(plain, m, "float32", 0, 1, 6, 10);
    codes(plain, m, "float32, two passes", 0, 17, 2, 2);
    refusals(plain);
#if !defined(__CUDACC__)
    givenUp(c, m);
#endif
    const Both fast = load(c, m, Precision::bfloat16);
    pictures(fast, m, "bfloat16", 3e-2, {2, 3, 4, 6, 8});
    codes(fast, m, "bfloat16", 0.2, 1, 8, 6);
    profiles(plain, "float32");
    profiles(fast, "bfloat16");
    Checkpoint other(m);
    other.weights[3].parts[0].shape[0] = 31;
    std::shared_ptr<parvis::Tokenizer> t;
    const Status a = parvis::cuda::CudaTokenizer::load(std::make_shared<parvis::cuda::Device>(0), other.file,
                                                       other.weights, m, Precision::bfloat16, never, t),
                 b = cpuBackend->loadTokenizer(other.file, other.weights, m, Precision::bfloat16, never, t);
    cases::check(a.code == Code::badCheckpoint && a.message == b.message, "another shape: %s", a.message.c_str());
    const parvis::Cancel cancelled{true};
    cases::check(parvis::cuda::CudaTokenizer::load(std::make_shared<parvis::cuda::Device>(0), c.file, c.weights, m,
                                                   Precision::bfloat16, cancelled, t)
                         .code == Code::cancelled,
                 "loading, cancelled");
  }
  {
    const parvis::TokenizerModel m = small({1, 1, 2});  // no shortcut at one level
    const Checkpoint c(m);
    const Both plain = load(c, m, Precision::float32);
    pictures(plain, m, "float32, three levels", 1e-5, {1, 2, 2, 8, 8});
    codes(plain, m, "float32, three levels", 0, 1, 8, 4);
  }
  return cases::failures > 0;
}
