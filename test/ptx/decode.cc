// One entry of a PTX file, from words to instructions. Registers, constants and addresses become numbers of slots,
// labels become pointers, and the name of an instruction with all its modifiers must be one of the forms; only
// modifiers that say nothing about what a thread computes here (cache hints, scopes and orders of accesses) are left
// out before.
#include <algorithm>
#include <charconv>

#include "program.h"

namespace ptx {
namespace {

constexpr Slot undefined = 0xfff7dead7fb0dead;  // a NaN in either width

class Decoder {
 public:
  Decoder(const std::string& file, const std::vector<Token>& tokens, size_t at, const std::vector<Variable>& shared,
          const Forms& forms)
      : file_(file), tokens_(tokens), at_(at), forms_(forms), entry_(std::make_unique<Entry>()) {
    e().file = file.substr(file.rfind('/') + 1);
    e().name = demangled(std::string(next()));
    nowhere_ = slot(undefined);
    readParameters();
    for (const Variable& v : shared) addShared(v);
    readBody();
    resolve();
  }
  std::unique_ptr<Entry> take() { return std::move(entry_); }

 private:
  Entry& e() { return *entry_; }

  // ---- words ----------------------------------------------------------------------------------------------

  std::string_view peek(size_t ahead = 0) const {
    return at_ + ahead < tokens_.size() ? tokens_[at_ + ahead].text : std::string_view();
  }
  std::string_view next() {
    if (at_ >= tokens_.size()) refuse("the file ends within an entry");
    return tokens_[at_++].text;
  }
  bool accept(std::string_view text) { return peek() == text ? at_++, true : false; }
  void expect(std::string_view text) {
    if (!accept(text)) refuse("`" + std::string(text) + "` expected, `" + std::string(peek()) + "` found");
  }
  [[noreturn]] void refuse(const std::string& what) const {
    ptx::refuse(file_, tokens_[std::min(at_, tokens_.size() - 1)].line, what);
  }
  static bool isNumber(std::string_view w) { return !w.empty() && w[0] >= '0' && w[0] <= '9'; }
  uint64_t number(std::string_view w) const {
    int base = 10;
    std::string_view digits = w;
    if (w.starts_with("0f") || w.starts_with("0F") || w.starts_with("0d") || w.starts_with("0D")) {
      base = 16, digits.remove_prefix(2);
      if (digits.size() != (w[1] == 'f' || w[1] == 'F' ? 8u : 16u)) refuse("not a number: " + std::string(w));
    } else if (w.starts_with("0x")) base = 16, digits.remove_prefix(2);
    else if (w.ends_with("U")) digits.remove_suffix(1);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size()) refuse("not a number: " + std::string(w));
    return value;
  }
  int64_t signedNumber() {
    const bool minus = accept("-");
    const uint64_t value = number(next());
    return static_cast<int64_t>(minus ? 0 - value : value);
  }

  // ---- variables ------------------------------------------------------------------------------------------

  uint32_t slot(Slot value) {
    e().initial.push_back(value);
    return static_cast<uint32_t>(e().initial.size() - 1);
  }
  uint32_t constant(Slot value) {
    const auto [found, fresh] = constants_.try_emplace(value, 0);
    if (fresh) found->second = slot(value);
    return found->second;
  }
  // `.align 8 .b8 name[56]` or `.u32 name`.
  Variable variable() {
    Variable v{{}, 0, 0, false};
    if (accept(".align")) v.align = number(next());
    const std::string_view type = next();
    const size_t each = bytesOf(type);
    if (each == 0) refuse("not a type of a variable: " + std::string(type));
    if (accept(".ptr")) {  // what it points to says nothing about the parameter
      for (const std::string_view space : {".global", ".shared", ".const", ".local"}) accept(space);
      if (accept(".align")) next();
    }
    v.name = next();
    v.bytes = each;
    if (accept("[")) {
      v.bytes *= number(next());
      expect("]");
    }
    v.align = std::max(v.align, each);
    return v;
  }
  void readParameters() {
    expect("(");
    size_t end = 0;
    for (bool first = true; !accept(")"); first = false) {
      if (!first) expect(",");
      expect(".param");
      const Variable v = variable();
      end = (end + v.align - 1) / v.align * v.align;
      e().parameters.push_back({end, v.bytes, v.align});
      symbols_[v.name] = constant(parameterBase + end);
      end += v.bytes;
    }
    e().parameterBytes = end;
    for (;;) {
      if (accept(".maxntid")) {
        e().maxThreads = static_cast<unsigned>(number(next()));
        while (accept(",")) e().maxThreads *= static_cast<unsigned>(number(next()));
      } else if (accept(".minnctapersm")) next();
      else break;
    }
  }
  void addShared(const Variable& v) {
    if (e().shared.size() == maxArrays) refuse("more arrays of shared memory than are provided for");
    symbols_[v.name] = constant(sharedBase(e().shared.size(), v.align));
    e().shared.push_back(v);
  }
  void addLocal(const Variable& v) {
    if (e().localBytes != 0) refuse("two arrays of local memory");
    e().localBytes = v.bytes;
    symbols_[v.name] = special(Entry::Special::local);
  }
  uint32_t special(Entry::Special which) {
    for (const auto& [at, other] : e().specials)
      if (other == which) return at;
    e().specials.emplace_back(slot(undefined), which);
    return e().specials.back().first;
  }

  // ---- registers ------------------------------------------------------------------------------------------

  struct Scope {
    std::unordered_map<std::string_view, uint32_t> names;
    std::vector<std::pair<std::string_view, uint64_t>> ranges;  // %p<5>: %p0 .. %p4
  };
  void readRegisters() {
    const std::string_view type = next();
    if (type != ".pred" && bytesOf(type) == 0) refuse("not a type of a register: " + std::string(type));
    do {
      const std::string_view name = next();
      if (accept("<")) {
        scopes_.back().ranges.emplace_back(name, number(next()));
        expect(">");
      } else scopes_.back().names[name] = slot(undefined);
    } while (accept(","));
  }
  // Slot of a register or variable; false: there is none of that name.
  bool find(std::string_view name, uint32_t& found) {
    static const std::map<std::string_view, Entry::Special> specials = {
        {"%tid.x", Entry::Special::tidX},       {"%tid.y", Entry::Special::tidY},
        {"%tid.z", Entry::Special::tidZ},       {"%ntid.x", Entry::Special::ntidX},
        {"%ntid.y", Entry::Special::ntidY},     {"%ntid.z", Entry::Special::ntidZ},
        {"%ctaid.x", Entry::Special::ctaidX},   {"%ctaid.y", Entry::Special::ctaidY},
        {"%ctaid.z", Entry::Special::ctaidZ},   {"%nctaid.x", Entry::Special::nctaidX},
        {"%nctaid.y", Entry::Special::nctaidY}, {"%nctaid.z", Entry::Special::nctaidZ},
        {"%laneid", Entry::Special::laneId}};
    for (size_t i = scopes_.size(); i-- > 0;) {
      Scope& scope = scopes_[i];
      if (const auto known = scope.names.find(name); known != scope.names.end()) return found = known->second, true;
      size_t digits = name.size();
      while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') digits--;
      if (digits == name.size()) continue;
      for (const auto& [prefix, count] : scope.ranges)
        if (prefix == name.substr(0, digits) && number(name.substr(digits)) < count)
          return found = scope.names[name] = slot(undefined), true;
    }
    if (const auto known = specials.find(name); known != specials.end()) return found = special(known->second), true;
    if (const auto known = symbols_.find(std::string(name)); known != symbols_.end())
      return found = known->second, true;
    return false;
  }
  uint32_t named(std::string_view name) {
    uint32_t found = 0;
    if (name == "_") return nowhere_;
    if (!find(name, found)) refuse("neither a register nor a variable of this entry: " + std::string(name));
    return found;
  }
  uint32_t scalar() {
    if (peek() == "-" || isNumber(peek())) return constant(static_cast<Slot>(signedNumber()));
    return named(next());
  }

  // ---- statements -----------------------------------------------------------------------------------------

  void readBody() {
    expect("{");
    scopes_.emplace_back();
    while (!scopes_.empty()) {
      if (accept("{")) scopes_.emplace_back();
      else if (accept("}")) scopes_.pop_back();
      else if (accept(".reg")) readRegisters(), expect(";");
      else if (accept(".shared")) addShared(variable()), expect(";");
      else if (accept(".local")) addLocal(variable()), expect(";");
      else if (accept(".pragma")) next(), expect(";");
      else if (peek(1) == ":") {
        labels_[std::string(next())] = e().code.size();
        expect(":");
      } else readInstruction();
    }
    if (e().code.empty()) refuse("an entry without instructions");
  }

  void emit(const Instruction& i, Touch touch) {
    e().code.push_back(i);
    e().touches.push_back(touch);
  }

  // Left out of a name: who sees an access when and where it is cached.
  static std::string formOf(std::string_view word) {
    static const std::vector<std::string_view> accesses = {"ld", "st", "atom", "red"}, silent = {"volatile",
                                                                                                 "relaxed",
                                                                                                 "release",
                                                                                                 "acq_rel",
                                                                                                 "weak",
                                                                                                 "nc",
                                                                                                 "gpu",
                                                                                                 "cta",
                                                                                                 "sys",
                                                                                                 "ca",
                                                                                                 "cg",
                                                                                                 "cs",
                                                                                                 "lu",
                                                                                                 "wb",
                                                                                                 "wt",
                                                                                                 "L1::no_allocate",
                                                                                                 "L1::evict_first",
                                                                                                 "L1::evict_last",
                                                                                                 "L1::evict_normal",
                                                                                                 "L2::64B",
                                                                                                 "L2::128B",
                                                                                                 "L2::256B"};
    const std::string_view head = word.substr(0, word.find('.'));
    if (std::find(accesses.begin(), accesses.end(), head) == accesses.end()) return std::string(word);
    std::string form(head);
    for (size_t at = head.size(); at < word.size();) {
      const size_t end = std::min(word.find('.', at + 1), word.size());
      const std::string_view part = word.substr(at + 1, end - at - 1);
      if (std::find(silent.begin(), silent.end(), part) == silent.end()) form += "." + std::string(part);
      at = end;
    }
    return form;
  }

  void readInstruction() {
    Instruction i;
    i.line = tokens_[at_].line;
    bool guarded = false, negated = false;
    uint32_t predicate = 0;
    if (accept("@")) {
      guarded = true;
      negated = accept("!");
      predicate = named(next());
    }
    const std::string_view word = next();
    const bool isBranch = word == "bra" || word == "bra.uni";
    std::string name = formOf(word);
    if (word == "mov.b64" && peek() == "{") name = "unpack.b64";  // two registers of one, one of two
    else if (word == "mov.b64" && peek(2) == "{") name = "pack.b64";
    const Form* form = forms_.find(name);
    if (!form && !isBranch) at_--, refuse("unknown instruction: " + std::string(word));
    if (isBranch) {
      i.run = !guarded ? branch : negated ? branchIfNot : branchIf;
      i.a = predicate;
      jumps_.push_back({e().code.size(), std::string(next()), i.line});
      expect(";");
      return emit(i, Touch::none);
    }
    if (guarded) {
      Instruction g;
      g.run = negated ? guardNot : guard;
      g.a = predicate;
      g.line = i.line;
      emit(g, Touch::none);
    }
    i.run = form->run;
    std::vector<uint32_t> more;
    for (const char* kind = form->operands; *kind; kind++) {
      if (kind != form->operands) expect(",");
      readOperand(*kind, i, more);
    }
    expect(";");
    if (!more.empty()) {
      e().lists.push_back(std::move(more));
      i.more = e().lists.back().data();
    }
    emit(i, form->touch);
  }

  void readOperand(char kind, Instruction& i, std::vector<uint32_t>& more) {
    switch (kind) {
      case 'd': i.d = named(next()); break;
      case 'a': i.a = scalar(); break;
      case 'b': i.b = scalar(); break;
      case 'c': i.c = scalar(); break;
      case 'x': more.push_back(scalar()); break;
      case 'q':
        i.d = named(next());
        more.push_back(accept("|") ? named(next()) : nowhere_);
        break;
      case 'v': {
        expect("{");
        do more.push_back(scalar());
        while (accept(","));
        expect("}");
        break;
      }
      case 'm':
      case 'n':
      case 'w': {
        expect("[");
        const uint32_t base = scalar();
        const int64_t offset = accept("+") ? signedNumber() : 0;
        expect("]");
        if (kind == 'm') i.a = base, i.value = offset;
        else if (kind == 'n') i.b = base;
        else more.push_back(base);
        if (kind != 'm' && offset != 0) refuse("an offset where none is provided for");
        break;
      }
      case 'i': i.value = signedNumber(); break;
      case '0':
      case 's':
        if (signedNumber() != (kind == '0' ? 0 : 16))
          refuse(kind == '0' ? "a number other than 0" : "a number other than 16");
        break;
      default: refuse(std::string("a form with an operand of kind ") + kind);
    }
  }

  void resolve() {
    Instruction end;  // for who runs past the last one
    end.run = forms_.find("ret")->run;
    end.line = tokens_[at_ - 1].line;
    emit(end, Touch::none);
    for (const auto& [from, label, line] : jumps_) {
      const auto found = labels_.find(label);
      if (found == labels_.end()) ptx::refuse(file_, line, "no such label: " + label);
      e().code[from].target = &e().code[found->second];
    }
  }

  const std::string& file_;
  const std::vector<Token>& tokens_;
  size_t at_;
  const Forms& forms_;
  std::unique_ptr<Entry> entry_;
  uint32_t nowhere_ = 0;
  std::vector<Scope> scopes_;
  std::map<Slot, uint32_t> constants_;
  std::map<std::string, uint32_t> symbols_;
  std::map<std::string, size_t> labels_;
  struct Jump {
    size_t from;
    std::string label;
    uint32_t line;
  };
  std::vector<Jump> jumps_;
};

}  // namespace

std::unique_ptr<Entry> decodeEntry(const std::string& file, const std::vector<Token>& tokens, size_t at,
                                   const std::vector<Variable>& shared, const Forms& forms) {
  return Decoder(file, tokens, at, shared, forms).take();
}

}  // namespace ptx
