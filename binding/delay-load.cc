// Windows: the functions of Node are looked up in the running program, whatever its name is. The import library names
// node.exe; Electron and renamed executables have another name. The linker has the library loaded when the first of its
// functions is called, and asks here first.
#if defined(_WIN32)

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
// behind it
#include <delayimp.h>

#include <cstring>

namespace {

FARPROC WINAPI programInPlaceOfNode(unsigned event, PDelayLoadInfo info) {
  if (event != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;
  // A program that has Node as a library exports nothing itself.
  HMODULE node = GetModuleHandleA("libnode.dll");
  if (!node) node = GetModuleHandleA("node.dll");
  if (!node) node = GetModuleHandleA(nullptr);
  return reinterpret_cast<FARPROC>(node);
}

}  // namespace

PfnDliHook __pfnDliNotifyHook2 = programInPlaceOfNode;  // declared by delayimp.h, as C

#endif
