#pragma once
#include "device.h"
#include "loader.h"
#include "parvis/backend.h"
namespace parvis::cuda {
struct CudaTokenizer {
  static Status load(std::shared_ptr<Device>, const std::string&, const std::vector<TensorSource>&, const TokenizerModel&, Precision, const Cancel&, std::shared_ptr<Tokenizer>&) { return {Code::internal, "not yet"}; }
};
}
