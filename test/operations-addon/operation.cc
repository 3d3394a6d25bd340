#include "operation.h"

#include <cmath>
#include <string>

#include "../../common/steps.h"

namespace parvis {

std::vector<std::vector<int64_t>> operationInputs(const Operation& o) {
  using Shapes = std::vector<std::vector<int64_t>>;
  switch (o.kind) {
    case Operation::Kind::projection: {
      Shapes s = {{o.rows, o.inputs}};
      if (o.normed) s.push_back({o.inputs});
      const bool swiglu = o.epilogue == Operation::Epilogue::swiglu;
      s.push_back({(swiglu ? 2 : 1) * static_cast<int64_t>(o.outputs), o.inputs});
      if (o.epilogue == Operation::Epilogue::add) s.push_back({o.rows, o.outputs});
      return s;
    }
    case Operation::Kind::attention: {
      const std::vector<int64_t> cache = {o.streams, o.kvHeads, o.sees - o.rows, o.headSize};
      const int64_t rows = static_cast<int64_t>(o.streams) * o.rows;
      const int64_t outputs = (o.heads + 2 * static_cast<int64_t>(o.kvHeads)) * o.headSize;
      return {{rows, o.dim}, {o.dim}, {outputs, o.dim}, cache, cache};
    }
    case Operation::Kind::draw: {
      Shapes s = {{o.draws, o.vocabulary}};
      if (o.guided) s.push_back({o.draws, o.vocabulary});
      return s;
    }
    case Operation::Kind::convolution: {
      Shapes s = {{o.images, o.height, o.width, o.channels}, {o.outputs, o.channels, o.kernel, o.kernel}, {o.outputs}};
      if (o.groups > 0) s.insert(s.end(), 2, {o.channels});
      const int64_t up = o.resample == Operation::Resample::up ? 2 : 1;
      const int64_t down = o.resample == Operation::Resample::down ? 2 : 1;
      if (o.residual) s.push_back({o.images, o.height * up / down, o.width * up / down, o.outputs});
      return s;
    }
    case Operation::Kind::spatialAttention: {
      Shapes s = {{o.images, o.height, o.width, o.channels}, {o.channels}, {o.channels}};
      for (int i = 0; i < 4; i++) {
        s.push_back({o.channels, o.channels});
        s.push_back({o.channels});
      }
      return s;
    }
  }
  return {};
}

Status checkOperation(const Operation& o, const Inputs& inputs) {
  const auto in = [](int n, int least, int most) { return n >= least && n <= most; };
  const auto wrong = [](const std::string& what) {
    return Status(Code::invalidOption, "An operation cannot run: " + what + ".");
  };
  bool good = o.eps > 0;
  switch (o.kind) {
    case Operation::Kind::projection:
      good = good && in(o.rows, 1, 1 << 16) && in(o.inputs, 1, 1 << 20) && in(o.outputs, 1, 1 << 22);
      break;
    case Operation::Kind::attention:
      good = good && in(o.rows, 1, 1 << 16) && in(o.streams, 1, 1 << 12) && in(o.sees, o.rows, 1 << 20) &&
             in(o.dim, 1, 1 << 20) && in(o.heads, 1, 4096) && in(o.kvHeads, 1, o.heads) && o.heads % o.kvHeads == 0 &&
             in(o.headSize, 4, 4096) && o.headSize % 4 == 0 && in(o.grid, 1, 1 << 10) &&
             (o.sees - 1) / o.grid < maxPosition;
      break;
    case Operation::Kind::draw:
      good = good && in(o.draws, 1, 1 << 16) && in(o.vocabulary, 1, 1 << 24) && std::isfinite(o.guidance) &&
             o.rule.temperature >= 0 && o.rule.topP > 0 && o.rule.topK >= 0;
      break;
    case Operation::Kind::convolution: {
      const bool even = o.height % 2 == 0 && o.width % 2 == 0;
      good = good && in(o.outputs, 1, 1 << 16) && (o.kernel == 1 || o.kernel == 3) &&
             (o.resample == Operation::Resample::none || o.kernel == 3) &&
             (o.resample != Operation::Resample::down || even);
    }
      [[fallthrough]];
    case Operation::Kind::spatialAttention:
      good = good && in(o.images, 1, 4096) && in(o.height, 1, 1 << 14) && in(o.width, 1, 1 << 14) &&
             in(o.channels, 1, 1 << 16);
      good =
          good && (o.groups == 0 ? o.kind == Operation::Kind::convolution : o.groups > 0 && o.channels % o.groups == 0);
      break;
  }
  if (!good) return wrong("a size is outside its range");
  const auto shapes = operationInputs(o);
  good = shapes.size() == inputs.size();
  for (size_t i = 0; good && i < shapes.size(); i++) {
    size_t count = 1;
    for (const int64_t d : shapes[i]) count *= static_cast<size_t>(d);
    good = inputs[i].size() == count;
  }
  return good ? Status{} : wrong("its inputs are not of the shapes that it has");
}

}  // namespace parvis
