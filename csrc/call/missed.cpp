// See missed.h.
#include "call/missed.h"

#include "cpython/ref.h"

#include <algorithm>
#include <utility>

namespace unified_guards {

thread_local Missed missed;

void Missed::note(PyObject* code, int64_t region, Managers asked) {
  frame_ = current_frame();
  code_ = code;
  region_ = region;
  asked_ = std::move(asked);
}

PyObject* Missed::take(PyObject* frame, PyObject* code) {
  if (frame_ == nullptr || frame != frame_ || code != code_) return nullptr;
  frame_ = nullptr;
  const Ref addresses(PyList_New(0));
  bool is_whole = static_cast<bool>(addresses);
  for (PyObject* manager : asked_) {
    const Ref address(PyLong_FromVoidPtr(manager));
    is_whole = is_whole && address && PyList_Append(addresses.get(), address.get()) == 0;
  }
  PyObject* told = is_whole ? Py_BuildValue("LO", static_cast<long long>(region_), addresses.get()) : nullptr;
  if (told == nullptr) PyErr_Clear();
  return told;
}

Managers managers_of(PyObject* code, int64_t region) {
  Managers all;
  const FoundEntries found = entries_of(code, region);
  if (found.why != Why::kNone) return all;
  for (const CacheEntry& entry : *found.entries) all.push_back(entry.guard_manager.ptr());
  return all;
}

bool has_others(const CacheEntries& entries, const Managers& asked) {
  return std::any_of(entries.begin(), entries.end(), [&](const CacheEntry& entry) {
    return std::find(asked.begin(), asked.end(), entry.guard_manager.ptr()) == asked.end();
  });
}

}  // namespace unified_guards
