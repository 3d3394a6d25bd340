#include "transformer.h"

#include <algorithm>

#include "../common/steps.h"
#include "../common/transformer.h"
#include "session.h"

namespace parvis::cuda {

namespace {

// What the kernels can run; larger models are refused by name, not by a failing launch.
Status checkModel(const TransformerModel& m) {
  const auto refuse = [](const std::string& what) {
    return Status{Code::deviceUnavailable, "The CUDA backend cannot run this model: " + what + ". Use device 'cpu'."};
  };
  if (m.dim % 2 != 0) return refuse("its width of " + std::to_string(m.dim) + " is odd");
  if (m.headSize % 4 != 0 || m.headSize > maxHeadSize)
    return refuse("a head size of " + std::to_string(m.headSize) + " is not a multiple of 4 up to " +
                  std::to_string(maxHeadSize));
  if (m.feedForward % 2 != 0) return refuse("its feed-forward width of " + std::to_string(m.feedForward) + " is odd");
  return {};
}

}  // namespace

Status CudaTransformer::load(std::shared_ptr<Device> device, const CheckpointFile& file,
                             const std::vector<WeightSource>& weights, const TransformerModel& m, Precision precision,
                             const Cancel& cancel, std::shared_ptr<Transformer>& out) {
  if (Status s = device->use(); !s.ok()) return s;
  if (Status s = checkModel(m); !s.ok()) return s;
  auto t = std::make_shared<CudaTransformer>();
  t->device_ = device;
  t->model_ = m;
  t->element_ = elementOf(precision);
  Tensors source;
  if (Status s = source.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(source, precision);
  planTransformer(loader, *t, m);
  if (Status s = loader.load(device, t->memory_, cancel); !s.ok()) return s;

  Layout layout;
  const size_t cosine = layout.add(angleBytes(m)), sine = layout.add(angleBytes(m));
  if (Status s =
          DeviceMemory::allocate(device, layout.bytes(), {"Rotation tables", modelCure(t->element_)}, t->angles_);
      !s.ok())
    return s;
  t->cosine_ = reinterpret_cast<float*>(t->angles_.data() + cosine);
  t->sine_ = reinterpret_cast<float*>(t->angles_.data() + sine);
  if (Status s = t->growAngles(64); !s.ok()) return s;
  device->keeps(t.get());
  out = std::move(t);
  return {};
}

CudaTransformer::~CudaTransformer() {
  if (device_) device_->forgets(this);
}

std::unique_ptr<Workspace> CudaTransformer::takeKept(const SessionOptions& options) {
  std::unique_ptr<Workspace> kept = exchangeKept(nullptr);
  if (kept && !kept->fits(options)) kept.reset();
  if (kept) kept->idle = false;
  return kept;
}

void CudaTransformer::keep(std::unique_ptr<Workspace> workspace) {
  if (workspace->bytes() > Workspace::maxKeptBytes) return;
  workspace->idle = true;
  exchangeKept(std::move(workspace));
}

std::unique_ptr<Workspace> CudaTransformer::exchangeKept(std::unique_ptr<Workspace> workspace) {
  const std::lock_guard<std::mutex> hold(keptLock_);
  return std::exchange(kept_, std::move(workspace));
}

size_t CudaTransformer::reclaimableBytes() {
  const std::lock_guard<std::mutex> hold(keptLock_);
  return kept_ ? kept_->bytes() : 0;
}

Status CudaTransformer::growAngles(int positions) {
  if (positions <= angledPositions_) return {};
  positions = std::min(maxPosition, (positions + 63) / 64 * 64);
  const int pairs = rotatedPairs(model_);
  std::vector<float> cosine, sine;
  for (int p = angledPositions_; p < positions; p++)
    for (int k = 0; k < pairs; k++) {
      const Angle a = rotationAngle(model_, p, k);
      cosine.push_back(a.cosine);
      sine.push_back(a.sine);
    }
  const size_t at = static_cast<size_t>(angledPositions_) * static_cast<size_t>(pairs);
  const auto copy = [&](float* to, std::vector<float>& table) {
    const std::vector<float>& from = angleTables_.emplace_back(std::move(table));
    return statusOf(cudaMemcpyAsync(to + at, from.data(), from.size() * 4, cudaMemcpyHostToDevice, device_->stream()),
                    "copying rotation tables");
  };
  if (Status s = copy(cosine_, cosine); !s.ok()) return s;
  if (Status s = copy(sine_, sine); !s.ok()) return s;
  angledPositions_ = positions;
  return {};
}

Status CudaTransformer::createSession(const SessionOptions& options, std::unique_ptr<Session>& out) {
  if (Status s = checkSession(model_, options); !s.ok()) return s;
  if (Status s = device_->use(); !s.ok()) return s;
  auto session = std::make_unique<CudaSession>(std::static_pointer_cast<CudaTransformer>(shared_from_this()), options);
  Status s = session->allocate();
  if (s.ok()) out = std::move(session);
  return s;
}

}  // namespace parvis::cuda
