// See entries.h.
#include "call/entries.h"

#include "cpython/cpython.h"

namespace unified_guards {

Py_ssize_t torchs_index = -1;

namespace {

bool is_default(const FrameExecStrategy& strategy) {
  return strategy.cur_action == DEFAULT && strategy.recursive_action == DEFAULT;
}

// What torch keeps with a code object has another layout before 2.13: one list, without regions.
template <typename Extra>
FoundEntries found_in(Extra& extra, int64_t region) {
  if (!extra.precompile_entries.empty()) return {Why::kPrecompiled, nullptr};
  if (!is_default(extra.strategy)) return {Why::kStrategy, nullptr};
  if constexpr (requires { extra.cache_entry_map; }) {
    const auto strategy = extra.region_strategy_map.find(region);
    if (strategy != extra.region_strategy_map.end() && !is_default(strategy->second)) return {Why::kStrategy, nullptr};
    const auto found = extra.cache_entry_map.find(region);
    if (found == extra.cache_entry_map.end() || found->second.empty()) return {Why::kNothingCompiled, nullptr};
    return {Why::kNone, &found->second};
  } else {
    if (region != -1 || extra.cache_entry_list.empty()) return {Why::kNothingCompiled, nullptr};
    return {Why::kNone, &extra.cache_entry_list};
  }
}

}  // namespace

FoundEntries entries_of(PyObject* code, int64_t region) {
  auto* extra = torchs_index < 0 ? nullptr : static_cast<ExtraState*>(cpython::extra_of(code, torchs_index));
  return extra == nullptr ? FoundEntries{Why::kNothingCompiled, nullptr} : found_in(*extra, region);
}

}  // namespace unified_guards
