// The CUDA backend behind the seam: one device, taken by the first call.
#include "parvis/backend.h"

#include "ceiling.h"
#include "device.h"
#include "parvis/cuda.h"
#include "tokenizer.h"
#include "transformer.h"
#include "video.h"

namespace parvis {

namespace cuda {

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device) : device_(std::make_shared<Device>(device)) {}
  std::string isa() const override { return device_->architecture(); }
  int threads() const override { return 0; }
  std::string launches() const override {
    const Launches way = device_->launches();
    return way == Launches::graphs ? "graphs" : way == Launches::plainGraphs ? "plain graphs" : "kernels";
  }
  Status loadTransformer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                         const TransformerModel& model, Precision precision, const Cancel& cancel,
                         std::shared_ptr<Transformer>& out) override {
    return CudaTransformer::load(device_, file, weights, model, precision, cancel, out);
  }
  Status loadTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                       const TokenizerModel& model, Precision precision, const Cancel& cancel,
                       std::shared_ptr<Tokenizer>& out) override {
    return CudaTokenizer::load(device_, file, weights, model, precision, cancel, out);
  }
  Status loadVideoTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                            const VideoTokenizerModel& model, Precision precision, const Cancel& cancel,
                            std::shared_ptr<VideoTokenizer>& out) override {
    return CudaVideoTokenizer::load(device_, file, weights, model, precision, cancel, out);
  }
  Status measureCeilings(Ceilings& out) override { return cuda::measureCeilings(device_, out); }

 private:
  std::shared_ptr<Device> device_;
};

}  // namespace cuda

std::unique_ptr<Backend> createCudaBackend(int device) { return std::make_unique<cuda::CudaBackend>(device); }

}  // namespace parvis
