// Picks the instruction set and hands out models.
#include <new>

#include "../common/transformer.h"
#include "ceiling.h"
#include "kernels.h"
#include "machine.h"
#include "parvis/backend.h"
#include "session.h"
#include "tokenizer.h"
#include "video.h"

namespace parvis::cpu {

#define PARVIS_DECLARE(name)           \
  extern const Kernels kernels_##name; \
  extern const Sampler sampler_##name;
PARVIS_DECLARE(baseline)
#if defined(PARVIS_X86)
PARVIS_DECLARE(avx2)
PARVIS_DECLARE(avx512)
PARVIS_DECLARE(avx512_bf16)
#elif defined(PARVIS_ARM64)
PARVIS_DECLARE(neon_bf16)
#endif

#if defined(PARVIS_X86)
#define PARVIS_EACH(prefix) &prefix##_baseline, &prefix##_avx2, &prefix##_avx512, &prefix##_avx512_bf16
#elif defined(PARVIS_ARM64)
#define PARVIS_EACH(prefix) &prefix##_baseline, &prefix##_neon_bf16
#else
#define PARVIS_EACH(prefix) &prefix##_baseline
#endif

const Kernels& kernels() {
  static const Kernels* const all[] = {PARVIS_EACH(kernels)};
  static const Kernels& best = *all[bestIsa()];
  return best;
}

const Sampler& sampler() {
  static const Sampler* const all[] = {PARVIS_EACH(sampler)};
  static const Sampler& best = *all[bestIsa()];
  return best;
}

Numbers numbersOf(Precision precision) {
  if (precision == Precision::float32) return {};
  return {formatFor(precision), Element::bfloat16, kernels().activations};
}

size_t attentionScratch(int slots, int headSize) {
  constexpr size_t maxRows = 8;  // tileRows of the widest instruction set
  return maxRows * (static_cast<size_t>(slots) * 8 + static_cast<size_t>(roundUp(headSize, 32)) * 4) + 256;
}

class CpuBackend : public Backend {
 public:
  CpuBackend(int threads, bool fewer) : threads_(std::make_shared<Threads>(threads, fewer)) {}
  std::string isa() const override { return kernels().isa; }
  int threads() const override { return threads_->count(); }
  Status loadTransformer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                         const TransformerModel& model, Precision precision, const Cancel& cancel,
                         std::shared_ptr<Transformer>& out) override {
    return CpuTransformer::load(threads_, file, weights, model, precision, cancel, out);
  }
  Status loadTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                       const TokenizerModel& model, Precision precision, const Cancel& cancel,
                       std::shared_ptr<Tokenizer>& out) override {
    return CpuTokenizer::load(threads_, file, weights, model, precision, cancel, out);
  }
  Status loadVideoTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                            const VideoTokenizerModel& model, Precision precision, const Cancel& cancel,
                            std::shared_ptr<VideoTokenizer>& out) override {
    return CpuVideoTokenizer::load(threads_, file, weights, model, precision, cancel, out);
  }
  Status measureCeilings(Ceilings& out) override { return cpu::measureCeilings(*threads_, out); }

 private:
  std::shared_ptr<Threads> threads_;
};

}  // namespace parvis::cpu

namespace parvis {

CpuInfo cpuInfo(const std::string& root) {
  const cpu::ThreadLimit processor = cpu::threadLimit(root);
  const cpu::MemoryLimit memory = cpu::memoryLimit(root);
  return {cpu::kernels().isa, cpu::instructionSets(), cpu::kernels().activations == cpu::Element::bfloat16,
          processor.cores,    processor.threads,      processor.quota,
          processor.group,    memory.total,           memory.free,
          memory.group,       cpu::memoryChecked()};
}

MemoryPlan planCpu(const TransformerModel& model, Precision precision, int threads, const SessionOptions* session) {
  const cpu::Numbers numbers = cpu::numbersOf(precision);
  cpu::Loader loader(nullptr, precision);
  cpu::CpuTransformer transformer;
  planTransformer(loader, transformer, model);
  return {loader.bytes(), session ? cpu::SessionLayout(model, numbers, threads, *session).bytes : 0};
}

void addProducts(const Products& products) { cpu::kernels().addProducts(products); }

std::unique_ptr<Backend> createCpuBackend(int threads) {
  try {
    return std::make_unique<cpu::CpuBackend>(threads > 0 ? threads : cpu::threadLimit().threads, threads == 0);
  } catch (const std::exception&) {
    return nullptr;
  }
}

}  // namespace parvis
