// The CUDA backend at the shapes of the paper's models, on a device, against the CPU backend: layers of B, L, XL, XXL
// and 3B with the whole vocabulary, one, four and sixteen tokens a step, alone and in batches. Few steps each, but late
// ones too: a prefix of the picture goes through in one step, so that caches are long. Then the VQ-16 tokenizer. Layers
// are few because they are alike; weights are random.
//   shapes [--seconds 90] [MODEL ...]   no case is begun after so many seconds; VQ-16 is a model's name too
#include <chrono>
#include <cstring>
#include <memory>

#include "../simt/cases.h"
#include "official.h"

#include "../../cuda/transformer.h"
#if __has_include("../../cuda/tokenizer.h")
#include "../../cuda/tokenizer.h"
#endif

using company::Options;
using company::Rule;
using company::Table;
using parvis::Mode;
using parvis::Precision;
using parvis::Status;

namespace {

using Clock = std::chrono::steady_clock;
const Clock::time_point started = Clock::now();
double budget = 90;
double seconds() { return std::chrono::duration<double>(Clock::now() - started).count(); }

// ||a - b|| / ||b||. Where b is NaN (not scored) a must be, and neither counts.
double relative(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return 1e30;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (std::isnan(x) != std::isnan(y)) return 1e30;
    if (std::isnan(x)) continue;
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return norm > 0 ? std::sqrt(difference / norm) : 1e30;
}

// ---- transformers ---------------------------------------------------------------------------------------------

struct Results : company::Results {
  double seconds = 0;
};

Results timed(parvis::Transformer& t, const Options& o, const std::vector<Table>& tables, const Rule& rule) {
  const Clock::time_point begin = Clock::now();
  Results r{company::run(t, o, tables, rule)};
  r.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return r;
}

struct Case {
  int n, batch, prefix;  // prefix: slots that go through in one step; then `steps` steps
  int steps() const { return 3; }
  int end() const { return prefix + steps() * n; }
  std::vector<Table> table() const {
    std::vector<Table> all = official::steps(n, prefix, end());
    all.insert(all.begin(), official::prefix(n, prefix));
    return all;
  }
};

// Sequences `first` .. of a batch.
Options options(const Case& c, int first, int batch) {
  Options o;
  cases::Numbers numbers(11);
  std::vector<int32_t> known;
  for (int i = 0; i < c.batch * c.end(); i++) known.push_back(numbers.below(official::vocabulary));
  for (int i = first; i < first + batch; i++) {
    o.classIds.push_back(i * 37 % official::classes);
    o.seeds.push_back(static_cast<uint64_t>(1000 + i));
    for (int k = 0; k < official::tokens; k++)
      o.known.push_back(k < c.end() ? known[static_cast<size_t>(i * c.end() + k)] : -1);
  }
  o.guided = true, o.slots = o.tokens = official::tokens, o.maxRows = std::max(c.n, c.prefix);
  return o;
}

void scores(const char* name, Precision precision, parvis::Transformer& cpu, parvis::Transformer& cuda, const Case& c) {
  Options o = options(c, 0, c.batch);
  for (int k = c.end() - c.n; k < c.end() && o.keepLogits.size() < 4; k++) o.keepLogits.push_back(k);
  Rule rule;
  rule.mode = Mode::score;
  rule.guidanceScale = 1.5f;
  const bool wide = precision == Precision::float32;
  const double tolerance = wide ? 1e-3 : 3e-2;
  const Results expected = timed(cpu, o, c.table(), rule), found = timed(cuda, o, c.table(), rule);
  const double logits = relative(found.logits, expected.logits), logProbs = relative(found.logProbs, expected.logProbs);
  cases::check(expected.status.ok() && found.status.ok() && logits <= tolerance && logProbs <= tolerance,
               "%s %s, n = %d, batch %d, %d slots before: logits %.1e, log-probabilities %.1e off the CPU's (%.2f s, "
               "CPU %.1f s) %s",
               name, wide ? "float32" : "bfloat16", c.n, c.batch, c.prefix, logits, logProbs, found.seconds,
               expected.seconds, (expected.status.ok() ? found : expected).status.message.c_str());
}

// Tokens that one sequence draws alone and among others; greedy decoding repeats itself, so this does not.
void draws(const char* name, parvis::Transformer& cuda, const Case& c) {
  const auto known = [&](Options o) {
    for (size_t i = 0; i < o.known.size(); i++)
      if (static_cast<int>(i % official::tokens) >= c.prefix) o.known[i] = -1;
    return o;
  };
  Rule rule;
  rule.guidanceScale = 1.5f;
  const Results many = timed(cuda, known(options(c, 0, c.batch)), c.table(), rule);
  bool same = many.status.ok(), ok = same;
  std::string message = many.status.message;
  int different = 0;
  for (const int i : {0, c.batch / 2 + 1, c.batch - 1}) {
    if (!ok) break;
    const Results alone = timed(cuda, known(options(c, i, 1)), c.table(), rule);
    ok = alone.status.ok();
    if (!ok) message = alone.status.message;
    for (int k = 0; k < c.end() && ok; k++) {
      const int32_t a = alone.tokens[static_cast<size_t>(k)],
                    b = many.tokens[static_cast<size_t>(i * official::tokens + k)];
      same = same && a == b && a >= 0;
      different += a != b;
    }
  }
  cases::check(ok && same,
               "%s bfloat16, n = %d: the tokens of a sequence alone and in a batch of %d, %d of %d differ %s", name,
               c.n, c.batch, different, 3 * c.steps() * c.n, message.c_str());
}

bool load(const char* name, parvis::Backend& cpuBackend, std::shared_ptr<parvis::cuda::Device> device,
          const official::Weights& weights, const parvis::TransformerModel& m, Precision precision,
          std::shared_ptr<parvis::Transformer>& cpu, std::shared_ptr<parvis::Transformer>& cuda) {
  const parvis::Cancel cancel{false};
  const double before = seconds();
  Status s = weights.good() ? parvis::cuda::CudaTransformer::load(device, weights.file, weights.weights, m, precision,
                                                                  cancel, cuda)
                            : Status{parvis::Code::internal, "writing random weights failed"};
  const double between = seconds();
  if (s.ok()) s = cpuBackend.loadTransformer(weights.file, weights.weights, m, precision, cancel, cpu);
  cases::check(s.ok(), "%s %s: loading %d layers (%.1f s, CPU %.1f s) %s", name,
               precision == Precision::float32 ? "float32" : "bfloat16", m.layers, between - before,
               seconds() - between, s.message.c_str());
  return s.ok();
}

void transformer(const official::Size& size, parvis::Backend& cpuBackend,
                 std::shared_ptr<parvis::cuda::Device> device) {
  const parvis::TransformerModel m = official::model(size, size.dim < 1200 ? 2 : 1);
  const official::Weights weights(official::tensorsOf(m));
  std::shared_ptr<parvis::Transformer> cpu, cuda;
  if (load(size.name, cpuBackend, device, weights, m, Precision::bfloat16, cpu, cuda)) {
    for (const int n : {4, 16, 1})
      for (const auto& [batch, prefix] : {std::pair{1, 512}, {2, 128}, {8, 32}, {64, 16}}) {
        const Case c{n, batch, prefix};
        if (seconds() > budget) {
          std::printf("skipped %s bfloat16, n = %d, batch %d: out of time\n", size.name, n, batch);
          continue;
        }
        scores(size.name, Precision::bfloat16, *cpu, *cuda, c);
        if (batch > 2) draws(size.name, *cuda, c);
      }
  }
  cpu.reset(), cuda.reset();
  if (seconds() > budget) {
    std::printf("skipped %s float32: out of time\n", size.name);
    return;
  }
  if (load(size.name, cpuBackend, device, weights, m, Precision::float32, cpu, cuda))
    for (const int n : {1, 4, 16}) scores(size.name, Precision::float32, *cpu, *cuda, {n, 1, 128});
}

// ---- the tokenizer --------------------------------------------------------------------------------------------

#if __has_include("../../cuda/tokenizer.h")
void tokenizer(parvis::Backend& cpuBackend, std::shared_ptr<parvis::cuda::Device> device) {
  const parvis::TokenizerModel m = official::vq16();
  const official::Weights weights(official::tensorsOf(m));
  const parvis::Cancel cancel{false};
  std::shared_ptr<parvis::Tokenizer> cpu;
  Status s = cpuBackend.loadTokenizer(weights.file, weights.weights, m, Precision::float32, cancel, cpu);
  cases::check(s.ok(), "VQ-16: loading on the CPU %s", s.message.c_str());
  if (!s.ok()) return;
  constexpr int side = 16 * official::grid;
  cases::Numbers numbers(3);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 2 * official::tokens; i++) tokens.push_back(numbers.below(m.codebook));
  parvis::DecodeOptions o;
  o.count = 1, o.gridHeight = o.gridWidth = official::grid, o.outHeight = o.outWidth = side;
  std::vector<float> expected(static_cast<size_t>(side * side * 3));
  s = cpu->decode(tokens.data(), o, nullptr, expected.data(), cancel);
  cases::check(s.ok(), "VQ-16: decoding on the CPU, after %.1f s %s", seconds(), s.message.c_str());
  std::vector<float> picture(expected.size());
  for (size_t i = 0; i < picture.size(); i++) picture[i] = std::tanh(0.3f * numbers.normal());
  std::vector<int32_t> codes(official::tokens);
  Status encoded = cpu->encode(picture.data(), 1, side, side, codes.data(), cancel);
  cases::check(encoded.ok(), "VQ-16: encoding on the CPU, after %.1f s %s", seconds(), encoded.message.c_str());
  cpu.reset();

  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    const bool wide = precision == Precision::float32;
    const char* name = wide ? "float32" : "bfloat16";
    std::shared_ptr<parvis::Tokenizer> cuda;
    Status e = parvis::cuda::CudaTokenizer::load(device, weights.file, weights.weights, m, precision, cancel, cuda);
    cases::check(e.ok(), "VQ-16 %s: loading %s", name, e.message.c_str());
    if (!e.ok()) continue;
    std::vector<float> found(expected.size(), NAN);
    e = cuda->decode(tokens.data(), o, nullptr, found.data(), cancel);
    double off = relative(found, expected);
    cases::check(s.ok() && e.ok() && off <= (wide ? 1e-3 : 3e-2),
                 "VQ-16 %s: one picture of %d px, %.1e off the CPU's %s", name, side, off, e.message.c_str());
    parvis::DecodeOptions two = o;
    two.count = 2;
    std::vector<float> both(2 * expected.size(), NAN);
    e = cuda->decode(tokens.data(), two, nullptr, both.data(), cancel);
    cases::check(e.ok() && std::memcmp(both.data(), found.data(), found.size() * 4) == 0,
                 "VQ-16 %s: a picture alone and in a list, the same bits %s", name, e.message.c_str());
    parvis::DecodeOptions small = o;
    small.outHeight = small.outWidth = 256;
    std::vector<uint8_t> bytes(256 * 256 * 3);
    e = cuda->decode(tokens.data(), small, bytes.data(), nullptr, cancel);
    cases::check(e.ok(), "VQ-16 %s: at 256 px, bytes %s", name, e.message.c_str());
    std::vector<int32_t> ours(codes.size(), -1);
    e = cuda->encode(picture.data(), 1, side, side, ours.data(), cancel);
    int same = 0;
    for (size_t i = 0; i < codes.size(); i++) same += ours[i] == codes[i];
    // Rounding decides between neighbours of the codebook, and random ones lie close together.
    cases::check(encoded.ok() && e.ok() && same >= (wide ? 560 : 480),
                 "VQ-16 %s: %d of %d codes of a picture as on the CPU in float32 %s", name, same, official::tokens,
                 e.message.c_str());
  }
}
#else
void tokenizer(parvis::Backend&, std::shared_ptr<parvis::cuda::Device>) {
  std::printf("skipped VQ-16: this build has no tokenizer\n");
}
#endif

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::vector<std::string> wanted;
  for (int i = 1; i < count; i++) {
    if (std::strcmp(arguments[i], "--seconds") == 0 && i + 1 < count) budget = std::atof(arguments[++i]);
    else wanted.push_back(arguments[i]);
  }
  const auto device = std::make_shared<parvis::cuda::Device>(0);
  if (const Status s = device->use(); !s.ok()) {
    std::printf("not ok no device: %s\n", s.message.c_str());
    return 1;
  }
  const auto cpuBackend = parvis::createCpuBackend(0);
  const auto asked = [&](const std::string& name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  // Those that differ most come first: what time does not allow is said to be left out.
  for (const char* name : {"B", "XXL", "VQ-16", "3B", "L", "XL"}) {
    if (!asked(name)) continue;
    if (const official::Size* size = official::sizeOf(name)) transformer(*size, *cpuBackend, device);
    else tokenizer(*cpuBackend, device);
  }
  return cases::failures > 0;
}
