// What can be said of entries without running them: `list FILE...` prints a line for each, whether it waits for the
// kernel before (griddepcontrol.wait) on every path, and which loads and stores of global memory some path has before
// that. cuda/platform.cuh says why these may only be loads of weights.
#include <cstdio>

#include "program.h"

namespace {

using ptx::Instruction;

void list(const ptx::Entry& e) {
  const Instruction* const first = e.code.data();
  std::vector<bool> seen(e.code.size());
  std::vector<size_t> open = {0};
  bool waits = false, ends = false;
  const auto go = [&](const Instruction* to) {
    const size_t at = static_cast<size_t>(to - first);
    if (at < seen.size() && !seen[at]) seen[at] = true, open.push_back(at);
  };
  seen[0] = true;
  std::string loads, stores;
  for (size_t k = 0; k < e.touches.size(); k++) waits = waits || e.touches[k] == ptx::Touch::wait;
  while (waits && !open.empty()) {
    const size_t at = open.back();
    open.pop_back();
    const Instruction& i = e.code[at];
    if (e.touches[at] == ptx::Touch::wait) continue;
    if (i.run == ptx::branch || i.run == ptx::branchIf || i.run == ptx::branchIfNot) go(i.target);
    if (i.run == ptx::guard || i.run == ptx::guardNot) go(&i + 2);
    if (i.run == e.code.back().run) ends = true;
    else if (i.run != ptx::branch) go(&i + 1);
  }
  for (size_t k = 0; waits && k < e.code.size(); k++)
    if (seen[k] && e.touches[k] != ptx::Touch::none && e.touches[k] != ptx::Touch::wait)
      (e.touches[k] == ptx::Touch::load ? loads : stores) += " " + std::to_string(e.code[k].line);
  std::printf("%s\t%s\t%s\tloads:%s\tstores:%s\n", e.name.c_str(), e.file.c_str(),
              !waits ? "never waits"
              : ends ? "may end without a wait"
                     : "waits",
              loads.c_str(), stores.c_str());
}

}  // namespace

int main(int count, char** files) {
  try {
    const ptx::Forms forms;
    for (int i = 1; i < count; i++) {
      const ptx::Module m(files[i]);
      for (const std::string& name : m.entries()) list(*m.decode(name, forms));
    }
  } catch (const ptx::Failure& failure) {
    std::fprintf(stderr, "ptx: %s\n", failure.message.c_str());
    return 3;
  }
}
