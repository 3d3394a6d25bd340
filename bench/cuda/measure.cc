// What the CUDA backend reaches on the device at hand, beside what the device can do. Random weights of the official
// shapes. One JSON object on standard output, progress on standard error.
//   measure [--out FILE] [--date DATE] [--seconds 200] --parts LIST
// LIST: parts between commas, in their order. MODEL: XXL 3B L XL B; N: tokens a step.
//   probe              what the machine lets programs do, and the graph of a step of XXL
//   read, constants    the device's bandwidth; what kernels that follow each other cost, and a flag between blocks
//   sweep:MODEL:N      a step with each choice of Tuning, and with less overlap
//   step:MODEL:N       steps as a caller runs them, against steps in one graph; the kernels of one by themselves
//   same:MODEL:N       pictures of one seed, again and again, with each overlap and without graphs
//   generate:MODEL:N[:BATCH]   pictures from the first row to the last pixel
//   projections:MODEL, attention:MODEL, draws, vq   kernels by themselves
// A part that fails, or for which no time is left, says so in its entry. --out is written after every part.
#include "measure-kernels.h"
#include "measure-steps.h"
#include "parvis/cuda.h"

namespace {

// ---- everything -----------------------------------------------------------------------------------------------

// The model that the part before needed stays.
std::shared_ptr<parvis::Transformer> loaded;
std::string loadedName;
CudaTransformer* loadedModel(Checked& check, const std::string& name) {
  if (loaded && loadedName == name) return static_cast<CudaTransformer*>(loaded.get());
  loaded.reset();
  const official::Size* const size = official::sizeOf(name);
  if (!size) {
    check.fail("no such model");
    return nullptr;
  }
  const parvis::TransformerModel m = official::model(*size);
  const official::Weights weights(official::tensorsOf(m));
  if (!weights.good()) {
    check.fail("writing random weights failed");
    return nullptr;
  }
  if (!succeeded(check, CudaTransformer::load(device, weights.file, weights.weights, m, parvis::Precision::bfloat16,
                                              never, loaded)))
    return nullptr;
  loadedName = name;
  return static_cast<CudaTransformer*>(loaded.get());
}

std::shared_ptr<parvis::Tokenizer> loadedTokenizer;
parvis::Tokenizer* tokenizer(Checked& check) {
  if (!loadedTokenizer) {
    const official::Weights weights(official::tensorsOf(official::vq16()));
    succeeded(check, CudaTokenizer::load(device, weights.file, weights.weights, official::vq16(),
                                         parvis::Precision::bfloat16, never, loadedTokenizer));
  }
  return loadedTokenizer.get();
}

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == by) parts.emplace_back();
    else parts.back() += c;
  return parts;
}

// A part by its words, as the first lines of this file have them.
void measure(const std::string& part, Checked& check, Json& fields) {
  const std::vector<std::string> words = split(part, ':');
  const std::string& what = words[0];
  const auto number = [&](size_t i, int otherwise) {
    return words.size() > i ? std::atoi(words[i].c_str()) : otherwise;
  };
  const int n = number(2, 4), batch = number(3, 1);
  if (n < 1 || batch < 1 || official::tokens % n != 0) return check.fail("not a number of tokens or pictures");
  if (what == "read") return reading(check, fields);
  if (what == "constants") return constants(check, fields);
  if (what == "draws") return draws(check, fields);
  if (what == "vq") {
    parvis::Tokenizer* const t = tokenizer(check);
    std::vector<std::string> list;
    for (const int pictures : {1, 16}) {
      Json j;
      if (check.ok()) decodes(check, j, *t, pictures, pictures == 1 ? 30 : 5);
      list.push_back(j.done());
    }
    fields.raw("decodes", Json::list(list));
    return;
  }
  const std::string name = what == "probe" ? "XXL" : words.size() > 1 ? words[1] : "";
  fields.text("model", name);
  CudaTransformer* const t = loadedModel(check, name);
  if (!t) return;
  if (what == "probe") return probe(check, fields, *t);
  if (what == "sweep") return sweep(check, fields, *t, n);
  if (what == "step") return step(check, fields, *t, n, batch);
  if (what == "same") return same(check, fields, *t, n);
  if (what == "generate")
    return generate(check, fields, *t, tokenizer(check), n, batch, batch == 1 ? 7 : batch <= 8 ? 3 : 1);
  if (what == "projections" || what == "attention") {
    std::vector<std::string> list;
    const bool attends = what == "attention";
    for (const int count : attends ? std::vector<int>{1, 4, 16} : std::vector<int>{2, 8, 32, 128, 512}) {
      Json j;
      attends ? attentions(check, j, *t, count) : projections(check, j, *t, count);
      list.push_back(j.done());
    }
    fields.raw("counts", Json::list(list, ",\n   "));
    return;
  }
  check.fail("no such part");
}

std::string versionText(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> parts;
  std::string date = "unknown";
  for (int i = 1; i < count; i++) {
    const std::string a = arguments[i];
    if (i + 1 < count && a == "--out") results.file = arguments[++i];
    else if (i + 1 < count && a == "--date") date = arguments[++i];
    else if (i + 1 < count && a == "--seconds") results.seconds = std::atof(arguments[++i]);
    else if (i + 1 < count && a == "--parts") parts = split(arguments[++i], ',');
    else parts.clear(), i = count;
  }
  if (parts.empty()) {
    std::fprintf(stderr,
                 "measure: --parts LIST [--out FILE] [--date DATE] [--seconds 200]; measure.cc lists the parts\n");
    return 2;
  }
  device = std::make_shared<Device>(0);
  if (const Status s = device->use(); !s.ok()) {
    std::fprintf(stderr, "measure: %s\n", s.message.c_str());
    return 1;
  }
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess ||
      cudaRuntimeGetVersion(&runtime) != cudaSuccess)
    return 1;
  l2Bytes = static_cast<size_t>(properties.l2CacheSize);
  Json d;
  d.text("name", properties.name)
      .text("capability", std::to_string(properties.major) + "." + std::to_string(properties.minor))
      .number("processors", properties.multiProcessorCount);
  d.number("memory", static_cast<double>(properties.totalGlobalMem))
      .number("l2", static_cast<double>(l2Bytes))
      .text("driver", versionText(driver))
      .text("runtime", versionText(runtime));
  results.head = "\"device\": " + d.done() + ", \"date\": " + Json::quoted(date);
  results.head += ", \"overlap\": " + std::to_string(static_cast<int>(device->overlap()));  // PARVIS_OVERLAP
  for (const std::string& part : parts)
    results.part(part, [&](Checked& check, Json& fields) { measure(part, check, fields); });
  std::fputs(results.json().c_str(), stdout);
  return results.problems() > 0;
}
