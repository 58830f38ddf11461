// Words of single entries of a dict, which stay as they are while other entries change: where an entry lies, and what a
// search reads that finds none. Entry points: dict_table(), search().
//
// A dict has a table of keys: indices, one for each place that a hash leads to, and entries, in the order in which they
// were added. Where all keys are exact strings, a name is found without running any code, and two keys that are one
// object are one key. Instances of a class may share a table of keys; each then has an array of values of its own.
#pragma once

#include "cpython/words.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <array>
#include <cstdint>

namespace unified_guards::cpython {

// False until self_test() has seen that tables are searched as is said here, and that the words change.
inline bool tables_known = false;

// Words that say that the table of a dict is where it was, of the same size and kind. As long as they hold, the words
// of its entries and of searches lie inside of it. They may hold for another table, which was made where the first was
// freed: so whatever is believed of an entry is read from the entry.
struct DictTable {
  Word keys = nullptr;
  Word values = nullptr;  // where keys are shared: the array of values
  Word shape = nullptr;   // null where the dict has no such table
};

struct DictEntry {
  Word key, value;
};

// What a search for a name found.
struct Search {
  static constexpr size_t kMostSteps = 12;

  enum class Result : uint8_t { kFound, kAbsent, kUnknown };
  Result result = Result::kUnknown;
  DictEntry entry{nullptr, nullptr};                 // if found
  size_t count = 0;                                  // if absent: how many words the search has read,
  std::array<Word, size_t{3} * kMostSteps> words{};  // and which

  void read(Word word) { words[count++] = word; }
};

#if UG_DICT_LAYOUT == 311 && !defined(Py_GIL_DISABLED)

// The way from one index to the next that the interpreter takes in search of a hash.
class IndexPath {
 public:
  IndexPath(DictKeys* keys, Py_hash_t hash)
      : keys_(keys),
        mask_((size_t{1} << keys->log2_size) - 1),
        rest_(static_cast<size_t>(hash)),
        at_(static_cast<size_t>(hash) & mask_) {}

  // The number of an entry, or negative.
  int index() const {
    return is_wide() ? reinterpret_cast<int16_t*>(keys_->indices)[at_] : reinterpret_cast<int8_t*>(keys_->indices)[at_];
  }
  // The indices are at least eight bytes, and begin at a multiple of eight.
  Word word() const { return word_at(keys_->indices + ((is_wide() ? at_ * 2 : at_) & ~size_t{7})); }

  void next() {
    constexpr int kShift = 5;
    rest_ >>= kShift;
    at_ = (at_ * 5 + rest_ + 1) & mask_;
  }

 private:
  // Larger tables have indices that are wider still: see dict_table().
  bool is_wide() const { return keys_->log2_size >= 8; }

  DictKeys* keys_;
  size_t mask_, rest_, at_;
};

inline DictTable dict_table(PyObject* dict) {
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  constexpr uint8_t kTooLarge = 16;
  if (!tables_known || keys->kind == 0 || keys->log2_size >= kTooLarge) return {};
  if ((keys->kind == 2) != (object->ma_values != nullptr)) return {};
  return {word_at(&object->ma_keys), keys->kind == 2 ? word_at(&object->ma_values) : nullptr,
          word_at(&keys->log2_size)};
}

inline Word hash_word(PyObject* text) { return word_at(&reinterpret_cast<PyASCIIObject*>(text)->hash); }

// Searches a dict that has a table for a name. An equal key that is another object than the name is not believed in.
// The words that a search has read decide it: as long as they are the same, the interpreter would find nothing, either.
// Of a key that the search came by, its hash is one of these words, since another string may be made at its address.
inline Search search(PyObject* dict, PyObject* name) {
  constexpr int kFree = -1;
  Search found;
  if (!PyUnicode_CheckExact(name)) return found;
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  auto* values = reinterpret_cast<Values*>(object->ma_values);
  IndexPath path(keys, PyObject_Hash(name));
  for (size_t step = 0; step < Search::kMostSteps; step++, path.next()) {
    const int index = path.index();
    found.read(path.word());
    if (index == kFree) {
      found.result = Search::Result::kAbsent;
      return found;
    }
    if (index < 0) continue;  // one that was deleted
    StrEntry& entry = names_of(keys)[index];
    if (index >= keys->nentries || entry.key == nullptr) return found;
    if (entry.key == name) {
      found.result = Search::Result::kFound;
      found.entry = {word_at(&entry.key), word_at(values != nullptr ? &values->values[index] : &entry.value)};
      return found;
    }
    if (*hash_word(entry.key) == *hash_word(name)) return found;
    found.read(word_at(&entry.key));
    found.read(hash_word(entry.key));
  }
  return found;
}

#else

inline DictTable dict_table(PyObject*) { return {}; }
inline Search search(PyObject*, PyObject*) { return {}; }

#endif

inline Word used_word(PyObject* dict) { return word_at(&reinterpret_cast<PyDictObject*>(dict)->ma_used); }

}  // namespace unified_guards::cpython
