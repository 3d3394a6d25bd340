#include "machine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/stat.h>
#endif

namespace parvis::cpu {

bool memoryChecked() {
  const char* set = std::getenv("PARVIS_MEMORY_CHECK");
  const std::string_view value = set ? set : "";
  return value != "0" && value != "off" && value != "false";
}

#if defined(__linux__)

namespace {

using Text = std::string_view;

// ---- files --------------------------------------------------------------------------------------------------

constexpr uint64_t none = UINT64_MAX;

// Empty where there is no such file. Such files are short; the table of mounts of a busy host is some 100 KB.
std::string contents(const std::string& path) {
  constexpr size_t most = 16u << 20;
  std::string text;
  std::FILE* f = std::fopen(path.c_str(), "re");
  if (!f) return text;
  char piece[4096];
  for (size_t got; text.size() < most && (got = std::fread(piece, 1, sizeof piece, f)) > 0;) text.append(piece, got);
  std::fclose(f);
  return text;
}

Text next(Text& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const Text part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

Text trimmed(Text t) {
  while (!t.empty() && (t.front() == ' ' || t.front() == '\t')) t.remove_prefix(1);
  return t.substr(0, std::min(t.find_first_of(" \t\n"), t.size()));
}

// The number that the text begins with. "max", "-1", nothing, and what version 1 writes for "no limit" (2^63 less a
// page) are none.
uint64_t number(Text text) {
  text = trimmed(text);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value < (1ull << 60) ? value : none;
}

uint64_t numberIn(const std::string& path) { return number(contents(path)); }

// The number behind `key` in a file of lines; none where there is no such line.
uint64_t numberIn(Text lines, Text key) {
  while (!lines.empty()) {
    const Text line = next(lines, '\n');
    if (line.size() > key.size() && line.substr(0, key.size()) == key &&
        (line[key.size()] == ' ' || line[key.size()] == '\t'))
      return number(line.substr(key.size()));
  }
  return none;
}

uint64_t orZero(uint64_t value) { return value == none ? 0 : value; }
uint64_t minus(uint64_t from, uint64_t what) { return from > what ? from - what : 0; }

bool isFolder(const std::string& path) {
  struct stat about;
  return stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

// ---- control groups -----------------------------------------------------------------------------------------

struct Group {
  std::string folder, name;
};

// A mounted hierarchy of groups: `root` is the group that lies at `point`.
struct Mount {
  std::string root, point;
};

// Spaces and the like are octal in the table of mounts.
std::string unescaped(Text text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const auto digit = [&](size_t k) {
      return i + k < text.size() && text[i + k] >= '0' && text[i + k] < '8' ? text[i + k] - '0' : -1;
    };
    if (text[i] == '\\' && digit(1) >= 0 && digit(2) >= 0 && digit(3) >= 0) {
      out += static_cast<char>(digit(1) << 6 | digit(2) << 3 | digit(3));
      i += 3;
    } else out += text[i];
  }
  return out;
}

bool listed(Text list, Text item) {
  while (!list.empty())
    if (next(list, ',') == item) return true;
  return false;
}

// controller: of version 1; empty for version 2.
std::vector<Mount> mounts(Text table, Text controller) {
  std::vector<Mount> found;
  while (!table.empty()) {
    Text line = next(table, '\n');
    std::vector<Text>
        fields;  // id, parent, device, root, mount point, options, any number of tags, "-", type, source, options
    while (!line.empty()) fields.push_back(next(line, ' '));
    const auto dash = fields.size() > 6 ? std::find(fields.begin() + 6, fields.end(), "-") : fields.end();
    if (fields.end() - dash < 4) continue;
    if (controller.empty() ? dash[1] == "cgroup2" : dash[1] == "cgroup" && listed(dash[3], controller))
      found.push_back({unescaped(fields[3]), unescaped(fields[4])});
  }
  return found;
}

// The path of the own group, as far as the process may know: a container may be told that it is "/".
std::string ownGroup(Text table, Text controller) {
  while (!table.empty()) {
    Text line = next(table, '\n');
    next(line, ':');
    const Text controllers = next(line, ':');
    if (controller.empty() ? controllers.empty() : listed(controllers, controller))
      return line.substr(0, 1) == "/" ? std::string(line) : "/";
  }
  return "/";
}

// Names are somebody else's text, and messages are printed.
std::string printable(std::string name) {
  for (char& c : name)
    if (c < ' ' || c > '~') c = '?';
  return name.size() > 160 ? "..." + name.substr(name.size() - 157) : name;
}

struct Tables {
  explicit Tables(const std::string& root)
      : root(root), groups(contents(root + "/proc/self/cgroup")), mounts(contents(root + "/proc/self/mountinfo")) {}
  std::string root, groups, mounts;
};

// The own group of a controller and all above it that can be seen, the own one first.
std::vector<Group> groups(const Tables& tables, Text controller) {
  const std::string &root = tables.root, own = ownGroup(tables.groups, controller);
  std::vector<Mount> all = mounts(tables.mounts, controller);
  if (all.empty())
    all.push_back({"/", controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + std::string(controller)});
  // In a container the group that is mounted is often the own one. Of several mounts the one that shows the most groups
  // counts.
  const Text whole = own == "/" ? "" : Text(own);
  const Mount* best = nullptr;
  std::string path;
  for (const Mount& m : all) {
    const Text top = m.root == "/" ? "" : Text(m.root);
    if (whole.substr(0, top.size()) != top || (whole.size() > top.size() && whole[top.size()] != '/')) continue;
    const std::string below(whole.substr(top.size()));
    if (!isFolder(root + m.point + below) || (best && m.root.size() >= best->root.size())) continue;
    best = &m;
    path = below;
  }
  if (!best) {
    // Names of another view of the hierarchy: the longest end of the path that is there, else what is mounted.
    best = &all.front();
    path = whole;
    while (!path.empty() && (path.find("/..") != std::string::npos || !isFolder(root + best->point + path)))
      path.erase(0, std::min(path.find('/', 1), path.size()));
  }
  std::vector<Group> out;
  for (;; path.erase(path.rfind('/'))) {
    const std::string name = (best->root == "/" ? "" : best->root) + path;
    out.push_back({root + best->point + path, printable(name.empty() ? "/" : name)});
    if (path.empty()) return out;
  }
}

}  // namespace

// ---- memory -------------------------------------------------------------------------------------------------

MemoryLimit memoryLimit(const std::string& root) {
  MemoryLimit out;
  const Tables tables(root);
  const std::string machine = contents(root + "/proc/meminfo");
  const uint64_t available = numberIn(machine, "MemAvailable:");
  uint64_t swap = orZero(numberIn(machine, "SwapFree:")) << 10;
  out.total = orZero(numberIn(machine, "MemTotal:")) << 10;
  if (available != none) {
    out.free = (available << 10) + swap;
    // ZFS gives up its cache down to a minimum, and Linux does not count that as available. Where a container has a
    // /proc/meminfo of its own the cache is not its memory.
    const std::string cache = contents(root + "/proc/spl/kstat/zfs/arcstats");
    if (!cache.empty() && tables.mounts.find(" /proc/meminfo ") == std::string::npos) {
      const auto row = [&](Text key) -> uint64_t {  // name, type, value
        const size_t at = cache.find("\n" + std::string(key) + " ");
        if (at == std::string::npos) return 0;
        Text line = Text(cache).substr(at + 1 + key.size());
        line = line.substr(0, line.find('\n'));
        return orZero(number(line.substr(std::min(line.find_last_of(' '), line.size()))));
      };
      out.free += minus(row("size"), row("c_min"));
    }
  }
  const auto consider = [&](uint64_t limit, uint64_t free, const Group& group) {
    if (out.free > 0 && free >= out.free) return;
    out = {limit, std::max<uint64_t>(free, 1), group.name};  // 0 would be "unknown"
  };

  // File pages that were not used lately are given up at once. `file` would also count those of tmpfs, which are not.
  const std::vector<Group> second = groups(tables, "");
  uint64_t swapLeft = swap;
  for (const Group& g : second) {
    const uint64_t limit = numberIn(g.folder + "/memory.swap.max");
    if (limit != none) swapLeft = std::min(swapLeft, minus(limit, orZero(numberIn(g.folder + "/memory.swap.current"))));
  }
  for (const Group& g : second) {
    const uint64_t limit = std::min(numberIn(g.folder + "/memory.max"), numberIn(g.folder + "/memory.high"));
    if (limit == none) continue;
    const uint64_t held = minus(orZero(numberIn(g.folder + "/memory.current")),
                                orZero(numberIn(contents(g.folder + "/memory.stat"), "inactive_file")));
    consider(limit, minus(limit, held) + swapLeft, g);
  }

  bool own = true;
  for (const Group& g : groups(tables, "memory")) {
    uint64_t limit = numberIn(g.folder + "/memory.limit_in_bytes"),
             both = numberIn(g.folder + "/memory.memsw.limit_in_bytes");
    // The own statistics also have the limits of all groups above, those that a container does not see included.
    const std::string stat = own || limit != none || both != none ? contents(g.folder + "/memory.stat") : "";
    limit = std::min(limit, numberIn(stat, "hierarchical_memory_limit"));
    both = std::min(both, numberIn(stat, "hierarchical_memsw_limit"));
    const auto held = [&](const char* file) {
      return minus(orZero(numberIn(g.folder + file)), orZero(numberIn(stat, "total_inactive_file")));
    };
    if (limit != none)
      consider(
          limit,
          minus(limit, held("/memory.usage_in_bytes")) + (numberIn(g.folder + "/memory.swappiness") == 0 ? 0 : swap),
          g);
    if (both != none) consider(both, minus(both, held("/memory.memsw.usage_in_bytes")), g);
    if (numberIn(g.folder + "/memory.use_hierarchy") == 0) break;  // the groups above do not count this one
    own = false;
  }
  return out;
}

// ---- processors ---------------------------------------------------------------------------------------------

ThreadLimit threadLimit(const std::string& root) {
  ThreadLimit out;
  const Tables tables(root);
  cpu_set_t set;
  out.cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                          : static_cast<int>(std::thread::hardware_concurrency());
  out.cores = std::max(1, out.cores);
  const auto consider = [&](uint64_t quota, uint64_t period, const Group& group) {
    if (quota == none || period == none || quota == 0 || period == 0) return;
    const double cpus = static_cast<double>(quota) / static_cast<double>(period);
    if (out.quota > 0 && cpus >= out.quota) return;
    out.quota = cpus;
    out.group = group.name;
  };
  for (const Group& g : groups(tables, "")) {
    const std::string line = contents(g.folder + "/cpu.max");
    Text rest = line;
    const uint64_t quota = number(next(rest, ' '));
    consider(quota, number(rest), g);
  }
  for (const Group& g : groups(tables, "cpu"))
    consider(numberIn(g.folder + "/cpu.cfs_quota_us"), numberIn(g.folder + "/cpu.cfs_period_us"), g);
  out.threads = out.quota > 0 ? static_cast<int>(std::clamp(std::ceil(out.quota), 1.0, static_cast<double>(out.cores)))
                              : out.cores;
  return out;
}

#else

MemoryLimit memoryLimit(const std::string&) {
  MemoryLimit out;
#if defined(_WIN32)
  MEMORYSTATUSEX status;
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status)) out = {status.ullTotalPhys, status.ullAvailPhys, ""};
#endif
  return out;
}

ThreadLimit threadLimit(const std::string&) {
  ThreadLimit out;
  out.cores = out.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return out;
}

#endif

}  // namespace parvis::cpu
