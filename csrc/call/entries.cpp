// See entries.h.
#include "call/entries.h"

#include "cpython/cpython.h"

namespace unified_guards {

Py_ssize_t torchs_index = -1;

namespace {

bool is_default(const FrameExecStrategy& strategy) {
  return strategy.cur_action == DEFAULT && strategy.recursive_action == DEFAULT;
}

}  // namespace

FoundEntries entries_of(PyObject* code, int64_t region) {
  auto* extra = torchs_index < 0 ? nullptr : static_cast<ExtraState*>(cpython::extra_of(code, torchs_index));
  if (extra == nullptr) return {Why::kNothingCompiled, nullptr};
  if (!extra->precompile_entries.empty()) return {Why::kPrecompiled, nullptr};
  if (!is_default(extra->strategy)) return {Why::kStrategy, nullptr};
  if (!extra->region_strategy_map.empty()) {
    const auto found = extra->region_strategy_map.find(region);
    if (found != extra->region_strategy_map.end() && !is_default(found->second)) return {Why::kStrategy, nullptr};
  }
  const auto found = extra->cache_entry_map.find(region);
  if (found == extra->cache_entry_map.end() || found->second.empty()) return {Why::kNothingCompiled, nullptr};
  return {Why::kNone, &found->second};
}

}  // namespace unified_guards
