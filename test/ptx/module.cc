// The text of a PTX file: words, and where its entries are. Only what nvcc writes is read; anything else is refused by
// its line, so that nothing is run that was half understood.
#include <cxxabi.h>

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "program.h"

namespace ptx {

void refuse(const std::string& file, uint32_t line, const std::string& what) {
  throw Failure{file + ":" + std::to_string(line) + ": " + what};
}

size_t bytesOf(std::string_view type) {
  if (type.size() < 3 || type[0] != '.' || std::string_view("busf").find(type[1]) == std::string_view::npos) return 0;
  const std::string_view bits = type.substr(2);
  return bits == "8" ? 1 : bits == "16" ? 2 : bits == "32" ? 4 : bits == "64" ? 8 : 0;
}

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  const std::string result = text ? text : name;
  std::free(text);
  return result;
}

// Words have letters, digits, `.`, `%`, `$`, `_` and `::`; a string is one; everything else stands for itself.
std::vector<Token> tokens(const std::string& text, const std::string& file) {
  std::vector<Token> found;
  uint32_t line = 1;
  const auto isWord = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '%' || c == '$' || c == '_';
  };
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\n') line++, i++;
    else if (c == ' ' || c == '\t' || c == '\r') i++;
    else if (c == '/' && i + 1 < text.size() && text[i + 1] == '/') i = std::min(text.find('\n', i), text.size());
    else if (c == '"') {
      const size_t end = text.find('"', i + 1);
      if (end == std::string::npos) refuse(file, line, "a string that does not end");
      found.push_back({std::string_view(text).substr(i, end + 1 - i), line});
      i = end + 1;
    } else if (isWord(c)) {
      size_t end = i;
      while (end < text.size() && (isWord(text[end]) || (text[end] == ':' && text.compare(end, 2, "::") == 0)))
        end += text[end] == ':' ? 2 : 1;
      found.push_back({std::string_view(text).substr(i, end - i), line});
      i = end;
    } else if (std::string_view("{}[]()<>,;:@!|+-=").find(c) != std::string_view::npos) {
      found.push_back({std::string_view(text).substr(i++, 1), line});
    } else refuse(file, line, std::string("a character that is not understood: ") + c);
  }
  return found;
}

Module::Module(const std::string& file) : file_(file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Failure{file + ": cannot be read"};
  std::stringstream whole;
  whole << in.rdbuf();
  text_ = whole.str();
  tokens_ = tokens(text_, file);
  const auto word = [&](size_t i) { return i < tokens_.size() ? tokens_[i].text : std::string_view(); };
  for (size_t i = 0; i < tokens_.size();) {
    const std::string_view w = word(i);
    if (w == ".version" || w == ".target" || w == ".address_size") {
      if (w == ".address_size" && word(i + 1) != "64") refuse(file, tokens_[i].line, "addresses of other than 64 bits");
      i += 2;
    } else if (w == ".visible" || w == ".weak") i++;
    else if (w == ".entry") {
      entries_[std::string(word(i + 1))] = i + 1;
      while (i < tokens_.size() && word(i) != "{") i++;
      for (int depth = 0; i < tokens_.size(); i++) {
        if (word(i) == "{") depth++;
        if (word(i) == "}" && --depth == 0) break;
      }
      i++;
    } else if (w == ".extern" && word(i + 1) == ".shared" && word(i + 2) == ".align" && word(i + 6) == "[" &&
               word(i + 7) == "]" && word(i + 8) == ";") {
      shared_.push_back(
          {std::string(word(i + 5)), 0, std::strtoull(std::string(word(i + 3)).c_str(), nullptr, 10), true});
      i += 9;
    } else refuse(file, tokens_[i].line, "not understood outside of an entry: " + std::string(w));
  }
}

std::vector<std::string> Module::entries() const {
  std::vector<std::string> names;
  for (const auto& [name, at] : entries_) names.push_back(name);
  return names;
}

std::unique_ptr<Entry> Module::decode(const std::string& mangled, const Forms& forms) const {
  return decodeEntry(file_, tokens_, entries_.at(mangled), shared_, forms);
}

Forms::Forms() {
  addArithmetic(*this);
  addConversions(*this);
  addMemory(*this);
  addWarp(*this);
  addCopies(*this);
}

}  // namespace ptx
