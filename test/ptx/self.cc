// The interpreter against what NVIDIA's manual says of each instruction, a row each. `self write FILE` writes the rows
// as an entry of PTX; with PARVIS_PTX=FILE, `self` launches that and compares; `self refuse FILE` gives the decoder
// what it must not take, by way of FILE. No nvcc: what it makes of kernels is the business of the other programs.
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>

#include "../simt/cases.h"
#include "program.h"

namespace {

// What the interpreter puts in their place.
__global__ void rows(uint64_t*) {}
__global__ void lanes(uint32_t*) {}
__global__ void fragments(const uint32_t*, float*) {}

// ---- one thread ---------------------------------------------------------------------------------------------

// Leaves its result in %d (64 bits), or in %p. Registers: %d, %x, %y (b64), %s, %t (b32), %p, %q (pred).
struct Row {
  const char* text;
  uint64_t expected;
};

uint64_t bits(float f) { return std::bit_cast<uint32_t>(f); }
uint64_t bits(double f) { return std::bit_cast<uint64_t>(f); }
constexpr uint64_t low = 0xffffffff;

const std::vector<Row>& all() {
  static const std::vector<Row> table = {
      // integers
      {"add.s32 %d, 7, -9;", 0xfffffffe},
      {"add.s32 %d, 2147483647, 1;", 0x80000000},
      {"add.s64 %d, -1, 1;", 0},
      {"add.s16 %d, 65535, 2;", 1},
      {"sub.s32 %d, 3, 5;", 0xfffffffe},
      {"mul.lo.s32 %d, 65537, 65537;", 0x20001},
      {"mul.lo.s64 %d, 4294967297, -1;", 0xfffffffeffffffff},
      {"mul.hi.s32 %d, -2, 3;", 0xffffffff},
      {"mul.hi.u32 %d, -2, 3;", 2},
      {"mul.hi.u64 %d, -1, 16;", 15},
      {"mul.wide.s32 %d, -2, 3;", static_cast<uint64_t>(-6)},
      {"mul.wide.u32 %d, -2, 3;", 0x2fffffffa},
      {"mul.wide.u16 %d, 65535, 65535;", 0xfffe0001},
      {"mad.lo.s32 %d, 3, 4, -13;", 0xffffffff},
      {"mad.wide.s32 %d, -2, 3, 10;", 4},
      {"div.s32 %d, -7, 2;", 0xfffffffd},
      {"rem.s32 %d, -7, 2;", 0xffffffff},
      {"div.u32 %d, -7, 2;", 0x7ffffffc},
      {"rem.u32 %d, -7, 10;", 9},
      {"div.u64 %d, -1, 3;", 0x5555555555555555},
      {"rem.u64 %d, -1, 10;", 5},
      {"div.s32 %d, -2147483648, -1;", 0x80000000},
      {"min.s32 %d, -1, 1;", 0xffffffff},
      {"min.u32 %d, -1, 1;", 1},
      {"max.s32 %d, -1, 1;", 1},
      {"max.u64 %d, -1, 1;", ~uint64_t{0}},
      {"neg.s32 %d, 5;", 0xfffffffb},
      {"abs.s32 %d, -5;", 5},
      // bits
      {"and.b32 %d, 12, 10;", 8},
      {"or.b32 %d, 12, 10;", 14},
      {"xor.b64 %d, 12, 10;", 6},
      {"not.b32 %d, 0;", low},
      {"and.b16 %d, 65535, 255;", 255},
      {"shl.b32 %d, 1, 31;", 0x80000000},
      {"shl.b32 %d, 1, 32;", 0},
      {"shl.b64 %d, 1, 63;", uint64_t{1} << 63},
      {"shr.s32 %d, -8, 1;", 0xfffffffc},
      {"shr.s32 %d, -8, 99;", low},
      {"shr.u32 %d, -8, 28;", 15},
      {"shr.u32 %d, -8, 32;", 0},
      {"shr.u64 %d, -1, 60;", 15},
      {"shr.u16 %d, 65535, 12;", 15},
      {"popc.b32 %d, 255;", 8},
      {"clz.b32 %d, 1;", 31},
      {"clz.b32 %d, 0;", 32},
      {"brev.b32 %d, 1;", 0x80000000},
      {"bfind.u32 %d, 256;", 8},
      {"bfind.shiftamt.u32 %d, 256;", 23},
      {"bfind.u32 %d, 0;", low},
      {"bfi.b32 %d, 31, 0, 27, 5;", 0xf8000000},
      {"bfi.b32 %d, -1, 0, 4, 8;", 0xff0},
      {"bfi.b32 %d, 0, -1, 5, 27;", 31},
      {"bfi.b64 %d, 7, 1, 32, 32;", 0x700000001},
      {"prmt.b32 %d, 0x33221100, 0x77665544, 0x5410;", 0x55441100},
      {"prmt.b32 %d, 0x33221100, 0x77665544, 8452;", 0x22110044},
      {"prmt.b32 %d, 0x80, 0, 0x8888;", low},
      {"shf.l.wrap.b32 %d, 0x80000000, 1, 1;", 3},
      {"shf.r.wrap.b32 %d, 0, 1, 1;", 0x80000000},
      {"shf.r.clamp.b32 %d, 5, 6, 40;", 6},
      {"lop3.b32 %d, 0xf0, 0xcc, 0xaa, 0x1e;", 0x1e},
      // comparisons and predicates
      {"setp.lt.s32 %p, -1, 1;", 1},
      {"setp.lt.u32 %p, -1, 1;", 0},
      {"setp.ge.u64 %p, -1, 1;", 1},
      {"setp.eq.s16 %p, 65536, 0;", 1},
      {"setp.ne.s64 %p, 4294967296, 0;", 1},
      {"setp.hi.u32 %p, 2, 1;", 1},
      {"setp.lt.f32 %p, 0f7FC00000, 0f3F800000;", 0},
      {"setp.ltu.f32 %p, 0f7FC00000, 0f3F800000;", 1},
      {"setp.neu.f32 %p, 0f7FC00000, 0f7FC00000;", 1},
      {"setp.eq.f32 %p, 0f80000000, 0f00000000;", 1},
      {"setp.ne.f32 %p, 0f7FC00000, 0f3F800000;", 0},
      {"setp.leu.f32 %p, 0f40000000, 0f3F800000;", 0},
      {"setp.gt.f64 %p, 0d4000000000000000, 0d3FF0000000000000;", 1},
      {"setp.geu.f64 %p, 0d7FF8000000000000, 0d7FF0000000000000;", 1},
      {"setp.geu.f64 %p, 0d7FF0000000000000, 0d7FF0000000000000;", 1},
      {"setp.geu.f64 %p, 0d3FF0000000000000, 0d7FF0000000000000;", 0},
      {"setp.eq.s32 %q, 1, 1; not.pred %p, %q;", 0},
      {"setp.eq.s32 %q, 1, 2; mov.pred %p, -1; xor.pred %p, %p, %q;", 1},
      {"setp.eq.s32 %q, 1, 1; selp.b32 %d, 5, 6, %q;", 5},
      {"setp.eq.s32 %q, 1, 2; selp.f32 %d, 0f3F800000, 0f40400000, %q;", 0x40400000},
      {"mov.b64 %d, 1; setp.eq.s32 %q, 1, 2; @%q mov.b64 %d, 2;", 1},
      {"mov.b64 %d, 1; setp.eq.s32 %q, 1, 2; @!%q mov.b64 %d, 2;", 2},
      {"mov.b64 %d, 1; bra.uni $A; mov.b64 %d, 2; $A: add.s64 %d, %d, 4;", 5},
      {"mov.b64 %d, 0; $B: add.s64 %d, %d, 3; setp.lt.s64 %q, %d, 10; @%q bra $B;", 12},
      {"{ .reg .b64 %x; mov.b64 %x, 9; } mov.b64 %x, 4; mov.b64 %d, %x;", 4},
      // registers wider than the type, packs
      {"mov.b64 %x, -1; add.s32 %d, %x, 0;", low},
      {"mov.b64 %x, 0x1ffffffff; cvt.s64.s32 %d, %x;", ~uint64_t{0}},
      {"mov.u32 %s, 1; mov.u32 %t, 2; mov.b64 %d, {%s, %t};", 0x200000001},
      {"mov.b64 %x, 0x700000005; mov.b64 {%s, %t}, %x; sub.s32 %d, %t, %s;", 2},
      {"mov.b64 %x, 0x700000005; mov.b64 {%s, _}, %x; add.s32 %d, %s, 0;", 5},
      // floating point
      {"add.rn.f32 %d, 0f3F800000, 0f33800000;", bits(1.0f)},
      {"fma.rn.f32 %d, 0f3F800001, 0f3F800001, 0fBF800000;", bits(std::fma(1.0000001f, 1.0000001f, -1.0f))},
      {"mul.rn.f32 %d, 0f3F800001, 0f3F800001;", bits(1.0000001f * 1.0000001f)},
      {"add.rn.f32 %d, 0f7F800000, 0fFF800000;", 0x7fffffff},
      {"div.rn.f32 %d, 0f3F800000, 0f40400000;", bits(1.0f / 3.0f)},
      {"div.rn.f64 %d, 0d3FF0000000000000, 0d4008000000000000;", bits(1.0 / 3.0)},
      {"sqrt.rn.f32 %d, 0f40000000;", bits(std::sqrt(2.0f))},
      {"rcp.rn.f32 %d, 0f40400000;", bits(1.0f / 3.0f)},
      {"neg.f32 %d, 0f00000000;", 0x80000000},
      {"max.f32 %d, 0f7FC00000, 0f3F800000;", bits(1.0f)},
      {"max.f32 %d, 0f80000000, 0f00000000;", 0},
      {"min.f32 %d, 0f00000000, 0f80000000;", 0x80000000},
      {"max.f32 %d, 0f7FC00000, 0f7FC00000;", 0x7fffffff},
      {"fma.rm.f32 %d, 0f3F800000, 0f3F800000, 0f33000000;", bits(1.0f)},
      {"fma.rm.f32 %d, 0f3F800000, 0f3F800000, 0fB3000000;", bits(0x1.fffffep-1f)},
      {"fma.rm.f32 %d, 0f3F800000, 0f3F800000, 0fBF800000;", 0x80000000},
      {"fma.rm.f32 %d, 0f3F800001, 0f3F800001, 0f00000000;", bits(1.0000001f * 1.0000001f)},
      {"ex2.approx.ftz.f32 %d, 0f40400000;", bits(8.0f)},
      {"ex2.approx.ftz.f32 %d, 0fFF800000;", 0},
      {"ex2.approx.ftz.f32 %d, 0fC3000000;", 0},
      {"ex2.approx.f32 %d, 0fC3000000;", 0x00200000},
      {"rcp.approx.ftz.f32 %d, 0f40800000;", bits(0.25f)},
      {"rcp.approx.ftz.f32 %d, 0f7F800000;", 0},
      {"rcp.approx.ftz.f32 %d, 0f00000001;", 0x7f800000},
      {"rcp.approx.ftz.f64 %d, 0d4008000000000000;", 0x3fd5555500000000},
      {"copysign.f32 %d, 0f80000000, 0f3F800000;", bits(-1.0f)},
      {"abs.f32 %d, 0fFF800000;", 0x7f800000},
      {"abs.f64 %d, 0dFFF0000000000000;", 0x7ff0000000000000},
      {"abs.f64 %d, 0dBFF0000000000000;", bits(1.0)},
      // conversions
      {"cvt.rn.bf16x2.f32 %d, 0f3F800000, 0f40400000;", 0x3f804040},
      {"cvt.rn.bf16x2.f32 %d, 0f3F808000, 0f3F818000;", 0x3f803f82},
      {"cvt.rn.bf16x2.f32 %d, 0f7FC00000, 0f3F808001;", 0x7fff3f81},
      {"cvt.rn.bf16x2.f32 %d, 0f7F7FFFFF, 0fFF800000;", 0x7f80ff80},
      {"cvt.rzi.s32.f32 %d, 0fBFC00000;", ~uint64_t{0}},
      {"cvt.rmi.s32.f32 %d, 0fBFC00000;", 0xfffffffffffffffe},
      {"cvt.rzi.u32.f32 %d, 0fBFC00000;", 0},
      {"cvt.rzi.s32.f32 %d, 0f7F800000;", 0x7fffffff},
      {"cvt.rzi.s32.f32 %d, 0f7FC00000;", 0},
      {"cvt.rzi.u32.f32 %d, 0f4F800000;", low},
      {"cvt.rzi.u64.f64 %d, 0d7FF8000000000000;", uint64_t{1} << 63},
      {"cvt.rni.s32.f32 %d, 0f40200000;", 2},
      {"cvt.rmi.f32.f32 %d, 0fBFC00000;", bits(-2.0f)},
      {"cvt.sat.f32.f32 %d, 0fBFC00000;", 0},
      {"cvt.sat.f32.f32 %d, 0f7FC00000;", 0},
      {"cvt.sat.f32.f32 %d, 0f40400000;", bits(1.0f)},
      {"cvt.rn.f32.s32 %d, -16777217;", bits(-16777216.0f)},
      {"cvt.rn.f32.u32 %d, -1;", bits(4294967296.0f)},
      {"cvt.rn.f32.u16 %d, 65535;", bits(65535.0f)},
      {"cvt.rn.f64.u64 %d, -1;", bits(18446744073709551616.0)},
      {"cvt.rn.f32.f64 %d, 0d3FF0000010000000;", bits(1.0f)},
      {"cvt.f64.f32 %d, 0f3FC00000;", bits(1.5)},
      {"cvt.s64.s32 %d, -1;", ~uint64_t{0}},
      {"cvt.u64.u32 %d, -1;", low},
      {"cvt.u32.u64 %d, 0x1ffffffff;", low},
      {"cvt.u16.u32 %d, 65537;", 1},
      {"cvt.s32.s8 %d, 128;", 0xffffffffffffff80},
      {"cvt.u32.u16 %d, -1;", 65535},
      // memory
      {"mov.u32 %s, table; st.shared.v2.u32 [%s+8], {7, 8}; ld.shared.u64 %d, [table+8];", 0x800000007},
      {"st.shared.u8 [table], 200; ld.shared.s8 %d, [table];", static_cast<uint64_t>(-56)},
      {"st.shared.u16 [table], 65535; ld.shared.u16 %d, [table];", 65535},
      {"st.shared.v4.u8 [table+4], {1, 2, 3, 4}; ld.shared.u32 %d, [table+4];", 0x04030201},
      {"mov.u64 %x, table; cvta.shared.u64 %x, %x; st.shared.u32 [table+12], 9; ld.u32 %d, [%x+12];", 9},
      {"mov.u64 %x, table; cvta.shared.u64 %x, %x; cvta.to.shared.u64 %y, %x; mov.u64 %x, table; sub.s64 %d, %x, %y;",
       0},
      {"st.shared.u64 [table], 5; atom.shared.add.u64 %x, [table], 3; ld.shared.u64 %y, [table]; shl.b64 %y, %y, 8; "
       "or.b64 %d, %x, %y;",
       0x805},
      {"st.shared.u32 [table], 5; atom.shared.cas.b32 %x, [table], 5, 6; atom.shared.exch.b32 %d, [table], 7;", 6},
      {"mov.u64 %x, depot; st.local.u32 [%x+4], 11; ld.local.u32 %d, [depot+4];", 11},
      {"st.shared.f32 [table], 0f7F800001; ld.shared.f32 %d, [table];", 0x7f800001},
      {"ld.param.u32 %s, [rows_0]; ld.param.u64 %x, [rows_0]; cvt.u32.u64 %t, %x; sub.s32 %d, %s, %t;", 0},
      // special registers
      {"mov.u32 %d, %ntid.x;", 1},
      {"mov.u32 %d, %tid.x;", 0},
      {"mov.u32 %d, %nctaid.x;", 1},
      {"mov.u32 %d, %laneid;", 0},
  };
  return table;
}

// ---- a warp -------------------------------------------------------------------------------------------------

// In %v ten times the lane; leaves its result in %d, or in %p.
struct Lane {
  const char* text;
  std::function<uint32_t(uint32_t)> expected;
};
const std::vector<Lane>& warp() {
  static const std::vector<Lane> table = {
      {"shfl.sync.up.b32 %d|%q, %v, 3, 0, -1;", [](uint32_t l) { return 10 * (l < 3 ? l : l - 3); }},
      {"shfl.sync.up.b32 %d|%p, %v, 3, 0, -1; selp.u32 %d, 1, 0, %p;", [](uint32_t l) { return l >= 3 ? 1u : 0u; }},
      {"shfl.sync.up.b32 %d, %v, 3, 0x1800, -1;", [](uint32_t l) { return 10 * (l % 8 < 3 ? l : l - 3); }},
      {"shfl.sync.down.b32 %d, %v, 5, 31, -1;", [](uint32_t l) { return 10 * (l + 5 > 31 ? l : l + 5); }},
      {"shfl.sync.down.b32 %d, %v, 5, 0x101f, -1;", [](uint32_t l) { return 10 * (l % 16 + 5 > 15 ? l : l + 5); }},
      {"shfl.sync.bfly.b32 %d, %v, 5, 31, -1;", [](uint32_t l) { return 10 * (l ^ 5); }},
      {"shfl.sync.idx.b32 %d, %v, 7, 31, -1;", [](uint32_t) { return 70u; }},
      {"shfl.sync.idx.b32 %d, %v, 9, 0x181f, -1;", [](uint32_t l) { return 10 * (l / 8 * 8 + 1); }},
      {"rem.u32 %d, %v, 3; setp.eq.s32 %q, %d, 0; vote.sync.ballot.b32 %d, %q, -1;",
       [](uint32_t) { return 0x49249249u; }},
      {"setp.eq.s32 %q, %v, 70; vote.sync.any.pred %p, %q, -1; selp.u32 %d, 1, 0, %p;", [](uint32_t) { return 1u; }},
      {"setp.eq.s32 %q, %v, 70; vote.sync.all.pred %p, %q, -1; selp.u32 %d, 1, 0, %p;", [](uint32_t) { return 0u; }},
      {"setp.eq.s32 %q, %v, 70; bar.red.or.pred %p, 0, %q; selp.u32 %d, 1, 0, %p;", [](uint32_t) { return 1u; }},
      {"setp.gt.s32 %q, %v, 70; bar.red.popc.u32 %d, 0, %q;", [](uint32_t) { return 24u; }},
      {"bar.sync 0; bar.warp.sync -1; mov.u32 %d, %laneid;", [](uint32_t l) { return l; }},
      // ldmatrix: rows of 16 bytes, element 8 row + column is its number; matrix m has rows 8m .. 8m+7
      {"mov.u32 %t, %tid.x; shl.b32 %t, %t, 4; add.s32 %t, %t, table; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%s, _, "
       "%d, _}, [%t];",
       [](uint32_t l) {
         const uint32_t e = 128 + l / 4 * 8 + l % 4 * 2;
         return e | (e + 1) << 16;
       }},
      {"mov.u32 %t, %tid.x; shl.b32 %t, %t, 4; add.s32 %t, %t, table; ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
       "{_, %d, _, _}, [%t];",
       [](uint32_t l) {
         const uint32_t e = 64 + l % 4 * 16 + l / 4;
         return e | (e + 8) << 16;
       }},
  };
  return table;
}

// ---- PTX ----------------------------------------------------------------------------------------------------

constexpr const char* head = ".version 8.0\n.target sm_90\n.address_size 64\n";
bool isPredicate(const std::string& text) { return text.find("%d") == std::string::npos; }

void write(const char* file) {
  std::ofstream out(file);
  out << head
      << ".visible .entry _ZN12_GLOBAL__N_14rowsEPm(\n.param .u64 rows_0\n)\n{\n.reg .b64 %out;\n.shared .align 16 .b8 "
         "table[16];\n.local .align 8 .b8 depot[16];\nld.param.u64 %out, [rows_0];\n";
  for (size_t i = 0; i < all().size(); i++) {
    const std::string text = all()[i].text;
    out << "{ .reg .b64 %d, %x, %y; .reg .b32 %s, %t; .reg .pred %p, %q;\n" << text << "\n";
    if (isPredicate(text)) out << "selp.b64 %d, 1, 0, %p;\n";
    out << "st.global.u64 [%out+" << 8 * i << "], %d; }\n";
  }
  out << "ret;\n}\n.visible .entry _ZN12_GLOBAL__N_15lanesEPj(\n.param .u64 lanes_0\n)\n.maxntid 32, 1, 1\n{\n.reg "
         ".b64 %out, %a; .reg .b32 %i<9>; .reg .pred %r;\n.shared .align 16 .b8 table[512];\n"
      << "ld.param.u64 %out, [lanes_0];\nmov.u32 %i0, %tid.x;\nmul.wide.u32 %a, %i0, 4;\nadd.s64 %out, %out, "
         "%a;\nmul.lo.s32 %i1, %i0, 10;\n"
      << "shl.b32 %i2, %i0, 4; add.s32 %i2, %i2, table; shl.b32 %i3, %i0, 3; mov.u32 %i4, 0;\n"
      << "$fill: st.shared.u16 [%i2], %i3; add.s32 %i2, %i2, 2; add.s32 %i3, %i3, 1; add.s32 %i4, %i4, 1; setp.lt.s32 "
         "%r, %i4, 8; @%r bra $fill;\n";
  for (size_t i = 0; i < warp().size(); i++)
    out << "bar.warp.sync -1; { .reg .b32 %d, %v, %s, %t; .reg .pred %p, %q; mov.u32 %v, %i1;\n"
        << warp()[i].text << "\nst.global.u32 [%out+" << 128 * i << "], %d; }\n";
  out << "ret;\n}\n.visible .entry _ZN12_GLOBAL__N_19fragmentsEPKjPf(\n.param .u64 in,\n.param .u64 out\n)\n{\n.reg "
         ".b64 %a<4>; .reg .b32 %r<20>; .reg .f32 %f<9>;\n"
      << "ld.param.u64 %a0, [in]; ld.param.u64 %a1, [out]; mov.u32 %r0, %tid.x; mul.wide.u32 %a2, %r0, 40; add.s64 "
         "%a0, %a0, %a2; mul.wide.u32 %a3, %r0, 16; add.s64 %a1, %a1, %a3;\n";
  for (int i = 0; i < 10; i++) out << "ld.global.u32 %r" << i + 1 << ", [%a0+" << 4 * i << "];\n";
  out << "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, "
         "{%r7, %r8, %r9, %r10};\n"
      << "st.global.v4.f32 [%a1], {%f0, %f1, %f2, %f3};\nret;\n}\n";
}

// ---- the cases ----------------------------------------------------------------------------------------------

// The manual's formulas, element by element: where element i of a lane's fragment lies.
void matrices() {
  cases::Numbers numbers(3);
  float A[16][16], B[16][8], C[16][8];
  for (auto& row : A)
    for (float& v : row) v = static_cast<float>(numbers.below(17) - 8);
  for (auto& row : B)
    for (float& v : row) v = static_cast<float>(numbers.below(17) - 8) / 4;
  for (auto& row : C)
    for (float& v : row) v = static_cast<float>(numbers.below(100)) / 8;
  std::vector<uint32_t> in(320);
  std::vector<float> out(128 + 4);
  float* const aligned = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(out.data()) + 15) / 16 * 16);
  for (uint32_t lane = 0; lane < 32; lane++) {
    const uint32_t group = lane >> 2, in_group = lane % 4;
    for (uint32_t i = 0; i < 8; i++) {
      const uint32_t row = i < 2 || (i >= 4 && i < 6) ? group : group + 8,
                     column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      in[lane * 10 + i / 2] |= static_cast<uint32_t>(cases::bf16(A[row][column])) << 16 * (i & 1);
    }
    for (uint32_t i = 0; i < 4; i++) {
      in[lane * 10 + 4 + i / 2] |=
          static_cast<uint32_t>(cases::bf16(B[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group])) << 16 * (i & 1);
      in[lane * 10 + 6 + i] = cases::bits(C[i < 2 ? group : group + 8][in_group * 2 + (i & 1)]);
    }
  }
  const cudaError_t e =
      parvis::cuda::launch(fragments, 1, 32, 0, nullptr, static_cast<const uint32_t*>(in.data()), aligned);
  int wrong = 0;
  for (uint32_t lane = 0; lane < 32; lane++)
    for (uint32_t i = 0; i < 4; i++) {
      const uint32_t row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      float sum = C[row][column];
      for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][column];
      wrong += sum != aligned[lane * 4 + i];
    }
  cases::check(e == cudaSuccess && wrong == 0, "mma.m16n8k16, fragments by the manual's formulas: %d wrong", wrong);
}

int compare() {
  std::vector<uint64_t> out(all().size());
  cudaError_t e = parvis::cuda::launch(rows, 1, 1, 0, nullptr, out.data());
  cases::check(e == cudaSuccess, "the rows have run");
  for (size_t i = 0; i < all().size(); i++) {
    const Row& row = all()[i];
    cases::check(out[i] == row.expected, "%s gives %llx, expected %llx", row.text,
                 static_cast<unsigned long long>(out[i]), static_cast<unsigned long long>(row.expected));
  }
  std::vector<uint32_t> each(32 * warp().size());
  e = parvis::cuda::launch(lanes, 1, 32, 0, nullptr, each.data());
  cases::check(e == cudaSuccess, "the rows of a warp have run");
  for (size_t i = 0; i < warp().size(); i++) {
    int wrong = 0;
    for (uint32_t lane = 0; lane < 32; lane++) wrong += each[32 * i + lane] != warp()[i].expected(lane);
    cases::check(wrong == 0, "%s %d lanes wrong", warp()[i].text, wrong);
  }
  matrices();
  return cases::failures > 0;
}

int refuse(const char* file) {
  const std::vector<std::pair<const char*, const char*>> bodies = {
      {"frobnicate.b32 %r1, 2;", ":7: unknown instruction: frobnicate.b32"},
      {"add.ftz.f32 %r1, 2, 3;", ":7: unknown instruction: add.ftz.f32"},
      {"ld.global.v8.u32 {%r1}, [%r2];", ":7: unknown instruction: ld.global.v8.u32"},
      {"bar.sync 1;", ":7: a number other than 0"},
      {"add.s32 %r9, 2, 3;", ":7: neither a register nor a variable of this entry: %r9"},
      {"add.s32 %r1, 2;", ":7: `,` expected, `;` found"},
      {"bra $nowhere;", ":7: no such label: $nowhere"},
      {".const .b32 %c;", ":7: unknown instruction: .const"},
      {"cp.async.cg.shared.global [%r1], [%r2], 8, %r3;", ":7: a number other than 16"},
      {"mov.u32 %r1, 12x;", ":7: not a number: 12x"},
  };
  const auto refused = [&](const std::string& text, const char* expected, const char* name) {
    std::ofstream(file) << text;
    std::string message = "it was taken";
    try {
      const ptx::Module m(file);
      for (const std::string& entry : m.entries()) m.decode(entry, ptx::Forms());
    } catch (const ptx::Failure& failure) {
      message = failure.message;
    }
    cases::check(message.find(expected) != std::string::npos, "%s: %s", name, message.c_str());
  };
  for (const auto& [body, expected] : bodies)
    refused(std::string(head) + ".visible .entry f()\n{\n.reg .b32 %r<4>;\n" + body + "\nret;\n}\n", expected, body);
  refused(std::string(head) + ".func f\n{ ret; }\n", ":4: not understood outside of an entry: .func", "a function");
  refused(std::string(head) + ".const .b32 c;\n", ":4: not understood outside of an entry: .const",
          "a constant of the module");
  refused(std::string(head) + ".visible .entry f()\n.maxnreg 32\n{\nret;\n}\n", ":5: `{` expected, `.maxnreg` found",
          "a directive of an entry");
  return cases::failures > 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string mode = count > 1 ? arguments[1] : "";
  if (mode == "write") return write(arguments[2]), 0;
  if (mode == "refuse") return refuse(arguments[2]);
  return compare();
}
